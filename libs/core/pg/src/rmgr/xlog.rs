//! The log itself and control state (`pg_control.h`, `xlog_internal.h`).

use bytes::Bytes;
use ids::Lsn;

use super::fields::Fields;
use crate::control::{CHECKPOINT_BYTES, CheckPoint};
use crate::wal::{Malformed, Record};

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
    },
    /// Nothing but images of blocks.
    Images,
    /// The record at this LSN was never finished.
    OverwriteContrecord {
        /// Where it begins.
        lsn: Lsn,
        /// When it was given up, in microseconds since 2000.
        time: i64,
    },
}

pub(super) fn read(record: &Record, mut fields: Fields<'_>) -> Result<XlogRecord, Malformed> {
    let is_images = matches!(record.op(), 0xA0 | 0xB0);
    // Images without a block, or a block that no reader would look at.
    let blocks_fit = is_images != record.blocks.is_empty();
    let images_only = record.blocks.iter().all(|block| block.image.is_some());
    let read = match record.op() {
        0x00 | 0x10 => XlogRecord::CheckPoint {
            shutdown: record.op() == 0x00,
            checkpoint: CheckPoint::decode(fields.slice(CHECKPOINT_BYTES, "checkpoint")?)
                .ok_or(Malformed::Truncated("checkpoint"))?,
        },
        0x20 => XlogRecord::Noop,
        0x30 => XlogRecord::NextOid(fields.u32("next OID")?),
        0x40 => XlogRecord::Switch,
        0x50 => XlogRecord::BackupEnd(fields.lsn("start of backup")?),
        0x60 => XlogRecord::ParameterChange(read_parameters(&mut fields)?),
        0x70 => read_restore_point(&mut fields)?,
        0x80 => XlogRecord::FullPageWrites(fields.bool("full_page_writes")?),
        0x90 => XlogRecord::EndOfRecovery {
            time: fields.i64("time")?,
            tli: fields.u32("timeline")?,
            prev_tli: fields.u32("previous timeline")?,
        },
        0xA0 | 0xB0 => XlogRecord::Images,
        0xD0 => XlogRecord::OverwriteContrecord {
            lsn: fields.lsn("overwritten LSN")?,
            time: fields.i64("time")?,
        },
        _ => return Err(Malformed::UnknownOp),
    };
    fields.finish("payload")?;
    if !blocks_fit || !images_only {
        return Err(Malformed::Field {
            what: "number of blocks",
            value: record.blocks.len() as u64,
        });
    }
    Ok(read)
}

fn read_parameters(fields: &mut Fields<'_>) -> Result<ParameterChange, Malformed> {
    let change = ParameterChange {
        max_connections: fields.count("max_connections")?,
        max_worker_processes: fields.count("max_worker_processes")?,
        max_wal_senders: fields.count("max_wal_senders")?,
        max_prepared_xacts: fields.count("max_prepared_transactions")?,
        max_locks_per_xact: fields.count("max_locks_per_transaction")?,
        wal_level: fields.count("wal_level")?,
        wal_log_hints: fields.bool("wal_log_hints")?,
        track_commit_timestamp: fields.bool("track_commit_timestamp")?,
    };
    fields.skip(2, "padding")?;
    if change.wal_level > 2 {
        return Err(Malformed::Field {
            what: "wal_level",
            value: u64::from(change.wal_level),
        });
    }
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
