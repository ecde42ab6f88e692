//! What this node remembers over a restart: which timelines are attached here, who keeps their
//! WAL, and how far their manifests had come.

use std::path::Path;

use api::timeline::SafekeeperSet;
use ids::{TenantId, TimelineId};
use state::{State, StateError, Table};

use crate::refusal::Refusal;

/// Tenant and timeline, 16 bytes each; the safekeepers as JSON.
const ATTACHED: Table<[u8; 32]> = Table::new("attached");
/// The highest number of a manifest that was accepted, big-endian. It outlives the attachment:
/// a bucket that was set back is told by it.
const MANIFEST: Table<[u8; 32]> = Table::new("manifest");

/// The node's memory. Clones are the same.
#[derive(Clone)]
pub(crate) struct Remembered(State);

impl Remembered {
    pub(crate) fn open(directory: &Path) -> Result<Self, StateError> {
        Ok(Self(State::open(directory.join("state"))?))
    }

    /// Everything that is attached.
    pub(crate) fn attached(&self) -> Result<Vec<(TenantId, TimelineId, SafekeeperSet)>, Refusal> {
        let rows = self.0.scan(&ATTACHED)?;
        let row = |(key, value): ([u8; 32], bytes::Bytes)| {
            let (tenant, timeline) = key.split_at(16);
            let damaged = |_| Refusal::damaged("the list of attached timelines is damaged");
            Ok((
                TenantId(tenant.try_into().map_err(damaged)?),
                TimelineId(timeline.try_into().map_err(damaged)?),
                serde_json::from_slice(&value)
                    .map_err(|_| Refusal::damaged("the list of attached timelines is damaged"))?,
            ))
        };
        rows.into_iter().map(row).collect()
    }

    /// Attaches again after a restart.
    pub(crate) async fn attach(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
        safekeepers: &SafekeeperSet,
    ) -> Result<(), Refusal> {
        let value = serde_json::to_vec(safekeepers).map_err(Refusal::bug)?;
        let key = key(tenant, timeline);
        Ok(self.0.put(&ATTACHED, &key, &value).await?)
    }

    /// Attaches no more after a restart.
    pub(crate) async fn forget(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
    ) -> Result<(), Refusal> {
        Ok(self.0.delete(&ATTACHED, &key(tenant, timeline)).await?)
    }

    /// The highest number that is known to have been accepted; 0 where nothing is known.
    pub(crate) fn manifest(&self, tenant: TenantId, timeline: TimelineId) -> Result<u64, Refusal> {
        let Some(bytes) = self.0.get(&MANIFEST, &key(tenant, timeline))? else {
            return Ok(0);
        };
        let bytes = bytes[..].try_into();
        let bytes = bytes.map_err(|_| Refusal::damaged("a known manifest number is damaged"))?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// Manifest `number` was accepted.
    pub(crate) async fn learn(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
        number: u64,
    ) -> Result<(), Refusal> {
        if number <= self.manifest(tenant, timeline)? {
            return Ok(());
        }
        let key = key(tenant, timeline);
        Ok(self.0.put(&MANIFEST, &key, &number.to_be_bytes()).await?)
    }
}

fn key(tenant: TenantId, timeline: TimelineId) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&tenant.0);
    key[16..].copy_from_slice(&timeline.0);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn attachments_and_manifests_are_known_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let (tenant, timeline) = (TenantId([1; 16]), TimelineId([2; 16]));
        let safekeepers = SafekeeperSet {
            generation: ids::Generation(3),
            members: Vec::new(),
        };
        {
            let memory = Remembered::open(directory.path()).unwrap();
            assert_eq!(memory.manifest(tenant, timeline), Ok(0));
            memory.attach(tenant, timeline, &safekeepers).await.unwrap();
            memory.learn(tenant, timeline, 7).await.unwrap();
            memory.learn(tenant, timeline, 5).await.unwrap();
        }
        let memory = Remembered::open(directory.path()).unwrap();
        let attached = memory.attached().unwrap();
        assert_eq!(attached, [(tenant, timeline, safekeepers)]);
        memory.forget(tenant, timeline).await.unwrap();
        assert_eq!(memory.attached().unwrap(), []);
        // A number never goes back, and outlives the attachment.
        assert_eq!(memory.manifest(tenant, timeline), Ok(7));
    }
}
