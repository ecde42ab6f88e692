//! The quorum as the rest of the agent sees it: one term of it, won once and lost once (C1).
//!
//! One task owns the pure [`quorum::Proposer`], one task per safekeeper owns its socket, and they
//! tell each other over channels.

#[cfg(test)]
pub(crate) mod fake;
mod link;
mod owner;
mod refill;
mod roll;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::timeline::SafekeeperSet;
use bytes::Bytes;
use ids::{Lsn, NodeId, TenantId, Term, TimelineId};
use pg::wire::wal_push::PageserverFeedback;
use quorum::{Proposer, ProposerConfig};
use service::clock;
use service::task::Shutdown;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use owner::Owner;
pub use roll::Roll;

/// What was said this long ago was said just now: heartbeats are more frequent.
const FRESH: Duration = Duration::from_secs(2);
/// Offers that wait for the proposer.
const OFFERS: usize = 256;
/// Who offers waits while more WAL than this is not committed.
const UNCOMMITTED_BYTES_MAX: u64 = 16 << 20;

/// Whose WAL is brought where.
pub struct QuorumConfig {
    /// The tenant.
    pub tenant: TenantId,
    /// The timeline.
    pub timeline: TimelineId,
    /// For example 150004.
    pub pg_version: u32,
    /// The system identifier.
    pub system_id: u64,
    /// The length of a WAL segment.
    pub wal_segment_bytes: u32,
    /// The safekeepers.
    pub safekeepers: SafekeeperSet,
    /// The tenant-scope token, shown as password.
    pub token: String,
    /// Which start of the endpoint this is (C1).
    pub endpoint_epoch: u64,
    /// Where the timeline starts, should all safekeepers be empty.
    pub start: Lsn,
}

/// A term that is won.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elected {
    /// The term.
    pub term: Term,
    /// Where its WAL starts: the end of the last record of all terms before.
    pub start: Lsn,
}

/// The quorum takes nothing more from this agent: its Postgres has to go (C1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the quorum is lost: {reason}")]
pub struct ProposerLost {
    /// Why.
    pub reason: String,
}

/// A running proposer. Clones are the same.
#[derive(Clone, Debug)]
pub struct Quorum {
    offers: mpsc::Sender<Offer>,
    elected: watch::Receiver<Option<Elected>>,
    committed: watch::Receiver<Lsn>,
    feedback: watch::Receiver<Option<PageserverFeedback>>,
    lost: watch::Receiver<Option<ProposerLost>>,
    roll: watch::Receiver<Roll>,
}

/// WAL, and where it begins.
#[derive(Debug)]
struct Offer {
    at: Lsn,
    wal: Bytes,
}

/// Where the owner says how things are.
struct Published {
    elected: watch::Sender<Option<Elected>>,
    committed: watch::Sender<Lsn>,
    feedback: watch::Sender<Option<PageserverFeedback>>,
    lost: watch::Sender<Option<ProposerLost>>,
    roll: watch::Sender<Roll>,
}

/// How safekeepers are reached.
struct Reach {
    tenant: String,
    timeline: String,
    token: String,
    endpoint_epoch: u64,
    addresses: BTreeMap<NodeId, String>,
}

impl Quorum {
    /// Begins the campaign; it ends with `shutdown`, or when the term is lost.
    #[must_use]
    pub fn start(config: QuorumConfig, shutdown: Shutdown) -> Self {
        let members = &config.safekeepers.members;
        let reach = Arc::new(Reach {
            tenant: config.tenant.to_string(),
            timeline: config.timeline.to_string(),
            addresses: members.iter().map(|m| (m.node, m.libpq.clone())).collect(),
            token: config.token,
            endpoint_epoch: config.endpoint_epoch,
        });
        let proposer = Proposer::new(ProposerConfig {
            tenant: config.tenant,
            timeline: config.timeline,
            pg_version: config.pg_version,
            system_id: config.system_id,
            wal_segment_bytes: config.wal_segment_bytes,
            safekeepers: reach.addresses.keys().copied().collect(),
            start: config.start,
        });
        let (offers, queue) = mpsc::channel(OFFERS);
        let (published, quorum) = publish(offers, reach.addresses.keys().copied());
        let (events, heard) = mpsc::channel(OFFERS);
        // What ends with the term, and not only with the process.
        let over = CancellationToken::new();
        for node in reach.addresses.keys() {
            let link = link::run(*node, Arc::clone(&reach), events.clone());
            let (over, stop) = (over.clone(), shutdown.clone());
            drop(shutdown.spawn("safekeeper", async move {
                tokio::select! {
                    () = over.cancelled() => {}
                    () = stop.requested() => {}
                    () = link => {}
                }
            }));
        }
        let owner = Owner::new(proposer, reach, events, published);
        let stop = shutdown.clone();
        drop(shutdown.spawn("proposer", async move {
            let _over = over.drop_guard();
            owner.run(queue, heard, stop).await;
        }));
        quorum
    }

    /// Returns once the term is won.
    ///
    /// # Errors
    /// It was lost before.
    pub async fn elected(&self) -> Result<Elected, ProposerLost> {
        let mut elected = self.elected.clone();
        tokio::select! {
            // A term that is lost was won once, too.
            biased;
            lost = self.lost() => Err(lost),
            won = elected.wait_for(Option::is_some) => {
                let won = won.ok().and_then(|w| *w);
                won.ok_or_else(ProposerLost::stopped)
            }
        }
    }

    /// Hands over WAL that follows what was offered before; only whole records. Waits while much
    /// is not committed.
    ///
    /// # Errors
    /// The term is lost. So it is by WAL that does not follow.
    pub async fn offer(&self, at: Lsn, wal: Bytes) -> Result<(), ProposerLost> {
        let mut committed = self.committed.clone();
        let room = |c: &Lsn| at.0.saturating_sub(c.0) < UNCOMMITTED_BYTES_MAX;
        let handed = async {
            committed.wait_for(room).await.map(drop).ok()?;
            self.offers.send(Offer { at, wal }).await.ok()
        };
        tokio::select! {
            biased;
            lost = self.lost() => Err(lost),
            handed = handed => handed.ok_or_else(|| self.reason()),
        }
    }

    /// What a majority has flushed; 0 before the election.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<Lsn> {
        self.committed.clone()
    }

    /// What the pageserver said last.
    #[must_use]
    pub fn feedback(&self) -> watch::Receiver<Option<PageserverFeedback>> {
        self.feedback.clone()
    }

    /// Returns once the term is lost, or the proposer was stopped.
    pub async fn lost(&self) -> ProposerLost {
        let mut lost = self.lost.clone();
        let said = lost.wait_for(Option::is_some).await;
        let said = said.ok().and_then(|l| l.clone());
        said.unwrap_or_else(ProposerLost::stopped)
    }

    /// Which safekeepers answer; looked at every half second.
    #[must_use]
    pub fn roll(&self) -> watch::Receiver<Roll> {
        self.roll.clone()
    }

    /// Returns once no majority has said anything for longer than `limit`: whether another compute
    /// has taken over is not known any more (C1).
    pub async fn silent(&self, limit: Duration) {
        self.rolled(|roll| roll.majority_silence() > limit).await;
    }

    /// Returns once a majority has just answered.
    pub async fn answered(&self) {
        self.rolled(|roll| roll.majority_silence() < FRESH).await;
    }

    async fn rolled(&self, so: impl FnMut(&Roll) -> bool) {
        let mut roll = self.roll.clone();
        if roll.wait_for(so).await.is_err() {
            std::future::pending().await // it is lost, which is told by `lost`
        }
    }

    fn reason(&self) -> ProposerLost {
        let said = self.lost.borrow().clone();
        said.unwrap_or_else(ProposerLost::stopped)
    }
}

impl ProposerLost {
    fn stopped() -> Self {
        Self {
            reason: "the proposer was stopped".to_owned(),
        }
    }
}

fn publish(
    offers: mpsc::Sender<Offer>,
    nodes: impl Iterator<Item = NodeId>,
) -> (Published, Quorum) {
    let (roll, roll_seen) = watch::channel(Roll::new(nodes, clock::boottime()));
    let (elected, elected_seen) = watch::channel(None);
    let (committed, committed_seen) = watch::channel(Lsn::INVALID);
    let (feedback, feedback_seen) = watch::channel(None);
    let (lost, lost_seen) = watch::channel(None);
    let published = Published {
        elected,
        committed,
        feedback,
        lost,
        roll,
    };
    let quorum = Quorum {
        offers,
        elected: elected_seen,
        committed: committed_seen,
        feedback: feedback_seen,
        lost: lost_seen,
        roll: roll_seen,
    };
    (published, quorum)
}
