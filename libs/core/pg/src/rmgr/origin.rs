//! Replication origins (`origin.h`).

use ids::Lsn;

use super::fields::Fields;
use crate::wal::{Malformed, Record};

/// What happened to a replication origin, beside what transactions do to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginRecord {
    /// Its progress was set.
    Set {
        /// The origin.
        origin: u16,
        /// The LSN at the origin.
        lsn: Lsn,
        /// Whether also backwards.
        force: bool,
    },
    /// It was removed.
    Drop {
        /// The origin.
        origin: u16,
    },
}

pub(super) fn read(record: &Record, mut fields: Fields<'_>) -> Result<OriginRecord, Malformed> {
    let read = match record.op() {
        0x00 => {
            let lsn = fields.lsn("LSN at origin")?;
            let origin = fields.u16("origin")?;
            let force = fields.bool("force")?;
            fields.skip(5, "padding")?;
            OriginRecord::Set { origin, lsn, force }
        }
        0x10 => OriginRecord::Drop {
            origin: fields.u16("origin")?,
        },
        _ => return Err(Malformed::UnknownOp),
    };
    fields.finish("payload").map(|()| read)
}
