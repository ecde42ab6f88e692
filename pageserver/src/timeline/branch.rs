//! Branches: a pin in the parent's manifest first, then a manifest of their own.

use ids::{Lsn, TimelineId};
use keyring::KeyError;

use super::attach::{self, AttachError};
use super::home::Home;
use super::write::WriteError;
use super::{Closed, Stale, Timeline};
use crate::manifest::{Ancestor, Pin};

/// A branch was not created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BranchError {
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The tenant's keys may not be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The parent's manifest with the pin was not accepted.
    #[error("the branch point is not pinned: {0}")]
    Pin(#[from] WriteError),
    /// The parent has nothing at that LSN.
    #[error("there is nothing to branch from at {lsn}: the timeline reaches from {from} to {to}")]
    OutOfReach { lsn: Lsn, from: Lsn, to: Lsn },
    /// The branch is there, at another LSN.
    #[error("branch {timeline} is pinned at {at} already")]
    OtherPoint { timeline: TimelineId, at: Lsn },
    /// The branch's own manifest. Asking again goes on from there.
    #[error("the first manifest of the branch was not put: {0}")]
    Create(#[from] AttachError),
}

impl From<Closed> for BranchError {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Stale(stale) => Self::Stale(stale),
            Closed::Fenced(error) => Self::Key(error),
        }
    }
}

impl Timeline {
    /// Creates the branch `branch` of this timeline as of `lsn`. Asking again with the same
    /// arguments completes what was begun.
    pub(crate) async fn branch(&self, branch: TimelineId, lsn: Lsn) -> Result<(), BranchError> {
        let mut writer = self.writer.lock().await;
        self.serving()?;
        let (from, to) = {
            let state = self.state();
            let from = state.manifest.ancestor.map_or(Lsn(1), |a| a.lsn);
            (from, state.last)
        };
        if lsn < from || lsn > to {
            return Err(BranchError::OutOfReach { lsn, from, to });
        }
        // The branch reads the parent's layers alone, so they reach its LSN first.
        self.flush_up_to(&mut writer, lsn).await?;
        let holder = format!("branch {branch}");
        let (pinned, postgres_major) = {
            let manifest = &self.state().manifest;
            let pin = manifest.pins.iter().find(|pin| pin.holder == holder);
            (pin.map(|pin| pin.lsn), manifest.postgres_major)
        };
        match pinned {
            Some(at) if at == lsn => {}
            Some(at) => {
                let timeline = branch;
                return Err(BranchError::OtherPoint { timeline, at });
            }
            None => {
                self.change(&mut writer, |manifest| {
                    manifest.pins.push(Pin { lsn, holder });
                })
                .await?;
            }
        }
        // D6: only now that the pin is accepted may the branch exist.
        let ancestor = Some(Ancestor {
            timeline: self.home.timeline,
            lsn,
        });
        let home = Home {
            timeline: branch,
            ..self.home.clone()
        };
        Ok(attach::create(&home, postgres_major, ancestor, lsn).await?)
    }
}
