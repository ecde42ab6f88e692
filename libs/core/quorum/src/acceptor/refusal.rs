//! What an acceptor says to a proposer that it turns away.

use ids::{Generation, Lsn, NodeId, Term};

use super::EndpointEpoch;

/// Why a proposer is turned away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another generation of the membership.
    #[error(
        "WAL acceptor: refusing {what} due to generation mismatch: request {theirs}, sk {ours}"
    )]
    Generation {
        /// The request.
        what: &'static str,
        /// Its generation.
        theirs: Generation,
        /// This node's.
        ours: Generation,
    },
    /// This node is not in the proposer's membership.
    #[error("safekeeper {0} is not a member of the configuration")]
    NotMember(NodeId),
    /// "Elected" names another position than the one where the logs part.
    #[error("elected at {theirs}, but the logs part at {ours}")]
    CommonPoint {
        /// The proposer's.
        theirs: Lsn,
        /// This node's; 0 where they have nothing in common.
        ours: Lsn,
    },
    /// Following would cut off what is committed (A3).
    #[error("elected at {at}, below the commit position {commit}")]
    BelowCommit {
        /// Where.
        at: Lsn,
        /// The commit position.
        commit: Lsn,
    },
    /// WAL of a term before its "elected" (A4).
    #[error("append of term {0} before elected")]
    BeforeElected(Term),
    /// WAL that does not begin at the end of the log (A4).
    #[error("append begins at {begin}, the log ends at {end}")]
    Gap {
        /// Where it begins.
        begin: Lsn,
        /// The end of the log.
        end: Lsn,
    },
    /// The history is not one.
    #[error("the history of terms is malformed")]
    History,
    /// A later start of the endpoint was given a vote (A6).
    #[error("endpoint epoch {theirs} gets no vote: epoch {ours}, of a later start, has one here")]
    Epoch {
        /// The proposer's.
        theirs: EndpointEpoch,
        /// The highest that was voted for.
        ours: EndpointEpoch,
    },
    /// This node doubts its log (A5).
    #[error("safekeeper {0} is a learner: its log was damaged or restored")]
    Learner(NodeId),
}
