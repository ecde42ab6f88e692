//! The timelines of this node, and what cluster each one belongs to.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use ids::{Generation, NodeId, TenantId, TimelineId};
use keyring::Keyring;
use pg::PgMajor;
use pg::wire::wal_push::ProposerGreeting;
use service::task::Shutdown;
use state::{State, StateError, Table};
use tokio::sync::Mutex;

use crate::timeline::{Timeline, TimelineError};
use crate::wal_store::{Place, SEGMENT_BYTES};

/// Tenant and timeline, 16 bytes each.
const TABLE: Table<[u8; 32]> = Table::new("timeline");

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
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The timeline.
    #[error(transparent)]
    Timeline(#[from] TimelineError),
}

/// The cluster of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cluster {
    /// The long form.
    pub pg_version: u32,
    /// 0 until a proposer tells it.
    pub system_id: u64,
}

/// All timelines.
pub struct Timelines {
    node: NodeId,
    root: PathBuf,
    state: State,
    ring: Arc<Keyring>,
    shutdown: Shutdown,
    open: Mutex<HashMap<(TenantId, TimelineId), Timeline>>,
}

impl Timelines {
    /// Those below `root`.
    ///
    /// # Errors
    /// The state cannot be opened.
    pub fn new(
        node: NodeId,
        root: PathBuf,
        ring: Keyring,
        shutdown: Shutdown,
    ) -> Result<Self, StateError> {
        Ok(Self {
            node,
            state: State::open(root.join("state"))?,
            root,
            ring: Arc::new(ring),
            shutdown,
            open: Mutex::default(),
        })
    }

    /// The timeline that a proposer greets, made where `create` allows it.
    ///
    /// # Errors
    /// A greeting of another cluster is refused.
    pub async fn greet(
        &self,
        greeting: &ProposerGreeting,
        create: bool,
    ) -> Result<Timeline, AccessError> {
        let version = PgMajor::from_number(greeting.pg_version)?;
        if u64::from(greeting.wal_segment_bytes) != SEGMENT_BYTES {
            return Err(AccessError::SegmentBytes(greeting.wal_segment_bytes));
        }
        let (tenant, timeline) = (greeting.tenant, greeting.timeline);
        let mut open = self.open.lock().await;
        let told = Cluster {
            pg_version: greeting.pg_version,
            system_id: greeting.system_id,
        };
        let stored = match self.cluster(tenant, timeline)? {
            None if !create => return Err(AccessError::Unknown(timeline)),
            None => None,
            Some(stored) => {
                same_cluster(&stored, version, &told)?;
                Some(stored)
            }
        };
        if stored.is_none_or(|s| s.system_id == 0 && told.system_id != 0) {
            let mut value = told.pg_version.to_be_bytes().to_vec();
            value.extend_from_slice(&told.system_id.to_be_bytes());
            let key = key(tenant, timeline);
            self.state.put(&TABLE, &key, &value).await?;
        }
        self.running(&mut open, tenant, timeline).await
    }

    /// A timeline that exists.
    ///
    /// # Errors
    /// [`AccessError::Unknown`] where it does not.
    pub async fn get(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
    ) -> Result<(Timeline, Cluster), AccessError> {
        let mut open = self.open.lock().await;
        let cluster = self.cluster(tenant, timeline)?;
        let cluster = cluster.ok_or(AccessError::Unknown(timeline))?;
        Ok((self.running(&mut open, tenant, timeline).await?, cluster))
    }

    async fn running(
        &self,
        open: &mut HashMap<(TenantId, TimelineId), Timeline>,
        tenant: TenantId,
        timeline: TimelineId,
    ) -> Result<Timeline, AccessError> {
        let known = open.get(&(tenant, timeline));
        if let Some(running) = known.filter(|t| !t.is_closed()) {
            return Ok(running.clone());
        }
        let place = Place {
            directory: self.root.join(format!("wal/{tenant}/{timeline}")),
            tenant,
            timeline,
            generation: Generation(0),
            node: self.node,
        };
        let (state, ring) = (self.state.clone(), Arc::clone(&self.ring));
        let opened = Timeline::open(place, state, ring, &self.shutdown).await?;
        open.insert((tenant, timeline), opened.clone());
        Ok(opened)
    }

    fn cluster(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
    ) -> Result<Option<Cluster>, AccessError> {
        let Some(bytes) = self.state.get(&TABLE, &key(tenant, timeline))? else {
            return Ok(None);
        };
        let damaged = || AccessError::Damaged(timeline);
        let bytes: [u8; 12] = bytes[..].try_into().map_err(|_| damaged())?;
        let (version, system) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
        let system = system.first_chunk::<8>().ok_or_else(damaged)?;
        Ok(Some(Cluster {
            pg_version: u32::from_be_bytes(*version),
            system_id: u64::from_be_bytes(*system),
        }))
    }
}

fn same_cluster(stored: &Cluster, version: PgMajor, told: &Cluster) -> Result<(), AccessError> {
    if PgMajor::from_number(stored.pg_version)? != version {
        return Err(AccessError::Other {
            what: "Postgres version",
            ours: stored.pg_version.into(),
            theirs: told.pg_version.into(),
        });
    }
    if stored.system_id != told.system_id && stored.system_id != 0 && told.system_id != 0 {
        return Err(AccessError::Other {
            what: "system identifier",
            ours: stored.system_id,
            theirs: told.system_id,
        });
    }
    Ok(())
}

fn key(tenant: TenantId, timeline: TimelineId) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&tenant.0);
    key[16..].copy_from_slice(&timeline.0);
    key
}
