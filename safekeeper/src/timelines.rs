//! The timelines of this node, and what cluster each one belongs to.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use api::timeline::SafekeeperStatus;
use futures_util::StreamExt;
use ids::{Generation, NodeId, TenantId, TimelineId};
use keyring::Keyring;
use pg::PgMajor;
use pg::wal::WalShape;
use pg::wire::wal_push::ProposerGreeting;
use service::task::Shutdown;
use state::{State, StateError, Table};
use tokio::sync::Mutex;

use crate::archive::Archive;
use crate::framing::Framing;
use crate::offload;
use crate::timeline::{Ended, Timeline, TimelineError};
use crate::wal_store::{Place, SEGMENT_BYTES};

mod error;

pub use error::AccessError;

/// How often timelines that could not be opened are tried again.
const REOPEN: Duration = Duration::from_secs(30);
/// Timelines that are opened at a time where nobody waits for them.
const OPENING: usize = 4;
/// How long a timeline that is being closed is waited for.
const CLOSING: Duration = Duration::from_secs(10);

/// Tenant and timeline, 16 bytes each.
const TABLE: Table<[u8; 32]> = Table::new("timeline");

/// The cluster of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cluster {
    /// The long form.
    pub pg_version: u32,
    /// 0 until a proposer tells it.
    pub system_id: u64,
}

impl Cluster {
    /// What its WAL pages look like, once its system identifier is known.
    fn shape(&self) -> Option<WalShape> {
        let version = PgMajor::from_number(self.pg_version).ok()?;
        (self.system_id != 0).then_some(WalShape {
            version,
            segment_bytes: SEGMENT_BYTES,
            system_id: self.system_id,
            tli: 1,
        })
    }
}

/// What all timelines of a node share.
pub struct Node {
    /// This node.
    pub node: NodeId,
    /// The directory of the WAL and of the state.
    pub root: PathBuf,
    /// The keys of all tenants.
    pub ring: Arc<Keyring>,
    /// Where finished segments go.
    pub archive: Option<Archive>,
    /// How long committed WAL waits for its segment to be finished before it goes there (D8).
    pub tail: Duration,
}

type Id = (TenantId, TimelineId);

/// One timeline, which is opened by one request at a time; others do not wait for it.
#[derive(Default)]
enum Slot {
    #[default]
    Closed,
    Open(Timeline),
    Broken(String),
}

/// All timelines.
pub struct Timelines {
    node: Node,
    state: State,
    shutdown: Shutdown,
    slots: std::sync::Mutex<HashMap<Id, Arc<Mutex<Slot>>>>,
}

impl Timelines {
    /// Those of `node`.
    ///
    /// # Errors
    /// The state cannot be opened.
    pub fn new(node: Node, shutdown: Shutdown) -> Result<Self, StateError> {
        // So that counters show from the start.
        crate::metrics::metrics();
        Ok(Self {
            state: State::open(node.root.join("state"))?,
            node,
            shutdown,
            slots: std::sync::Mutex::default(),
        })
    }

    /// Where finished segments go.
    #[must_use]
    pub const fn archive(&self) -> Option<&Archive> {
        self.node.archive.as_ref()
    }

    /// The timelines of a tenant, whether they run or not.
    ///
    /// # Errors
    /// The state.
    pub fn list(&self, tenant: TenantId) -> Result<Vec<TimelineId>, StateError> {
        let from = key(tenant, TimelineId([0; 16]));
        let known = self
            .state
            .scan_from(&TABLE, std::ops::Bound::Included(&from), usize::MAX)?;
        let ids = known.iter().filter_map(|(key, _)| id_of(key));
        let of_tenant = ids.take_while(|(own, _)| *own == tenant);
        Ok(of_tenant.map(|(_, timeline)| timeline).collect())
    }

    /// How far a timeline is.
    ///
    /// # Errors
    /// As [`Timelines::get`].
    pub async fn status(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
    ) -> Result<SafekeeperStatus, AccessError> {
        let (timeline, _) = self.get(tenant, timeline).await?;
        Ok(self.shown(&timeline))
    }

    fn shown(&self, timeline: &Timeline) -> SafekeeperStatus {
        let position = *timeline.position().borrow();
        SafekeeperStatus {
            node: self.node.node,
            term: position.term,
            flush_lsn: position.flush,
            commit_lsn: position.commit,
            backup_lsn: position.backup,
            remote_consistent_lsn: position.remote_consistent,
            partial_lsn: position.partial,
            bucket_unreachable_since: self.archive().and_then(Archive::unreachable_since),
            exposed_since: position.exposed.map(|at| {
                let age = service::clock::boottime().saturating_sub(at).as_secs();
                service::clock::unix_seconds().saturating_sub(age)
            }),
        }
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
        let slot = self.slot((tenant, timeline));
        let mut slot = slot.lock().await;
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
        let known = stored.filter(|s| s.system_id != 0).unwrap_or(told);
        if stored.is_none_or(|s| s.system_id == 0 && told.system_id != 0) {
            let mut value = told.pg_version.to_be_bytes().to_vec();
            value.extend_from_slice(&told.system_id.to_be_bytes());
            let key = key(tenant, timeline);
            self.state.put(&TABLE, &key, &value).await?;
        }
        self.running(&mut slot, (tenant, timeline), known).await
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
        let cluster = self.cluster(tenant, timeline)?;
        let cluster = cluster.ok_or(AccessError::Unknown(timeline))?;
        let slot = self.slot((tenant, timeline));
        let mut slot = slot.lock().await;
        let running = self.running(&mut slot, (tenant, timeline), cluster).await?;
        Ok((running, cluster))
    }

    /// Begins the log of a timeline anew that is in doubt here: what is left of it is set aside,
    /// and proposers fill the new one. Until then this node gives no vote (A5).
    ///
    /// # Errors
    /// [`TimelineError::NotInDoubt`], [`TimelineError::PromisesLost`].
    pub async fn refill(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
    ) -> Result<SafekeeperStatus, AccessError> {
        let cluster = self.cluster(tenant, timeline)?;
        let cluster = cluster.ok_or(AccessError::Unknown(timeline))?;
        let id = (tenant, timeline);
        let slot = self.slot(id);
        let mut slot = slot.lock().await;
        match self.running(&mut slot, id, cluster).await {
            Ok(running) => {
                if !running.leave().await? {
                    return Err(TimelineError::NotInDoubt.into());
                }
                let stopped = tokio::time::timeout(CLOSING, running.stopped()).await;
                stopped.map_err(|_| TimelineError::Closed)?;
                *slot = Slot::Closed;
            }
            // Its doubt is stored by now, where that is why it does not open.
            Err(AccessError::Timeline(error)) if error.key().is_none() => {}
            Err(error) => return Err(error),
        }
        let opened = self.open_into(&mut slot, id, cluster, true).await?;
        drop(slot);
        Ok(self.shown(&opened))
    }

    /// Opens all timelines that are known, so that finished WAL goes to the bucket and is trimmed
    /// though nobody asks for them; again and again, as keys come back and disks get room.
    pub async fn keep_open(self: Arc<Self>) {
        let mut given_up = HashSet::new();
        loop {
            match self.state.scan(&TABLE) {
                Ok(known) => {
                    let ids = known.iter().filter_map(|(key, _)| id_of(key));
                    let tried: Vec<Id> = ids.filter(|id| !given_up.contains(id)).collect();
                    let attempts = futures_util::stream::iter(tried)
                        .map(async |id: Id| (id, self.get(id.0, id.1).await.map(drop)))
                        .buffer_unordered(OPENING);
                    let failed = attempts.filter_map(async |(id, opened)| {
                        let hopeless = opened.is_err_and(|error| error.is_lasting());
                        hopeless.then_some(id)
                    });
                    given_up.extend(failed.collect::<Vec<_>>().await);
                }
                Err(error) => tracing::error!(%error, "timelines are not opened"),
            }
            tokio::time::sleep(REOPEN).await;
        }
    }

    fn slot(&self, id: Id) -> Arc<Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(id).or_default())
    }

    async fn running(
        &self,
        slot: &mut Slot,
        (tenant, timeline): Id,
        cluster: Cluster,
    ) -> Result<Timeline, AccessError> {
        if let Slot::Open(running) = &*slot {
            if running.end().is_none() && running.check().is_ok() {
                return Ok(running.clone());
            }
            // What was derived from the old keys goes before the new ones are asked for (K6).
            let stopped = tokio::time::timeout(CLOSING, running.stopped()).await;
            stopped.map_err(|_| TimelineError::Closed)?;
            *slot = match running.end() {
                Some(Ended::Broken(why)) => Slot::Broken(why),
                _ => Slot::Closed,
            };
        }
        if let Slot::Broken(why) = &*slot {
            let why = why.clone();
            return Err(AccessError::Broken { timeline, why });
        }
        self.open_into(slot, (tenant, timeline), cluster, false)
            .await
    }

    async fn open_into(
        &self,
        slot: &mut Slot,
        id: Id,
        cluster: Cluster,
        anew: bool,
    ) -> Result<Timeline, AccessError> {
        match self.open(id, cluster, anew).await {
            Ok(opened) => {
                *slot = Slot::Open(opened.clone());
                Ok(opened)
            }
            Err(error) => {
                if let Ended::Broken(why) = error.ended() {
                    *slot = Slot::Broken(why);
                }
                Err(error.into())
            }
        }
    }

    async fn open(
        &self,
        (tenant, timeline): Id,
        cluster: Cluster,
        anew: bool,
    ) -> Result<Timeline, TimelineError> {
        let place = Place {
            directory: self.node.root.join(format!("wal/{tenant}/{timeline}")),
            tenant,
            timeline,
            generation: Generation(0),
            node: self.node.node,
        };
        let framing = Framing::new(cluster.shape());
        let (state, ring) = (self.state.clone(), &self.node.ring);
        let opened = Timeline::open(place, framing, state, ring, &self.shutdown, anew).await?;
        if let Some(archive) = self.node.archive.clone() {
            let (tail, stop) = (self.node.tail, self.shutdown.clone());
            let keep = offload::keep(opened.clone(), archive, tail, stop);
            drop(self.shutdown.spawn("offload", keep));
        }
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

fn id_of(key: &[u8; 32]) -> Option<Id> {
    let (tenant, timeline) = (key.first_chunk()?, key.last_chunk()?);
    Some((TenantId(*tenant), TimelineId(*timeline)))
}

fn key(tenant: TenantId, timeline: TimelineId) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&tenant.0);
    key[16..].copy_from_slice(&timeline.0);
    key
}
