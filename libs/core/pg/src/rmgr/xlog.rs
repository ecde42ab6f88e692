//! The log itself and control state (`pg_control.h`, `xlog_internal.h`).

use bytes::Bytes;
use ids::Lsn;

use super::fields::Fields;
use crate::PgMajor;
use crate::control::{CHECKPOINT_BYTES, CheckPoint};
use crate::wal::{Malformed, Record};

const FPI_FOR_HINT: u8 = 0xA0;
const FPI: u8 = 0xB0;
const RESTORE_POINT_NAME_BYTES: usize = 64;

/// Settings that a standby must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterChange {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_xacts: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_xact: u32,
    /// `wal_level`: 0 minimal, 1 replica, 2 logical.
    pub wal_level: u32,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
}

/// What happened to the log or to control state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XlogRecord {
    /// A checkpoint.
    CheckPoint {
        /// Whether at shutdown.
        shutdown: bool,
        /// Its fields.
        checkpoint: CheckPoint,
    },
    /// Nothing.
    Noop,
    /// OIDs below this are spoken for.
    NextOid(u32),
    /// The rest of the segment is void.
    Switch,
    /// A base backup ended that began here.
    BackupEnd(Lsn),
    /// Settings.
    ParameterChange(ParameterChange),
    /// A named point.
    RestorePoint {
        /// When, in microseconds since 2000.
        time: i64,
        /// Its name.
        name: Bytes,
    },
    /// `full_page_writes` from here.
    FullPageWrites(bool),
    /// Recovery ended.
    EndOfRecovery {
        /// When, in microseconds since 2000.
        time: i64,
        /// PostgreSQL's timeline.
        tli: u32,
        /// The one before.
        prev_tli: u32,
        /// `wal_level`; 17 on, 0 before.
        wal_level: u32,
    },
    /// Nothing but images of blocks. Those of a hint lack where full-page images are not written.
    Images,
    /// The record at this LSN was never finished.
    OverwriteContrecord {
        /// Where it begins.
        lsn: Lsn,
        /// When it was given up, in microseconds since 2000.
        time: i64,
    },
    /// An online checkpoint begins: its redo begins here. 17 on.
    CheckPointRedo {
        /// `wal_level`.
        wal_level: u32,
    },
}

pub(super) fn read(
    version: PgMajor,
    record: &Record,
    mut fields: Fields<'_>,
) -> Result<XlogRecord, Malformed> {
    check_blocks(record)?;
    let read = match record.op() {
        0x00 | 0x10 => XlogRecord::CheckPoint {
            shutdown: record.op() == 0x00,
            checkpoint: read_checkpoint(version, &mut fields)?,
        },
        0x20 => XlogRecord::Noop,
        0x30 => XlogRecord::NextOid(fields.u32("next OID")?),
        0x40 => XlogRecord::Switch,
        0x50 => XlogRecord::BackupEnd(fields.lsn("start of backup")?),
        0x60 => XlogRecord::ParameterChange(read_parameters(&mut fields)?),
        0x70 => read_restore_point(&mut fields)?,
        0x80 => XlogRecord::FullPageWrites(fields.bool("full_page_writes")?),
        0x90 => read_end_of_recovery(version, &mut fields)?,
        FPI_FOR_HINT | FPI => XlogRecord::Images,
        0xD0 => XlogRecord::OverwriteContrecord {
            lsn: fields.lsn("overwritten LSN")?,
            time: fields.i64("time")?,
        },
        0xE0 => XlogRecord::CheckPointRedo {
            wal_level: fields.wal_level()?,
        },
        _ => return Err(Malformed::UnknownOp),
    };
    fields.finish("payload").map(|()| read)
}

/// Images without a block, an image that is not there, or a block that no reader would look at.
fn check_blocks(record: &Record) -> Result<(), Malformed> {
    let is_images = matches!(record.op(), FPI_FOR_HINT | FPI);
    let whole = record.blocks.iter().all(|block| block.image.is_some());
    if is_images == record.blocks.is_empty() || !whole && record.op() != FPI_FOR_HINT {
        return Err(Malformed::Field {
            what: "number of blocks",
            value: record.blocks.len() as u64,
        });
    }
    Ok(())
}

fn read_checkpoint(version: PgMajor, fields: &mut Fields<'_>) -> Result<CheckPoint, Malformed> {
    const WHAT: &str = "checkpoint";
    let bytes = fields.slice(CHECKPOINT_BYTES, WHAT)?;
    let mut checkpoint = CheckPoint::decode(bytes).ok_or(Malformed::Truncated(WHAT))?;
    // `decode` takes any value for these two.
    let mut again = Fields::new(bytes);
    again.skip(16, WHAT)?;
    let _full_page_writes = again.bool("full_page_writes")?;
    again.skip(3, WHAT)?;
    if version < PgMajor::V17 {
        checkpoint.wal_level = 0;
    } else {
        let _wal_level = again.wal_level()?;
    }
    Ok(checkpoint)
}

fn read_end_of_recovery(
    version: PgMajor,
    fields: &mut Fields<'_>,
) -> Result<XlogRecord, Malformed> {
    let time = fields.i64("time")?;
    let (tli, prev_tli) = (fields.u32("timeline")?, fields.u32("previous timeline")?);
    let mut wal_level = 0;
    if version >= PgMajor::V17 {
        wal_level = fields.wal_level()?;
        fields.skip(4, "padding")?;
    }
    Ok(XlogRecord::EndOfRecovery {
        time,
        tli,
        prev_tli,
        wal_level,
    })
}

fn read_parameters(fields: &mut Fields<'_>) -> Result<ParameterChange, Malformed> {
    let change = ParameterChange {
        max_connections: fields.count("max_connections")?,
        max_worker_processes: fields.count("max_worker_processes")?,
        max_wal_senders: fields.count("max_wal_senders")?,
        max_prepared_xacts: fields.count("max_prepared_transactions")?,
        max_locks_per_xact: fields.count("max_locks_per_transaction")?,
        wal_level: fields.wal_level()?,
        wal_log_hints: fields.bool("wal_log_hints")?,
        track_commit_timestamp: fields.bool("track_commit_timestamp")?,
    };
    fields.skip(2, "padding")?;
    Ok(change)
}

/// The name stands in a buffer of fixed length; behind the NUL is what was there before.
fn read_restore_point(fields: &mut Fields<'_>) -> Result<XlogRecord, Malformed> {
    let time = fields.i64("time")?;
    let mut name = fields.bytes(RESTORE_POINT_NAME_BYTES, "name")?;
    let length = name.iter().position(|byte| *byte == 0);
    name.truncate(length.ok_or(Malformed::Truncated("name"))?);
    Ok(XlogRecord::RestorePoint { time, name })
}
