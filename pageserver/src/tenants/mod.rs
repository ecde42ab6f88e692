//! Which timelines are attached here, whose they are, and how they come and go.

mod attached;
mod remembered;
mod tenant;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::timeline::{
    Ancestor, CreateBranch, Imported, PageserverStatus, SafekeeperSet, TimelineInfo,
};
use ids::{Generation, Lsn, NodeId, TenantId, TimelineId};
use keyring::{KeyError, Keyring, TenantKeys};
use service::task::Shutdown;
use store::Bucket;
use store::names::Cell;
use tokio::io::AsyncRead;
use tokio::sync::Semaphore;

pub(crate) use attached::Attached;
pub(crate) use remembered::Remembered;
pub(crate) use tenant::Tenant;

use crate::layer::cache::LayerCache;
use crate::refusal::Refusal;
use crate::timeline::Home;

/// The only size of WAL segments that is taken.
const WAL_SEGMENT_BYTES: u64 = 16 << 20;

const WAL_PAGE_BYTES: u64 = 8192;

/// What everything in this process works with.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) bucket: Bucket,
    pub(crate) cell: Cell,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) cache: Arc<LayerCache>,
    pub(crate) remembered: Remembered,
    pub(crate) settings: Settings,
    pub(crate) shutdown: Shutdown,
}

/// What can be set.
pub(crate) struct Settings {
    /// How old the open layer may become (D8).
    pub(crate) flush_interval: Duration,
    /// How large it may become.
    pub(crate) flush_bytes: usize,
    /// How long a read waits for WAL.
    pub(crate) read_wait: Duration,
    /// The file of the token for safekeepers.
    pub(crate) token: Option<PathBuf>,
    /// The longest archive that is imported.
    pub(crate) import_bytes_max: u64,
    /// Custom resource managers whose records may be skipped where they name no page.
    pub(crate) custom_rmgrs_to_skip: Arc<[u8]>,
}

impl Node {
    pub(crate) fn home(&self, tenant: TenantId, timeline: TimelineId) -> Home {
        Home {
            bucket: self.bucket.clone(),
            keyring: Arc::clone(&self.keyring),
            cell: self.cell.clone(),
            tenant,
            timeline,
            cache: Arc::clone(&self.cache),
        }
    }
}

/// As many archives are taken in at one time.
const IMPORTS: usize = 4;

/// All tenants of this node.
pub(crate) struct Tenants {
    pub(crate) node: Arc<Node>,
    imports: Semaphore,
    tenants: Mutex<BTreeMap<TenantId, Arc<Tenant>>>,
}

impl Tenants {
    /// Begins to attach what was attached before a restart; what is up serves meanwhile.
    pub(crate) fn begin(node: Node) -> Result<Self, Refusal> {
        let node = Arc::new(node);
        let mut remembered: BTreeMap<TenantId, Vec<(TimelineId, SafekeeperSet)>> = BTreeMap::new();
        for (tenant, timeline, safekeepers) in node.remembered.attached()? {
            let timelines = remembered.entry(tenant).or_default();
            timelines.push((timeline, safekeepers));
        }
        let tenant = |(id, timelines)| {
            let detail = "none was asked yet".to_owned();
            let why = KeyError::Unreachable { tenant: id, detail };
            (id, Tenant::new(id, &node, Err(why), timelines))
        };
        let tenants = remembered.into_iter().map(tenant).collect();
        Ok(Self {
            node,
            imports: Semaphore::new(IMPORTS),
            tenants: Mutex::new(tenants),
        })
    }

    /// The tenant, where a timeline of it belongs here.
    pub(crate) fn tenant(&self, tenant: TenantId) -> Option<Arc<Tenant>> {
        lock(&self.tenants).get(&tenant).map(Arc::clone)
    }

    /// A timeline that serves, and its tenant, whose keys are asked when answers leave (K5).
    pub(crate) fn get(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
    ) -> Result<(Arc<Tenant>, Arc<Attached>), Refusal> {
        let tenant = self.tenant(tenant);
        let tenant = tenant.ok_or_else(|| Refusal::unknown(timeline))?;
        let attached = tenant.get(timeline)?;
        Ok((tenant, attached))
    }

    /// Attaches a timeline, or tells it of other safekeepers.
    pub(crate) async fn attach(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
        safekeepers: &SafekeeperSet,
    ) -> Result<PageserverStatus, Refusal> {
        let keys = self.node.keyring.tenant(tenant).await?;
        // Nothing is kept for names that somebody made up.
        self.node.home(tenant, timeline).ancestor().await?;
        let tenant = self.admit(tenant, keys);
        let attached = tenant.attach(timeline, safekeepers).await?;
        Ok(attached.status(&self.node)?)
    }

    /// How far a timeline is.
    pub(crate) fn status(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
    ) -> Result<PageserverStatus, Refusal> {
        let (_, attached) = self.get(tenant, timeline)?;
        Ok(attached.status(&self.node)?)
    }

    /// Every timeline of a tenant that belongs here.
    pub(crate) fn list(&self, tenant: TenantId) -> Vec<(TimelineId, PageserverStatus)> {
        let timelines = self.tenant(tenant).map(|tenant| tenant.timelines());
        let status = |timeline| {
            let status = self.status(tenant, timeline);
            let status = status.unwrap_or_else(|why| PageserverStatus {
                node: self.node.id,
                generation: Generation(0),
                last_record_lsn: Lsn(0),
                remote_consistent_lsn: Lsn(0),
                stopped: Some(why.line()),
                damaged: Vec::new(),
            });
            (timeline, status)
        };
        timelines.into_iter().flatten().map(status).collect()
    }

    /// Brings what was taken in by now into the bucket.
    pub(crate) async fn flush(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
    ) -> Result<PageserverStatus, Refusal> {
        let (_, attached) = self.get(tenant, timeline)?;
        attached.flush(&self.node).await?;
        Ok(attached.status(&self.node)?)
    }

    /// Makes a timeline of a data directory, and attaches it. Nobody keeps its WAL yet.
    pub(crate) async fn import(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
        pg_major: u32,
        archive: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Imported, Refusal> {
        pg::PgMajor::from_number(pg_major).map_err(Refusal::bad_request)?;
        // A tenant without keys is told so before the upload.
        let keys = self.node.keyring.tenant(tenant).await?;
        let turn = self.imports.try_acquire();
        let _turn = turn.map_err(|_| {
            Refusal::not_now(format!(
                "{IMPORTS} imports are under way here: try again later"
            ))
        })?;
        self.admit(tenant, keys).import(timeline, archive).await
    }

    /// Makes a branch, and attaches it.
    pub(crate) async fn branch(
        &self,
        tenant: TenantId,
        asked: &CreateBranch,
    ) -> Result<TimelineInfo, Refusal> {
        let (owner, parent) = self.get(tenant, asked.parent)?;
        let timeline = &parent.timeline;
        let lsn = match asked.lsn {
            None => timeline.last_lsn()?,
            Some(Lsn(0)) => return Err(Refusal::bad_request("LSN 0/0 is no position")),
            Some(lsn) => {
                timeline.wait_for(lsn, self.node.settings.read_wait).await?;
                where_a_record_may_begin(lsn)
            }
        };
        timeline.branch(asked.timeline, lsn).await?;
        owner.attach(asked.timeline, &asked.safekeepers).await?;
        Ok(TimelineInfo {
            tenant,
            timeline: asked.timeline,
            pg_major: timeline.pg_major(),
            start_lsn: lsn,
            ancestor: Some(Ancestor {
                timeline: asked.parent,
                lsn,
            }),
            safekeepers: asked.safekeepers.clone(),
            wal_segment_bytes: WAL_SEGMENT_BYTES,
        })
    }

    /// The tenant, made where it is not there yet.
    fn admit(&self, id: TenantId, keys: TenantKeys) -> Arc<Tenant> {
        let mut tenants = lock(&self.tenants);
        let tenant = tenants
            .entry(id)
            .or_insert_with(|| Tenant::new(id, &self.node, Ok(keys), []));
        Arc::clone(tenant)
    }
}

/// The last position at or before `lsn` where the WAL of a branch can begin: a multiple of 8 that
/// is not inside the header of a WAL page. Records that end behind it are not in the branch.
fn where_a_record_may_begin(lsn: Lsn) -> Lsn {
    let aligned = lsn.0 - lsn.0 % 8;
    for (unit, header) in [(WAL_SEGMENT_BYTES, 40), (WAL_PAGE_BYTES, 24)] {
        if aligned % unit < header {
            return Lsn(aligned - aligned % unit);
        }
    }
    Lsn(aligned)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_begin_where_records_may() {
        let segment = WAL_SEGMENT_BYTES;
        for (asked, given) in [
            (segment + 64, segment + 64),
            (segment + 71, segment + 64),
            (segment + 39, segment),
            (segment + 40, segment + 40),
            (segment + 8192, segment + 8192),
            (segment + 8192 + 16, segment + 8192),
            (segment + 8192 + 24, segment + 8192 + 24),
        ] {
            assert_eq!(where_a_record_may_begin(Lsn(asked)), Lsn(given), "{asked}");
        }
    }
}
