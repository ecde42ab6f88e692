//! Replication origins: how far each has been replayed (`origin.c`).

use bytes::Bytes;
use ids::{KeyKind, Lsn};
use pg::kept::ORIGIN;
use pg::rmgr::OriginRecord;

use super::{Changes, Ingest};
use crate::value::Value;

impl Ingest {
    pub(super) fn origin(&mut self, record: OriginRecord, out: &mut Changes) {
        match record {
            OriginRecord::Set { origin, lsn, force } => self.advance(origin, lsn, force, out),
            OriginRecord::Drop { origin } => {
                if self.directory.origins.remove(&origin).is_some() {
                    out.put(KeyKind::ReplOrigins, Value::ListRemove(item(origin)));
                    out.put(KeyKind::ReplOrigin(origin), Value::Gone);
                }
            }
        }
    }

    /// Moves the progress of an origin on, and back only by `force`.
    pub(super) fn advance(&mut self, origin: u16, there: Lsn, force: bool, out: &mut Changes) {
        // Neither is an origin: no record has the one, and of the other no progress is kept.
        if matches!(origin, 0 | ORIGIN) {
            return;
        }
        let origins = &mut self.directory.origins;
        let known = origins.get(&origin).copied();
        if known.is_some_and(|known| known >= there && !force) {
            return;
        }
        if known.is_none() {
            out.put(KeyKind::ReplOrigins, Value::ListAdd(item(origin)));
        }
        origins.insert(origin, there);
        out.put(KeyKind::ReplOrigin(origin), progress(there));
    }
}

fn item(origin: u16) -> Bytes {
    Bytes::copy_from_slice(&origin.to_be_bytes())
}

pub(super) fn progress(there: Lsn) -> Value {
    Value::Image(Bytes::copy_from_slice(&there.0.to_le_bytes()))
}
