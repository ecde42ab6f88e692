//! Why a timeline cannot be had.

use ids::TimelineId;
use keyring::KeyError;
use service::libpq::QueryError;
use state::StateError;

use crate::timeline::{Ended, TimelineError};
use crate::wal_store::SEGMENT_BYTES;

/// Why a timeline is not opened.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Nobody has made it.
    #[error("timeline {0} is not known here")]
    Unknown(TimelineId),
    /// The version of Postgres is not supported.
    #[error(transparent)]
    Version(#[from] pg::UnsupportedVersion),
    /// Its segments have another length.
    #[error("WAL segments of {0} bytes are not supported yet, only {SEGMENT_BYTES}")]
    SegmentBytes(u32),
    /// It belongs to another cluster.
    #[error("the timeline is of {what} {ours}, not {theirs}")]
    Other {
        /// What differs.
        what: &'static str,
        /// What was stored.
        ours: u64,
        /// What the proposer says.
        theirs: u64,
    },
    /// What is stored of it cannot be read.
    #[error("what is stored of timeline {0} is not known here")]
    Damaged(TimelineId),
    /// A sync failed, and what the page cache shows proves nothing.
    #[error("timeline {timeline} is not opened again by this process: {why}")]
    Broken {
        /// The timeline.
        timeline: TimelineId,
        /// What failed.
        why: String,
    },
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The timeline.
    #[error(transparent)]
    Timeline(#[from] TimelineError),
}

impl AccessError {
    /// The keys, where they are the reason.
    #[must_use]
    pub const fn key(&self) -> Option<&KeyError> {
        match self {
            Self::Timeline(error) => error.key(),
            _ => None,
        }
    }
}

impl AccessError {
    /// Whether no later try of this process can end otherwise.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            Self::Timeline(error) => error.is_damage(),
            Self::State(_) | Self::Unknown(_) => false,
            Self::Version(_)
            | Self::SegmentBytes(_)
            | Self::Other { .. }
            | Self::Damaged(_)
            | Self::Broken { .. } => true,
        }
    }
}

impl From<AccessError> for QueryError {
    fn from(error: AccessError) -> Self {
        let sqlstate = match error {
            AccessError::Timeline(error) => return error.into(),
            AccessError::Broken { why, .. } => return Ended::Broken(why).into(),
            AccessError::Unknown(_) => "42704",
            AccessError::Version(_) | AccessError::SegmentBytes(_) => "0A000",
            AccessError::Damaged(_) => "58R03",
            AccessError::Other { .. } | AccessError::State(_) => "XX000",
        };
        Self::refused(sqlstate, error)
    }
}
