//! What a record changes, or why it is refused.

use ids::{Key, KeyKind, Lsn, RelTag, SlruKind};
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
    #[error("changes of such pages are not supported yet")]
    NoRedo,
    #[error("tablespaces are not supported: {0} is one")]
    Tablespace(u32),
    #[error("track_commit_timestamp is not supported yet")]
    CommitTimestamps,
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
    /// What the caller copies, as it was before the record.
    pub(crate) copy: Option<CopyDatabase>,
}

/// A database that is made of the files of another. Its lists and lengths are among the values;
/// its map and blocks are to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CopyDatabase {
    /// Tablespace and database.
    pub(crate) from: (u32, u32),
    pub(crate) to: (u32, u32),
    /// The forks of the template, and their lengths in blocks.
    pub(crate) forks: Vec<(RelTag, u32)>,
}

impl CopyDatabase {
    /// Every key that is to be copied: from which, to which.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (Key, Key)> + '_ {
        let map = |(spc, db)| Key::new(KeyKind::RelMap { spc, db });
        let blocks = self.forks.iter().flat_map(|&(from, len)| {
            let (spc, db) = self.to;
            let to = RelTag { spc, db, ..from };
            let key = |fork, block| Key::new(KeyKind::RelBlock(fork, block));
            (0..len).map(move |block| (key(from, block), key(to, block)))
        });
        std::iter::once((map(self.from), map(self.to))).chain(blocks)
    }
}
