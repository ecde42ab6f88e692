//! Hot standby and logical messages (`standbydefs.h`, `message.h`).

use bytes::Bytes;

use super::INVALIDATION_BYTES;
use super::fields::Fields;
use crate::wal::{Malformed, Record};

/// An access-exclusive lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRecord {
    /// The transaction that holds it.
    pub xid: u32,
    /// The database.
    pub db: u32,
    /// The relation.
    pub rel: u32,
}

/// The transactions that run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningXacts {
    /// Whether subtransactions are missing.
    pub subxids_overflowed: bool,
    /// The next transaction.
    pub next_xid: u32,
    /// The oldest that runs.
    pub oldest_running_xid: u32,
    /// The latest that ended.
    pub latest_completed_xid: u32,
    /// Top-level transactions.
    pub xids: Vec<u32>,
    /// Subtransactions.
    pub subxids: Vec<u32>,
}

/// What a hot standby must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StandbyRecord {
    /// Locks that are held.
    Locks(Vec<LockRecord>),
    /// The transactions that run.
    RunningXacts(RunningXacts),
    /// Cache invalidations of a transaction without an xid.
    Invalidations {
        /// The database.
        db: u32,
        /// Its tablespace.
        spc: u32,
    },
}

/// A message to logical decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalMessage {
    /// The database.
    pub db: u32,
    /// Whether it belongs to the transaction.
    pub transactional: bool,
    /// Its prefix.
    pub prefix: Bytes,
    /// The message.
    pub message: Bytes,
}

pub(super) fn read(record: &Record, mut fields: Fields<'_>) -> Result<StandbyRecord, Malformed> {
    let read = match record.op() {
        0x00 => {
            let count = fields.count("number of locks")?;
            StandbyRecord::Locks(fields.array(count, 12, "locks", |fields| {
                Ok(LockRecord {
                    xid: fields.u32("xid of lock")?,
                    db: fields.u32("database of lock")?,
                    rel: fields.u32("relation of lock")?,
                })
            })?)
        }
        0x10 => StandbyRecord::RunningXacts(read_running(&mut fields)?),
        0x20 => {
            let (db, spc) = (fields.u32("database")?, fields.u32("tablespace")?);
            let _init_file = fields.bool("init file invalidation")?;
            fields.skip(3, "padding")?;
            let count = fields.count("number of invalidations")?;
            fields.array(count, INVALIDATION_BYTES, "invalidations", |fields| {
                fields.skip(INVALIDATION_BYTES, "invalidation")
            })?;
            StandbyRecord::Invalidations { db, spc }
        }
        _ => return Err(Malformed::UnknownOp),
    };
    fields.finish("payload").map(|()| read)
}

fn read_running(fields: &mut Fields<'_>) -> Result<RunningXacts, Malformed> {
    let count = fields.count("number of xids")?;
    let sub_count = fields.count("number of subxids")?;
    let subxids_overflowed = fields.bool("subxid overflow")?;
    fields.skip(3, "padding")?;
    Ok(RunningXacts {
        subxids_overflowed,
        next_xid: fields.u32("next xid")?,
        oldest_running_xid: fields.u32("oldest running xid")?,
        latest_completed_xid: fields.u32("latest completed xid")?,
        xids: fields.xids(count, "xids")?,
        subxids: fields.xids(sub_count, "subxids")?,
    })
}

pub(super) fn read_message(
    record: &Record,
    mut fields: Fields<'_>,
) -> Result<LogicalMessage, Malformed> {
    if record.op() != 0x00 {
        return Err(Malformed::UnknownOp);
    }
    let db = fields.u32("database")?;
    let transactional = fields.bool("transactional")?;
    fields.skip(3, "padding")?;
    let prefix_bytes = fields.u64("length of prefix")?;
    let message_bytes = fields.u64("length of message")?;
    let length = |bytes, what| usize::try_from(bytes).map_err(|_| Malformed::Truncated(what));
    let mut prefix = fields.bytes(length(prefix_bytes, "prefix")?, "prefix")?;
    // The length counts the NUL.
    if prefix.iter().position(|byte| *byte == 0) != prefix.len().checked_sub(1) || prefix.is_empty()
    {
        return Err(Malformed::Field {
            what: "length of prefix",
            value: prefix_bytes,
        });
    }
    prefix.truncate(prefix.len() - 1);
    let message = fields.bytes(length(message_bytes, "message")?, "message")?;
    fields.finish("message")?;
    Ok(LogicalMessage {
        db,
        transactional,
        prefix,
        message,
    })
}
