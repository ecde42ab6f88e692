//! Timelines and branches as processes tell each other about them.

use ids::{Generation, Lsn, NodeId, TenantId, Term, TimelineId};
use serde::{Deserialize, Serialize};

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddress {
    /// The node.
    pub node: NodeId,
    /// `host:port` of its libpq listener.
    pub libpq: String,
    /// `https://host:port` of its HTTP listener.
    pub http: String,
}

/// The safekeepers of a timeline; a change of members has a higher generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafekeeperSet {
    /// Grows with every change.
    pub generation: Generation,
    /// The members.
    pub members: Vec<NodeAddress>,
}

/// The branch point of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// The parent.
    pub timeline: TimelineId,
    /// Where its history is shared up to.
    pub lsn: Lsn,
}

/// What has to be known to work on a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineInfo {
    /// The tenant (project).
    pub tenant: TenantId,
    /// The timeline (branch).
    pub timeline: TimelineId,
    /// PostgreSQL's major version.
    pub pg_major: u32,
    /// Where its own WAL begins.
    pub start_lsn: Lsn,
    /// Its parent, for a branch.
    pub ancestor: Option<Ancestor>,
    /// Who keeps its WAL.
    pub safekeepers: SafekeeperSet,
    /// Size of a WAL segment in bytes.
    pub wal_segment_bytes: u64,
}

/// Asks a pageserver for a new branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateBranch {
    /// The new timeline.
    pub timeline: TimelineId,
    /// The parent.
    pub parent: TimelineId,
    /// The branch point; the last record of the parent where absent.
    pub lsn: Option<Lsn>,
    /// Who keeps the WAL of the branch.
    pub safekeepers: SafekeeperSet,
}

/// How far a safekeeper is on a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafekeeperStatus {
    /// The node.
    pub node: NodeId,
    /// Its term.
    pub term: Term,
    /// Synced up to here.
    pub flush_lsn: Lsn,
    /// Known to be on a quorum up to here.
    pub commit_lsn: Lsn,
    /// In the bucket up to here.
    pub backup_lsn: Lsn,
    /// Ingested and in the bucket as layers up to here.
    pub remote_consistent_lsn: Lsn,
}

/// How far a pageserver is on a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageserverStatus {
    /// The node.
    pub node: NodeId,
    /// The generation of its attachment (D1).
    pub generation: Generation,
    /// Ingested up to here.
    pub last_record_lsn: Lsn,
    /// In the bucket, by an accepted manifest (D2), up to here.
    pub remote_consistent_lsn: Lsn,
    /// Where ingest stopped for good, and why.
    pub stopped: Option<String>,
}
