//! WAL as a walsender of Postgres sends it: up to the commit position, or to the end of the log
//! in one term.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use ids::{Lsn, Term};
use pg::wire::replication::FromReceiver;
use pg::wire::wal_push::PageserverFeedback;
use service::libpq::{Conn, QueryError, WireError};
use tokio::time::MissedTickBehavior;

use crate::archive::{Archive, ArchiveError, Archived};
use crate::timeline::{Timeline, TimelineError};
use crate::wal_store::ReadError;

/// The most WAL in one message.
const CHUNK: u64 = 128 << 10;
const KEEPALIVE: Duration = Duration::from_secs(1);
/// Seconds from 1970 to 2000.
const POSTGRES_EPOCH: u64 = 946_684_800;
const NO_WAL: &str = "58P01";
/// The bucket does not answer.
const NO_ANSWER: &str = "58030";
const DAMAGED: &str = "58R03";
const OTHER_TERM: &str = "55000";
const PROTOCOL: &str = "08P01";

/// How far WAL is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// What is committed.
    Commit,
    /// All that is durable, as long as the node is in this term: a proposer of the term fills
    /// another safekeeper's log with it.
    FlushOf(Term),
}

/// Whose progress it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reporter {
    /// Whether it is a node of the storage.
    pub(crate) trusted: bool,
    /// Whether it calls itself a pageserver.
    pub(crate) pageserver: bool,
}

/// One stream.
pub(crate) struct Sender<'a> {
    pub(crate) timeline: &'a Timeline,
    pub(crate) archive: Option<&'a Archive>,
    pub(crate) until: Until,
    pub(crate) reporter: Reporter,
}

impl Sender<'_> {
    /// Sends until the client ends the copy.
    pub(crate) async fn run(&self, conn: &mut Conn, from: Lsn) -> Result<(), QueryError> {
        self.limit()?;
        conn.copy_both().await?;
        let mut position = self.timeline.position();
        let (mut at, mut archived) = (from, None);
        // Its own clock: whoever speaks often must not go without for that.
        let mut keepalives = tokio::time::interval(KEEPALIVE);
        keepalives.set_missed_tick_behavior(MissedTickBehavior::Delay);
        keepalives.reset();
        loop {
            position.mark_unchanged();
            let limit = self.limit()?;
            if at < limit {
                let end = limit.min(page_end(at));
                let wal = self.read(at, end, &mut archived).await?;
                // Between the reading and the sending a vote may have been given away.
                self.limit()?;
                self.send(conn, &wal_data(at, limit, &wal)).await?;
                at = at + wal.len() as u64;
            }
            let idle = at >= limit;
            tokio::select! {
                biased;
                // K6
                ended = self.timeline.ended() => return Err(ended.into()),
                said = conn.read_copy() => match said? {
                    Some(said) => self.said(said).await?,
                    None => break,
                },
                changed = position.changed(), if idle => if changed.is_err() {
                    return Err(self.timeline.ended().await.into());
                },
                _ = keepalives.tick(), if idle => {
                    self.send(conn, &keepalive(limit)).await?;
                }
                () = std::future::ready(()), if !idle => {}
            }
        }
        conn.copy_done();
        conn.command_complete("COPY 0");
        Ok(())
    }

    fn limit(&self) -> Result<Lsn, QueryError> {
        let position = *self.timeline.position().borrow();
        match self.until {
            Until::Commit => Ok(position.commit),
            Until::FlushOf(term) if position.term == term => Ok(position.flush),
            Until::FlushOf(term) => Err(QueryError::refused(
                OTHER_TERM,
                format!(
                    "the stream is of term {term}, this node is in {}",
                    position.term
                ),
            )),
        }
    }

    /// What was trimmed here is in the bucket.
    async fn read(
        &self,
        at: Lsn,
        end: Lsn,
        archived: &mut Option<Archived>,
    ) -> Result<Bytes, QueryError> {
        let first = match self.timeline.read(at..end).await {
            Err(TimelineError::Read(ReadError::OutOfRange { first, .. })) if at < first => first,
            Err(TimelineError::Closed) => return Err(self.timeline.ended().await.into()),
            read => return Ok(read?),
        };
        let Some(archive) = self.archive else {
            let message = format!("WAL is kept from {first} on, and there is no bucket");
            return Err(QueryError::refused(NO_WAL, message));
        };
        let refused = |error: ArchiveError| match error {
            ArchiveError::Missing(_) => QueryError::refused(NO_WAL, error),
            ArchiveError::Get(store::SealedGetError::Key(key)) => TimelineError::Key(key).into(),
            ArchiveError::Get(store::SealedGetError::Damaged { .. }) => {
                QueryError::refused(DAMAGED, error)
            }
            ArchiveError::Get(store::SealedGetError::Get(store::GetError::NotFound(_))) => {
                QueryError::refused(NO_WAL, error)
            }
            // It may be there: whoever asks must not give up for good what needs it (C7).
            ArchiveError::Get(store::SealedGetError::Get(store::GetError::Unavailable {
                ..
            })) => QueryError::refused(NO_ANSWER, error),
        };
        if !archived.as_ref().is_some_and(|a| a.covers(at)) {
            let timeline = self.timeline.place().timeline;
            let opened = archive.open(self.timeline.keys(), timeline, at).await;
            *archived = Some(opened.map_err(refused)?);
        }
        match archived {
            Some(archived) => archived.read(at, end).await.map_err(refused),
            None => Err(refused(ArchiveError::Missing(at))),
        }
    }

    async fn send(&self, conn: &mut Conn, message: &[u8]) -> Result<(), QueryError> {
        // K5: as the WAL leaves.
        self.timeline.check()?;
        tokio::select! {
            sent = async {
                conn.write_copy(message).await?;
                conn.flush().await
            } => Ok(sent?),
            // What waits for a slow client must not leave after a fence.
            _ = self.timeline.ended() => Err(WireError::Closed.into()),
        }
    }

    /// Progress that trimming relies on comes from pageservers alone.
    async fn said(&self, message: Bytes) -> Result<(), QueryError> {
        let said = FromReceiver::decode(message);
        let said = said.map_err(|error| QueryError::refused(PROTOCOL, error))?;
        let report = match said {
            FromReceiver::Pageserver(feedback) => feedback,
            FromReceiver::Status {
                write,
                flush,
                apply,
                time,
                ..
            } if self.reporter.pageserver => PageserverFeedback::new(0, write, flush, apply, time),
            FromReceiver::Status { .. } | FromReceiver::HotStandby { .. } => return Ok(()),
        };
        if self.reporter.trusted {
            // Ended: the loop says why.
            drop(self.timeline.report(report).await);
        }
        Ok(())
    }
}

/// The border of a page that is at most a chunk behind `at`.
fn page_end(at: Lsn) -> Lsn {
    let end = at.0.saturating_add(CHUNK);
    Lsn(end - end % pg::page::BLOCK as u64)
}

fn wal_data(at: Lsn, available: Lsn, wal: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(b'w');
    out.put_u64(at.0);
    out.put_u64(available.0);
    out.put_i64(now());
    out.put_slice(wal);
    out.freeze()
}

fn keepalive(end: Lsn) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(b'k');
    out.put_u64(end.0);
    out.put_i64(now());
    out.put_u8(1);
    out.freeze()
}

/// Microseconds since 2000, in steps of a second: clients only show it.
fn now() -> i64 {
    let seconds = service::clock::unix_seconds().saturating_sub(POSTGRES_EPOCH);
    i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
}
