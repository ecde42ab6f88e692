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
    /// In the bucket as the beginning of a segment up to here, where that is known (D8).
    #[serde(default)]
    pub partial_lsn: Lsn,
    /// Since when the oldest committed WAL is on safekeepers alone, in unix seconds; absent where
    /// all of it is in the bucket (D8). Counted from the start of the process at the earliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposed_since: Option<u64>,
    /// Since when the bucket does not answer this node, in unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket_unreachable_since: Option<u64>,
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
    /// Safekeepers that sent WAL which cannot be taken in.
    #[serde(default)]
    pub damaged: Vec<DamagedWal>,
}

/// Damaged WAL, as a safekeeper of the set has sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedWal {
    /// Who sent it.
    pub safekeeper: NodeId,
    /// The end of the last record before it.
    pub after: Lsn,
    /// What is wrong, and where.
    pub reason: String,
    /// How often this one sent damaged WAL since the timeline was attached.
    pub times: u64,
}

/// Attaches a timeline at a pageserver (D1), or tells it of other safekeepers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachTimeline {
    /// Who keeps its WAL; with no members nothing is ingested.
    pub safekeepers: SafekeeperSet,
}

/// What an import of a data directory has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// The end of the directory's WAL: where the timeline's own WAL begins.
    pub start_lsn: Lsn,
    /// The last record before.
    pub previous_record: Lsn,
    /// PostgreSQL's major version.
    pub pg_major: u32,
    /// The system identifier.
    pub system_id: u64,
    /// Size of a WAL segment in bytes.
    pub wal_segment_bytes: u64,
}

/// The first member of a base backup, [`BACKUP_MEMBER`]: as of when it is, and what the
/// synthetic shutdown checkpoint is made of (C3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// The end of the last record at or before the LSN that was asked for.
    pub lsn: Lsn,
    /// Where that record begins; 0 where the timeline has none of its own.
    pub previous_record: Lsn,
    /// PostgreSQL's major version.
    pub pg_major: u32,
    /// The system identifier.
    pub system_id: u64,
    /// Size of a WAL segment in bytes.
    pub wal_segment_bytes: u64,
    /// PostgreSQL's `CheckPoint` as of `lsn`: 88 bytes in hexadecimal.
    pub checkpoint: String,
}

/// The name of [`Backup`], as JSON, in the archive.
pub const BACKUP_MEMBER: &str = "redoubt.backup";

/// How a point in time relates to a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeRelation {
    /// Commits lie before and after it.
    Present,
    /// The last commit lies before it.
    Future,
    /// The first commit lies after it.
    Past,
    /// There is no commit.
    NoData,
}

/// Where a timeline was at a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LsnAtTime {
    /// The end of the last record that committed at or before it.
    pub lsn: Lsn,
    /// How it lies.
    pub relation: TimeRelation,
}

/// The path of all timelines of a tenant, on pageservers and safekeepers.
#[must_use]
pub fn timelines_path(tenant: TenantId) -> String {
    format!("/v1/tenants/{tenant}/timelines")
}

/// The path of one timeline, on pageservers and safekeepers.
#[must_use]
pub fn timeline_path(tenant: TenantId, timeline: TimelineId) -> String {
    format!("/v1/tenants/{tenant}/timelines/{timeline}")
}
