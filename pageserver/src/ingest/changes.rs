//! What a record changes, or why it is refused.

use ids::{Key, Lsn, RelTag, SlruKind};
use pg::kept::{FILE_BYTES_MAX, FILES_MAX, KeptPath};
use pg::wal::{DecodeError, rmgr};

use super::directory::EXTENSION_MAX;
use crate::value::Value;

/// A record that ingest does not get past.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IngestError {
    /// It cannot be understood.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It is understood, and does not fit or is not supported.
    #[error("WAL record at {lsn} ({} rmgr {rmid}, info {info:#04x}): {reason}", rmgr::name(*rmid))]
    Refused {
        lsn: Lsn,
        rmid: u8,
        info: u8,
        reason: Reason,
    },
}

/// Why a record is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("no files of database {db} can be in tablespace {spc}")]
    Place { spc: u32, db: u32 },
    #[error("tablespace {0} was never made")]
    NoTablespace(u32),
    /// Nobody but its extension knows what it does.
    #[error(
        "nobody knows what a record of custom resource manager {0} does that names no page: \
         allow it in custom_rmgrs_to_skip if that is nothing a page server stores"
    )]
    Custom(u8),
    /// A transaction may leave its own new files out of WAL then.
    #[error("wal_level = minimal keeps data out of WAL, and is not supported")]
    MinimalWal,
    #[error("PostgreSQL's timeline {0} is not the one that the WAL is on")]
    OtherTimeline(u32),
    #[error("database {0} was never made")]
    NoDatabase(u32),
    #[error("block {block} of {fork} is more than {EXTENSION_MAX} blocks past its end at {len}")]
    FarBlock { fork: RelTag, block: u32, len: u32 },
    #[error("a template of {blocks} blocks is too long to be copied as files: not supported yet")]
    LongTemplate { blocks: u64 },
    #[error("page {page} of {} was never made", slru.directory())]
    NoSlruPage { slru: SlruKind, page: u32 },
    /// C7. The agent keeps below these bounds, and nobody else writes such messages.
    #[error("{path} is kept at {bytes} bytes, more than the {FILE_BYTES_MAX} that are taken")]
    LongFile { path: KeptPath, bytes: usize },
    #[error("the content of {0} is not in hexadecimal")]
    GarbledFile(KeptPath),
    #[error("{0} would be one kept file more than the {FILES_MAX} that are taken")]
    ManyFiles(KeptPath),
    #[error("transaction {0} was never prepared")]
    NotPrepared(u32),
    /// C3: a next transaction that is too low would hide rows.
    #[error("the next transaction is {found}, below {seen}, though all before that were seen")]
    NextXid { found: u64, seen: u64 },
}

/// What a record changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// In the order in which it applies.
    pub(crate) values: Vec<(Key, Value)>,
}
