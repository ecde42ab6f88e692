//! What the payloads of those resource managers say whose records change more than the pages that
//! they name: transactions, files, SLRUs, control state. PostgreSQL 14 to 18.
//!
//! Every parser refuses what it does not know: ingest that skips half a record loses data in
//! silence.

mod fields;
mod origin;
mod pages;
mod slru;
mod standby;
mod storage;
mod xact;
mod xlog;

pub use origin::OriginRecord;
pub use slru::{ClogRecord, CommitTsRecord, MemberStatus, MultiXactMember, MultiXactRecord};
pub use standby::{LockRecord, LogicalMessage, RunningXacts, StandbyRecord};
pub use storage::{DatabaseRecord, RelmapUpdate, StorageRecord, TablespaceRecord, truncate_flags};
pub use xact::{
    DroppedStats, Finish, Outcome, Prepare, RelFile, XactOrigin, XactRecord, xinfo_bits,
};
pub use xlog::{ParameterChange, XlogRecord};

use crate::PgMajor;
use crate::wal::{DecodeError, Malformed, Record, op_name, rmgr};
use fields::Fields;

/// The length of a cache invalidation message, which nothing here reads.
const INVALIDATION_BYTES: usize = 16;

/// What a record does, beside what it does to its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The log itself and control state.
    Xlog(XlogRecord),
    /// Transactions.
    Xact(XactRecord),
    /// Files of relations.
    Storage(StorageRecord),
    /// Transaction status.
    Clog(ClogRecord),
    /// Databases.
    Database(DatabaseRecord),
    /// Tablespaces.
    Tablespace(TablespaceRecord),
    /// Multixacts.
    MultiXact(MultiXactRecord),
    /// Relation maps.
    Relmap(RelmapUpdate),
    /// Hot standby.
    Standby(StandbyRecord),
    /// Commit timestamps.
    CommitTs(CommitTsRecord),
    /// Replication origins.
    Origin(OriginRecord),
    /// A message to logical decoding.
    LogicalMessage(LogicalMessage),
    /// Nothing but changes of blocks, a matter of redo, or nothing that storage keeps.
    Pages,
    /// Whatever a custom resource manager writes (15 on): nobody but its extension can read it.
    Custom,
}

impl Payload {
    /// Reads the payload of a record of any resource manager.
    pub fn read(version: PgMajor, record: &Record) -> Result<Self, DecodeError> {
        read(version, record).map_err(|reason| DecodeError {
            lsn: record.start,
            rmid: record.rmid,
            info: record.info,
            reason,
        })
    }
}

fn read(version: PgMajor, record: &Record) -> Result<Payload, Malformed> {
    let unknown_bits = record.info & !(0xF0 | SPECIAL_REL_UPDATE | CHECK_CONSISTENCY);
    if unknown_bits != 0 {
        return Err(Malformed::Field {
            what: "info",
            value: u64::from(record.info),
        });
    }
    if record.rmid >= rmgr::CUSTOM_MIN && version >= PgMajor::V15 {
        return Ok(Payload::Custom);
    }
    if record.rmid > rmgr::LOGICALMSG {
        return Err(Malformed::UnknownRmgr);
    }
    op_name(version, record.rmid, record.info).ok_or(Malformed::UnknownOp)?;
    let fields = Fields::new(record.main_data);
    let payload = match record.rmid {
        rmgr::HEAP2..=rmgr::BRIN | rmgr::GENERIC => {
            return pages::check(version, record, fields).map(|()| Payload::Pages);
        }
        rmgr::XLOG => return xlog::read(version, record, fields).map(Payload::Xlog),
        rmgr::XACT => Payload::Xact(xact::read(version, record, fields)?),
        rmgr::SMGR => Payload::Storage(storage::read_storage(record, fields)?),
        rmgr::CLOG => Payload::Clog(slru::read_clog(version, record, fields)?),
        rmgr::DBASE => Payload::Database(storage::read_database(version, record, fields)?),
        rmgr::TBLSPC => Payload::Tablespace(storage::read_tablespace(record, fields)?),
        rmgr::MULTIXACT => Payload::MultiXact(slru::read_multixact(version, record, fields)?),
        rmgr::RELMAP => Payload::Relmap(storage::read_relmap(version, record, fields)?),
        rmgr::STANDBY => Payload::Standby(standby::read(record, fields)?),
        rmgr::COMMIT_TS => Payload::CommitTs(slru::read_commit_ts(version, record, fields)?),
        rmgr::REPLORIGIN => Payload::Origin(origin::read(record, fields)?),
        rmgr::LOGICALMSG => Payload::LogicalMessage(standby::read_message(record, fields)?),
        _ => return Err(Malformed::UnknownRmgr),
    };
    // None of these registers a block; an image here would be dropped.
    no_blocks(record).map(|()| payload)
}

fn no_blocks(record: &Record) -> Result<(), Malformed> {
    if record.blocks.is_empty() {
        return Ok(());
    }
    Err(Malformed::Field {
        what: "number of blocks",
        value: record.blocks.len() as u64,
    })
}

const SPECIAL_REL_UPDATE: u8 = 0x01;
const CHECK_CONSISTENCY: u8 = 0x02;

#[cfg(test)]
mod tests;
