//! Why a timeline cannot be used, and what a client is told.

use ids::Lsn;
use keyring::KeyError;
use quorum::{Refusal, Ticket};
use service::libpq::QueryError;

use crate::acceptor_record::RecordAccessError;
use crate::framing::FramingError;
use crate::wal_store::{DiskError, OpenError, ReadError, WriteError};

/// The tenant's keys are revoked.
pub(crate) const REVOKED: &str = "58R01";
/// The tenant's keys cannot be had now.
pub(crate) const NO_KEY: &str = "58R02";
/// What is stored cannot be relied on.
pub(crate) const DAMAGED: &str = "58R03";
/// A later start of the endpoint was given a vote (C1). `compute::proposer::link` reads it.
const OVERTAKEN: &str = "58R05";
const NO_WAL: &str = "58P01";
const INTERNAL: &str = "XX000";

/// Why a timeline cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TimelineError {
    /// The tenant's keys cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The acceptor's record.
    #[error(transparent)]
    Record(#[from] RecordAccessError),
    /// The log was not opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The log was not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no log yet.
    #[error("the timeline has no WAL yet")]
    NoLog,
    /// The log begins later than what was trimmed explains (A5).
    #[error("the WAL begins at {first}, and nobody trimmed it there")]
    Beheaded {
        /// Where it begins.
        first: Lsn,
    },
    /// Nothing is to be filled again.
    #[error("the log is in no doubt here")]
    NotInDoubt,
    /// The record that names the log was lost or set back, and its promises with it (A5).
    #[error("what this node had promised is lost: only a membership change could admit it again")]
    PromisesLost,
    /// The task has ended (T2).
    #[error("the timeline was closed; connect again")]
    Closed,
    /// A bug: an answer was to overtake a write (T1).
    #[error("an answer was to be given before its write {0:?}")]
    Overtaken(Ticket),
}

/// Why a proposer is turned away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The consensus.
    #[error(transparent)]
    Acceptor(#[from] Refusal),
    /// The WAL.
    #[error(transparent)]
    Framing(#[from] FramingError),
}

/// Why a timeline's task has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The process stops, or the task was left alone.
    Stopped,
    /// The keys are gone: it opens again once they are granted (K6).
    Key(KeyError),
    /// Something failed: it opens again from the disk (T2).
    Failed(String),
    /// A sync failed: this process must not open it again (T4).
    Broken(String),
}

impl TimelineError {
    /// How the end of a task by this error is taken.
    #[must_use]
    pub fn ended(&self) -> Ended {
        let disk = |e: &DiskError| match e.unsynced {
            true => Ended::Broken(format!("{e}: {}", e.source)),
            false => Ended::Failed(format!("{e}: {}", e.source)),
        };
        match self {
            Self::Write(WriteError::Disk(e)) | Self::Open(OpenError::Disk(e)) => disk(e),
            // A vote may be on the disk or not, and the state writes nothing more.
            Self::Record(RecordAccessError::State(e)) => Ended::Broken(e.to_string()),
            other => match other.key() {
                Some(key) => Ended::Key(key.clone()),
                None => Ended::Failed(other.to_string()),
            },
        }
    }

    /// The keys, where they are the reason.
    #[must_use]
    pub const fn key(&self) -> Option<&KeyError> {
        match self {
            Self::Key(key)
            | Self::Record(RecordAccessError::Key(key))
            | Self::Open(OpenError::Key(key))
            | Self::Write(WriteError::Key(key))
            | Self::Read(ReadError::Key(key)) => Some(key),
            _ => None,
        }
    }

    /// Whether what is stored cannot be relied on.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Record(RecordAccessError::Sealed { .. } | RecordAccessError::Unknown { .. })
            | Self::Read(ReadError::Damaged { .. })
            | Self::Beheaded { .. } => true,
            Self::Open(error) => error.is_doubt() || matches!(error, OpenError::Exists(_)),
            _ => false,
        }
    }
}

/// What a client is told of keys: the state of the tenant, and what to do next.
pub(crate) fn key_refused(error: &KeyError) -> QueryError {
    match error {
        KeyError::Revoked { .. } => QueryError::refused(
            REVOKED,
            format!("{error}; the timeline opens again once the key is enabled"),
        ),
        _ => QueryError::refused(NO_KEY, format!("{error}; nothing is lost, try again")),
    }
}

impl From<TimelineError> for QueryError {
    fn from(error: TimelineError) -> Self {
        if let Some(key) = error.key() {
            return key_refused(key);
        }
        match &error {
            TimelineError::Read(ReadError::OutOfRange { .. }) | TimelineError::NoLog => {
                Self::refused(NO_WAL, error)
            }
            error if error.is_damage() => Self::refused(
                DAMAGED,
                format!("{error}; this node takes no part in it, the others have the WAL"),
            ),
            _ => Self::refused(INTERNAL, error),
        }
    }
}

impl From<Refused> for QueryError {
    fn from(refused: Refused) -> Self {
        match &refused {
            Refused::Acceptor(Refusal::Epoch { .. }) => Self::refused(OVERTAKEN, refused),
            _ => Self::refused(INTERNAL, refused),
        }
    }
}

impl From<Ended> for QueryError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Key(key) => key_refused(&key),
            Ended::Broken(why) => Self::refused(
                DAMAGED,
                format!("{why}; check the disk and restart this safekeeper"),
            ),
            Ended::Failed(_) | Ended::Stopped => TimelineError::Closed.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// T4: a full disk is survived, a sync that failed is not.
    #[test]
    fn only_a_failed_sync_breaks_a_timeline() {
        let disk = |unsynced| DiskError {
            what: "append to",
            path: PathBuf::from("log"),
            unsynced,
            source: std::io::ErrorKind::StorageFull.into(),
        };
        let ended = |unsynced| TimelineError::Write(WriteError::Disk(disk(unsynced))).ended();
        assert!(matches!(ended(true), Ended::Broken(_)));
        assert!(matches!(ended(false), Ended::Failed(_)));
        let opened = TimelineError::Open(OpenError::Disk(disk(true))).ended();
        assert!(matches!(opened, Ended::Broken(_)));
    }
}
