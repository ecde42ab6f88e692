//! Why something is not seen.

use std::fmt;

use api::Grade;
use ids::{Key, KeyKind, Lsn, RelTag, SlruKind};

use crate::timeline::ReadError;

/// What was asked for was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ViewError {
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It does not exist.
    #[error("{wanted} does not exist at {lsn}")]
    Absent { wanted: Wanted, lsn: Lsn },
    /// What was stored is of another shape than its key.
    #[error("what is stored for {key} at {lsn} is malformed")]
    Malformed { key: Key, lsn: Lsn },
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Relation(RelTag),
    Database(u32),
    Slru(SlruKind, u32),
    Prepared(u32),
    Checkpoint,
    ControlFile,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relation(rel) => write!(f, "relation {rel}"),
            Self::Database(db) => write!(f, "database {db}"),
            Self::Slru(slru, segment) => write!(f, "{}/{segment:04X}", slru.directory()),
            Self::Prepared(xid) => write!(f, "prepared transaction {xid}"),
            Self::Checkpoint => f.write_str("a checkpoint"),
            Self::ControlFile => f.write_str("pg_control"),
        }
    }
}

impl ViewError {
    pub(super) const fn absent(wanted: Wanted, lsn: Lsn) -> Self {
        Self::Absent { wanted, lsn }
    }

    pub(super) const fn malformed(kind: KeyKind, lsn: Lsn) -> Self {
        let key = Key::new(kind);
        Self::Malformed { key, lsn }
    }

    /// How a caller should take it.
    pub(crate) const fn grade(&self) -> Grade {
        match self {
            Self::Read(error) => error.grade(),
            Self::Absent { .. } => Grade::FixRequest,
            Self::Malformed { .. } => Grade::DataDamaged,
        }
    }
}
