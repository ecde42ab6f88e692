//! Why there is no backup.

use api::Grade;
use ids::{Lsn, RelTag};

use crate::timeline::{Closed, ReadError, WaitError};
use crate::view::ViewError;

/// A backup was not written, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error(transparent)]
    View(#[from] ViewError),
    #[error(transparent)]
    Wait(#[from] WaitError),
    #[error(transparent)]
    Closed(#[from] Closed),
    /// There is no lookup of the record that ended there.
    #[error(
        "a backup as of {asked} is not supported yet, as the last record ends at {last}: branch there"
    )]
    Past { asked: Lsn, last: Lsn },
    /// C3: a next transaction that is too low would hide rows.
    #[error("the next transaction is {next}, but the end of {seen} is known")]
    NextXid { next: u64, seen: u32 },
    /// The page that the next transaction is noted on.
    #[error("the status page of transaction {0} is missing")]
    NoStatusPage(u64),
    #[error("no directory can be that of database {db} in tablespace {spc}")]
    Place { spc: u32, db: u32 },
    #[error("relation {0} is outside of the data directory")]
    Relation(RelTag),
    /// Nobody reads what is written.
    #[error("the receiver of the backup is gone")]
    ReceiverGone,
    #[error("the backup cannot be described: {0}")]
    Describe(#[from] serde_json::Error),
    #[error("the member {0} cannot be named in an archive")]
    Member(String),
}

impl BackupError {
    /// How a caller should take it.
    pub(crate) const fn grade(&self) -> Grade {
        match self {
            Self::View(error) => error.grade(),
            Self::Wait(error) => error.grade(),
            Self::Closed(closed) => closed.grade(),
            Self::Past { .. } => Grade::FixRequest,
            Self::NextXid { .. }
            | Self::NoStatusPage(_)
            | Self::Place { .. }
            | Self::Relation(_) => Grade::DataDamaged,
            Self::ReceiverGone => Grade::Retry,
            Self::Describe(_) | Self::Member(_) => Grade::Bug,
        }
    }
}

impl From<ReadError> for BackupError {
    fn from(error: ReadError) -> Self {
        Self::View(error.into())
    }
}
