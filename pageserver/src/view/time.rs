//! Where a timeline was at a point in time.
//!
//! Ingest notes the time of every commit and abort under one key, where it never goes back; so
//! the last one at or before a time is found by halving.

use api::timeline::{LsnAtTime, TimeRelation};
use ids::{Key, KeyKind, Lsn};

use super::ViewError;
use crate::timeline::Timeline;
use crate::value::Value;

/// 2000-01-01, in microseconds of Unix time.
const POSTGRES_EPOCH_MICROS: f64 = 946_684_800e6;
const KIND: KeyKind = KeyKind::CommitTime;

impl Timeline {
    /// Where the timeline was at `unix`, in seconds.
    pub(crate) async fn lsn_at(&self, unix: f64) -> Result<LsnAtTime, ViewError> {
        // Saturating: times that PostgreSQL cannot have lie before or after all of its own.
        let time = (unix * 1e6 - POSTGRES_EPOCH_MICROS) as i64;
        let last = self.last_lsn().map_err(crate::timeline::ReadError::from)?;
        let Some((newest, at)) = self.commit_before(last).await? else {
            let relation = TimeRelation::NoData;
            return Ok(LsnAtTime {
                lsn: last,
                relation,
            });
        };
        if at <= time {
            return Ok(LsnAtTime {
                lsn: newest,
                relation: TimeRelation::Future,
            });
        }
        // Commits at or below `low` came at or before the time; the one at `high` after it.
        let (mut low, mut high, mut found) = (Lsn(0), newest, None);
        while low.0 + 1 < high.0 {
            let middle = Lsn(low.0 + (high.0 - low.0) / 2);
            match self.commit_before(middle).await? {
                Some((commit, at)) if at <= time => {
                    found = Some(commit);
                    low = middle;
                }
                Some((commit, _)) => high = commit,
                None => low = middle,
            }
        }
        Ok(match found {
            Some(lsn) => LsnAtTime {
                lsn,
                relation: TimeRelation::Present,
            },
            None => LsnAtTime {
                lsn: self.beginning(),
                relation: TimeRelation::Past,
            },
        })
    }

    /// The last commit or abort at or below `lsn`: its end and its time.
    async fn commit_before(&self, lsn: Lsn) -> Result<Option<(Lsn, i64)>, ViewError> {
        let mut values = self.read(Key::new(KIND), lsn).await?;
        match values.pop() {
            None => Ok(None),
            Some((at, Value::Image(bytes))) => {
                let bytes = <[u8; 8]>::try_from(&bytes[..]);
                let bytes = bytes.map_err(|_| ViewError::malformed(KIND, lsn))?;
                Ok(Some((at, i64::from_le_bytes(bytes))))
            }
            Some(_) => Err(ViewError::malformed(KIND, lsn)),
        }
    }
}
