//! The keyring of a process: one live lease per tenant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use api::keys::RevokeReason;
use ids::TenantId;
use sealed::Kek;
use tokio::task::JoinHandle;

use crate::connection::{Connection, KeyringConfig};
use crate::held::Held;
use crate::lease::{Lease, Source, TenantKeys, lock};
use crate::remote::Remote;
use crate::{ConnectError, KeyError, renewal, watch};

/// The times of a fixed keyring.
#[derive(Debug, Clone)]
pub struct FixedConfig {
    /// R: how long a fence waits for running operations (K2).
    pub drain: Duration,
    /// How long a lease runs; `None` for one that only a fence ends.
    pub lease: Option<Duration>,
}

impl Default for FixedConfig {
    fn default() -> Self {
        Self {
            drain: Duration::from_secs(5),
            lease: None,
        }
    }
}

#[derive(Default)]
pub(crate) struct Tenant {
    /// Counts fences of this node, so that a lease that was asked for before one is not kept.
    pub(crate) epoch: u64,
    revoked: Option<RevokeReason>,
    pub(crate) lease: Option<Arc<Lease>>,
    /// Held while a lease is asked for: one request, however many wait for it.
    flight: Arc<tokio::sync::Mutex<()>>,
}

impl Tenant {
    fn running(&self, tenant: TenantId) -> Result<Option<Arc<Lease>>, KeyError> {
        if let Some(reason) = self.revoked {
            return Err(KeyError::Revoked { tenant, reason });
        }
        Ok(self.lease.clone().filter(|lease| lease.check().is_ok()))
    }
}

enum Origin {
    Fixed { kek: Arc<Kek>, config: FixedConfig },
    Remote(Arc<Connection>),
}

/// The keys of all tenants that this process serves.
pub struct Keyring {
    origin: Origin,
    tenants: Arc<Tenants>,
    held: Arc<Held>,
    /// One task per keymanager, which listens for fences; they begin with the first lease.
    watchers: OnceLock<Vec<JoinHandle<()>>>,
}

pub(crate) type Tenants = Mutex<HashMap<TenantId, Tenant>>;

impl Drop for Keyring {
    fn drop(&mut self) {
        for watcher in self.watchers.get().into_iter().flatten() {
            watcher.abort();
        }
    }
}

impl Keyring {
    /// A keyring for tests that needs no keymanager: every tenant has the same KEK.
    #[must_use]
    pub fn fixed(kek: [u8; 32]) -> Self {
        Self::fixed_with(kek, FixedConfig::default())
    }

    /// As [`Keyring::fixed`], with its own times.
    #[must_use]
    pub fn fixed_with(kek: [u8; 32], config: FixedConfig) -> Self {
        Self {
            origin: Origin::Fixed {
                kek: Arc::new(Kek::from_bytes(kek)),
                config,
            },
            tenants: Arc::default(),
            held: Arc::default(),
            watchers: OnceLock::new(),
        }
    }

    /// How many data keys are in memory and not wiped; after a fence 0, once it has drained.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.now()
    }

    /// A keyring that has its keys from keymanagers. None of them is asked yet.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(config: KeyringConfig) -> Result<Self, ConnectError> {
        locked::begin()?;
        Ok(Self {
            origin: Origin::Remote(Arc::new(Connection::new(config)?)),
            tenants: Arc::default(),
            held: Arc::default(),
            watchers: OnceLock::new(),
        })
    }

    /// The keys of `tenant`, under the lease that runs or a new one.
    ///
    /// # Errors
    /// [`KeyError::Revoked`] while the tenant is fenced, [`KeyError::Unreachable`] where no
    /// keymanager answers, [`KeyError::Refused`] where none grants.
    pub async fn tenant(&self, tenant: TenantId) -> Result<TenantKeys, KeyError> {
        let flight = {
            let mut tenants = lock(&self.tenants);
            let entry = tenants.entry(tenant).or_default();
            // Nobody queues for a lease that runs: who holds the lock may not be polled for long.
            if let Some(lease) = entry.running(tenant)? {
                return Ok(TenantKeys { lease });
            }
            Arc::clone(&entry.flight)
        };
        let _flight = flight.lock().await;
        let epoch = {
            let mut tenants = lock(&self.tenants);
            let entry = tenants.entry(tenant).or_default();
            if let Some(lease) = entry.running(tenant)? {
                return Ok(TenantKeys { lease });
            }
            entry.epoch
        };
        let held = Arc::clone(&self.held);
        let lease = match &self.origin {
            Origin::Fixed { kek, config } => {
                let deadline = config.lease.map_or(u64::MAX, |length| {
                    let end = service::clock::boottime() + length;
                    u64::try_from(end.as_millis()).unwrap_or(u64::MAX)
                });
                let source = Source::Fixed(Arc::clone(kek));
                Arc::new(Lease::new(tenant, epoch, deadline, source, held))
            }
            Origin::Remote(connection) => {
                self.watchers.get_or_init(|| {
                    renewal::begin(connection);
                    watch::begin(connection, &self.tenants)
                });
                let grant = connection.acquire(tenant).await?;
                let source = Source::Remote(Remote::new(Arc::clone(connection), grant));
                Arc::new(Lease::new(
                    tenant,
                    grant.epoch,
                    grant.deadline_ms,
                    source,
                    held,
                ))
            }
        };
        let mut tenants = lock(&self.tenants);
        let entry = tenants.entry(tenant).or_default();
        // A fence may have come while a keymanager was asked.
        entry.running(tenant)?;
        if entry.epoch != epoch {
            return Err(KeyError::LeaseEnded { tenant });
        }
        entry.lease = Some(Arc::clone(&lease));
        if let Origin::Remote(connection) = &self.origin {
            connection.keep(&lease);
            let (renew, drain) = (connection.config.renew, connection.config.drain);
            let expire = renewal::expire(Arc::downgrade(&lease), renew, drain);
            drop(service::task::spawn("lease", expire));
        }
        Ok(TenantKeys { lease })
    }

    /// Fences `tenant` (K6): returns when its operations have drained and its keys are wiped.
    pub async fn fence(&self, tenant: TenantId, reason: RevokeReason) {
        let lease = {
            let mut tenants = lock(&self.tenants);
            let entry = tenants.entry(tenant).or_default();
            entry.revoked = Some(reason);
            entry.epoch += 1;
            entry.lease.take()
        };
        if let Some(lease) = lease {
            let drain = match &self.origin {
                Origin::Fixed { config, .. } => config.drain,
                Origin::Remote(connection) => connection.config.drain,
            };
            lease
                .close(KeyError::Revoked { tenant, reason }, drain)
                .await;
        }
    }

    /// Lifts a fence: the next [`Keyring::tenant`] gets a lease of a new epoch.
    pub fn lift(&self, tenant: TenantId) {
        lock(&self.tenants).entry(tenant).or_default().revoked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId([7; 16]);
    const DISABLED: RevokeReason = RevokeReason::Disabled;

    fn quick() -> Keyring {
        let drain = Duration::from_millis(50);
        Keyring::fixed_with([1; 32], FixedConfig { drain, lease: None })
    }

    #[tokio::test]
    async fn a_minted_key_opens_and_another_tenant_cannot_open_it() {
        let ring = quick();
        let (minted, slot) = ring.tenant(TENANT).await.unwrap().mint().await.unwrap();
        let opened = ring
            .tenant(TENANT)
            .await
            .unwrap()
            .open(&slot)
            .await
            .unwrap();
        assert_eq!(ring.held(), 1, "one object per slot");
        let bytes = minted.with(|dek| *dek.expose()).unwrap();
        assert_eq!(opened.with(|dek| *dek.expose()).unwrap(), bytes);
        let other = ring.tenant(TenantId([8; 16])).await.unwrap();
        assert!(matches!(
            other.open(&slot).await,
            Err(KeyError::Refused { .. })
        ));
    }

    #[tokio::test]
    async fn a_fence_closes_old_handles_for_good_and_a_lift_begins_a_new_epoch() {
        let ring = quick();
        let keys = ring.tenant(TENANT).await.unwrap();
        let (dek, slot) = keys.mint().await.unwrap();
        let deadline = keys.deadline();
        assert!(ring.held() == 1 && keys.remaining() > Duration::from_secs(60));
        ring.fence(TENANT, DISABLED).await;
        assert_eq!((ring.held(), keys.remaining()), (0, Duration::ZERO), "K6");
        assert!(*deadline.borrow() <= service::clock::boottime());
        let revoked = KeyError::Revoked {
            tenant: TENANT,
            reason: DISABLED,
        };
        assert_eq!(keys.fenced().await, DISABLED);
        assert_eq!(keys.check(), Err(revoked.clone()));
        assert_eq!(dek.with(|_| ()), Err(revoked.clone()));
        assert_eq!(ring.tenant(TENANT).await.err(), Some(revoked));
        ring.lift(TENANT);
        let healed = ring.tenant(TENANT).await.unwrap();
        assert!(healed.epoch() > keys.epoch() && healed.open(&slot).await.is_ok());
        assert!(keys.check().is_err() && dek.check().is_err());
    }

    #[tokio::test]
    async fn a_fence_waits_for_operations_but_not_longer_than_the_drain() {
        let ring = quick();
        let keys = ring.tenant(TENANT).await.unwrap();
        let operation = keys.begin().unwrap();
        let started = service::clock::boottime();
        ring.fence(TENANT, DISABLED).await;
        let took = service::clock::boottime() - started;
        assert!(
            took >= Duration::from_millis(40) && took < Duration::from_secs(5),
            "{took:?}"
        );
        assert!(keys.begin().is_err());
        drop(operation);
    }

    #[tokio::test]
    async fn a_lease_ends_by_itself() {
        let lease = Some(Duration::from_millis(30));
        let config = FixedConfig {
            drain: Duration::ZERO,
            lease,
        };
        let ring = Keyring::fixed_with([1; 32], config);
        let keys = ring.tenant(TENANT).await.unwrap();
        let (dek, _) = keys.mint().await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(
            dek.with(|_| ()),
            Err(KeyError::LeaseEnded { tenant: TENANT })
        );
        assert!(keys.check().is_err() && ring.tenant(TENANT).await.is_ok());
    }
}
