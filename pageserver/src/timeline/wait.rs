//! Waiting until a timeline has come to an LSN.

use std::time::Duration;

use api::Grade;
use ids::Lsn;
use keyring::KeyError;

use super::{Closed, Stale, Timeline};

/// The timeline did not come to the LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WaitError {
    #[error(transparent)]
    Stale(Stale),
    /// The tenant's keys may not be used.
    #[error(transparent)]
    Key(KeyError),
    /// Not in time.
    #[error("the timeline has come to {last}, and {lsn} was waited for {waited:?}")]
    Timeout {
        lsn: Lsn,
        last: Lsn,
        waited: Duration,
    },
}

impl WaitError {
    /// How a caller should take it.
    pub(crate) const fn grade(&self) -> Grade {
        match self {
            Self::Stale(_) => Grade::RetryElsewhere,
            Self::Key(error) => error.grade(),
            Self::Timeout { .. } => Grade::Retry,
        }
    }
}

impl From<Closed> for WaitError {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Stale(stale) => Self::Stale(stale),
            Closed::Fenced(error) => Self::Key(error),
        }
    }
}

impl Timeline {
    /// Returns once everything at or below `lsn` was taken in.
    pub(crate) async fn wait_for(&self, lsn: Lsn, limit: Duration) -> Result<(), WaitError> {
        let mut progress = self.progress.subscribe();
        let come = async {
            loop {
                progress.mark_unchanged();
                self.serving()?;
                if self.state().last >= lsn {
                    return Ok(());
                }
                if progress.changed().await.is_err() {
                    // The sender lives in `self`.
                    std::future::pending::<()>().await;
                }
            }
        };
        match tokio::time::timeout(limit, come).await {
            Ok(result) => result,
            Err(_) => Err(WaitError::Timeout {
                lsn,
                last: self.state().last,
                waited: limit,
            }),
        }
    }
}
