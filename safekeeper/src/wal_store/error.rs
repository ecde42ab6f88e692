//! Why WAL cannot be opened, written or read.

use std::io;
use std::path::PathBuf;

use ids::Lsn;
use keyring::KeyError;
use sealed::header::HeaderError;
use sealed::log::{AppendError, FrameError, ScanError};

/// The disk refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}")]
pub struct DiskError {
    /// What was tried.
    pub what: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// Whether it was a sync that failed: then nothing that the page cache shows of the file can
    /// be believed, and opening it again proves nothing.
    pub unsynced: bool,
    /// The answer.
    pub source: io::Error,
}

/// The WAL of a timeline was not opened. Nothing on the disk was changed, except that what a
/// crash had left half done may have been finished.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The tenant's keys cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no segment: the timeline was not finished being created.
    #[error("{0} holds no WAL")]
    Empty(PathBuf),
    /// Another store has the directory, or a write of an earlier one has not ended yet.
    #[error("{0} is in use")]
    InUse(PathBuf),
    /// There is WAL already where a timeline was to be created.
    #[error("{0} holds WAL already")]
    Exists(PathBuf),
    /// A file has no header of a sealed log.
    #[error("{path} is not a sealed segment of WAL")]
    Header {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: HeaderError,
    },
    /// A segment is damaged, or is not the one that belongs there.
    #[error("segment {segment:X} cannot be used")]
    Damaged {
        /// Its number.
        segment: u64,
        /// Why not.
        source: ScanError,
    },
    /// A segment ends before the next one begins.
    #[error("WAL is missing from {at} on, before a later segment")]
    Hole {
        /// Where it is missing.
        at: Lsn,
    },
    /// A segment was not created behind the one before it: an older file was put back.
    #[error("segment {segment:X} does not follow the one before it")]
    Replaced {
        /// Its number.
        segment: u64,
    },
    /// What the acceptor's record knows to be durable is not there (A5).
    #[error("the WAL is not what the acceptor's record says of it")]
    Lost(#[source] ScanError),
    /// The first epoch cannot begin.
    #[error("cannot go on writing")]
    Resume(#[from] AppendError),
}

impl OpenError {
    /// Whether the log is not what it was; a disk or key that fails may answer again later.
    #[must_use]
    pub fn is_doubt(&self) -> bool {
        match self {
            Self::Empty(_)
            | Self::Header { .. }
            | Self::Damaged { .. }
            | Self::Hole { .. }
            | Self::Replaced { .. }
            | Self::Lost(_) => true,
            Self::Disk(_) | Self::Key(_) | Self::InUse(_) | Self::Exists(_) | Self::Resume(_) => {
                false
            }
        }
    }
}

/// WAL was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The tenant's keys cannot be used. Nothing was written.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The log refused. Nothing was written.
    #[error(transparent)]
    Refused(#[from] AppendError),
    /// The position is before the first one that is kept. Nothing was written.
    #[error("WAL is kept from {first} on, not from {at}")]
    TooOld {
        /// The first position.
        first: Lsn,
        /// The one that was given.
        at: Lsn,
    },
    /// Whole segments are cut off by a later term only. Nothing was written.
    #[error("cannot cut WAL off at {0} in the term that wrote it")]
    SameTerm(Lsn),
    /// It may or may not be on the disk; this store writes nothing more.
    #[error("the WAL may or may not be on the disk")]
    Disk(#[from] DiskError),
    /// An earlier write failed: drop the store and open it again.
    #[error("an earlier write failed; the WAL has to be opened again")]
    Dead,
}

/// WAL was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The tenant's keys cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The range is not within what is kept.
    #[error("WAL is kept from {first} to {end}")]
    OutOfRange {
        /// The first position.
        first: Lsn,
        /// The end.
        end: Lsn,
    },
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is on the disk is not what was written.
    #[error("segment {segment:X} is damaged")]
    Damaged {
        /// The segment.
        segment: u64,
        /// Where.
        source: FrameError,
    },
    /// An earlier write failed: drop the store and open it again.
    #[error("an earlier write failed; the WAL has to be opened again")]
    Dead,
}
