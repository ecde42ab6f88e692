//! What an acceptor must not forget.

use ids::{Lsn, Term};
use pg::wire::wal_push::Membership;

use crate::History;

/// The count of starts of an endpoint (C1): a lower one gets no vote. 0 where nobody counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointEpoch(pub u64);

impl std::fmt::Display for EndpointEpoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What must survive a crash beside the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durable {
    /// The highest term promised.
    pub term: Term,
    /// The terms of the log.
    pub history: History,
    /// Who votes.
    pub membership: Membership,
    /// The highest endpoint epoch that was given a vote.
    pub epoch: EndpointEpoch,
    /// What is known to be committed; it lags.
    pub commit: Lsn,
    /// Below this, WAL is on every safekeeper.
    pub truncate: Lsn,
    /// Whether this node doubts its log and is a learner (A5).
    pub learner: bool,
    /// Whether this learner has begun its log anew, and is being filled from the others.
    pub copying: bool,
}

impl Durable {
    /// The record of a learner that begins its log anew, and where that log begins: at a term's
    /// start, which is the end of a record, so that everything above `kept` is copied. `None`
    /// for a node that is in no doubt, and for one whose record names no term, since that record
    /// was lost or set back: what it promised nobody knows (A1).
    #[must_use]
    pub fn anew(&self, kept: Lsn) -> Option<(Self, Lsn)> {
        let entries = self.history.entries();
        if !self.learner {
            return None;
        }
        let kept = kept.min(self.commit);
        let starts = || entries.iter().map(|e| e.start);
        let at = starts().rfind(|s| *s <= kept).or(starts().next())?;
        let record = Self {
            history: self.history.up_to(at),
            commit: at,
            copying: true,
            ..self.clone()
        };
        Some((record, at))
    }
}
