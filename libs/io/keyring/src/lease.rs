//! The guards (K5): a lease with its deadline, and keys that live no longer than it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use api::keys::{KeyErrorKind, RevokeReason};
use ids::{KekId, KekVersion, TenantId, WrapSlot};
use sealed::{Dek, Kek};
use service::clock::boottime;
use service::entropy::OsEntropy;
use tokio::sync::watch;

use crate::KeyError;
use crate::held::{Counted, Held};
use crate::remote::Remote;

/// Above this number of cached keys, those that nobody holds are dropped.
const CACHED_KEYS: usize = 65_536;

pub(crate) fn now_ms() -> u64 {
    u64::try_from(boottime().as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where data keys come from.
pub(crate) enum Source {
    /// One KEK in this process.
    Fixed(Arc<Kek>),
    /// The keymanagers.
    Remote(Remote),
}

/// One lease of one tenant: it ends by its deadline or by a fence, and never comes back.
pub(crate) struct Lease {
    tenant: TenantId,
    epoch: u64,
    /// Milliseconds of BOOTTIME (K2).
    deadline_ms: AtomicU64,
    /// The same for those who wait on it; moved to the present by a fence.
    deadline: watch::Sender<Duration>,
    held: Arc<Held>,
    /// Why it is over, once it is.
    closed: watch::Sender<Option<KeyError>>,
    running: watch::Sender<u64>,
    source: Source,
    keys: Mutex<HashMap<WrapSlot, Weak<LeasedDek>>>,
}

impl Lease {
    pub(crate) fn new(
        tenant: TenantId,
        epoch: u64,
        deadline_ms: u64,
        source: Source,
        held: Arc<Held>,
    ) -> Self {
        Self {
            tenant,
            epoch,
            deadline_ms: AtomicU64::new(deadline_ms),
            deadline: watch::Sender::new(Duration::from_millis(deadline_ms)),
            held,
            closed: watch::Sender::new(None),
            running: watch::Sender::new(0),
            source,
            keys: Mutex::new(HashMap::new()),
        }
    }

    pub(crate) fn check(&self) -> Result<(), KeyError> {
        if let Some(why) = self.closed.borrow().as_ref() {
            return Err(why.clone());
        }
        if now_ms() >= self.deadline_ms() {
            return Err(KeyError::LeaseEnded {
                tenant: self.tenant,
            });
        }
        Ok(())
    }

    /// Whether somebody has ended it already.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }

    pub(crate) fn tenant(&self) -> TenantId {
        self.tenant
    }

    pub(crate) fn deadline_ms(&self) -> u64 {
        self.deadline_ms.load(Ordering::Acquire)
    }

    pub(crate) fn held(&self) -> &Arc<Held> {
        &self.held
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Moves the end of a lease that still runs; one that ended stays over, and `false` says so.
    pub(crate) fn renew(&self, deadline_ms: u64) -> bool {
        let moved = |end| (now_ms() < end).then_some(deadline_ms);
        let renewed = self
            .deadline_ms
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, moved)
            .is_ok();
        // Under the lock of the watch, so that no renewal goes past a fence (K6).
        if renewed {
            self.deadline.send_if_modified(|deadline| {
                let open = self.closed.borrow().is_none();
                if open {
                    *deadline = Duration::from_millis(deadline_ms);
                }
                open
            });
        }
        renewed
    }

    /// K6: the flag first, then the drain of at most `drain`, then no key is left in memory.
    pub(crate) async fn close(&self, why: KeyError, drain: Duration) {
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert(why);
            first
        });
        self.deadline.send_if_modified(|deadline| {
            let now = boottime();
            let sooner = now < *deadline;
            *deadline = now.min(*deadline);
            sooner
        });
        let mut running = self.running.subscribe();
        // Both the end of the drain and its timeout lead to the same next step.
        drop(tokio::time::timeout(drain, running.wait_for(|count| *count == 0)).await);
        if let Source::Remote(remote) = &self.source {
            remote.wipe();
        }
        for key in lock(&self.keys)
            .drain()
            .filter_map(|(_, key)| key.upgrade())
        {
            key.wipe();
        }
    }

    async fn unwrap(&self, slots: &[WrapSlot]) -> Result<Vec<Result<Dek, KeyError>>, KeyError> {
        let tenant = self.tenant;
        let broken = |_| KeyError::Refused {
            tenant,
            kind: KeyErrorKind::BrokenSlot,
        };
        match &self.source {
            Source::Fixed(kek) => Ok(slots
                .iter()
                .map(|slot| sealed::wrap::unwrap(kek, tenant, slot).map_err(broken))
                .collect()),
            Source::Remote(remote) => remote.unwrap(tenant, slots).await,
        }
    }

    fn hold(self: &Arc<Self>, slot: &WrapSlot, dek: Counted) -> Result<Arc<LeasedDek>, KeyError> {
        let held = Arc::new(LeasedDek {
            lease: Arc::clone(self),
            dek: RwLock::new(Some(dek)),
        });
        let mut keys = lock(&self.keys);
        // Checked under the lock under which a fence drains: no key slips in behind it.
        self.check()?;
        // Opened twice at a time: one object, or the fence would find only the later one (K6).
        if let Some(first) = keys.get(slot).and_then(Weak::upgrade) {
            return Ok(first);
        }
        if keys.len() >= CACHED_KEYS {
            keys.retain(|_, key| key.strong_count() > 0);
        }
        keys.insert(slot.clone(), Arc::downgrade(&held));
        Ok(held)
    }
}

/// The keys of one tenant for the time of one lease. After a fence or the lease's end this
/// handle stays closed; a new one comes from [`crate::Keyring::tenant`].
#[derive(Clone)]
pub struct TenantKeys {
    pub(crate) lease: Arc<Lease>,
}

impl TenantKeys {
    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.lease.tenant
    }

    /// The epoch of the lease: it grows with every fence.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.lease.epoch
    }

    /// Whether answers may leave (K5); to be asked when they do, not only when a file is opened.
    ///
    /// # Errors
    /// [`KeyError::Revoked`] after a fence, [`KeyError::LeaseEnded`] after the deadline.
    pub fn check(&self) -> Result<(), KeyError> {
        self.lease.check()
    }

    /// How long the lease still runs, on BOOTTIME; zero once it is over (K2).
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.lease.deadline.borrow().saturating_sub(boottime())
    }

    /// The BOOTTIME at which the lease ends, as it is now and after every renewal; a fence moves
    /// it to the present. For watchdogs, which have to act without being asked (K6).
    #[must_use]
    pub fn deadline(&self) -> watch::Receiver<Duration> {
        self.lease.deadline.subscribe()
    }

    /// Begins an operation for whose end a fence waits, up to its drain time (K6).
    ///
    /// # Errors
    /// As [`TenantKeys::check`].
    pub fn begin(&self) -> Result<Operation, KeyError> {
        self.lease.running.send_modify(|count| *count += 1);
        let operation = Operation {
            lease: Arc::clone(&self.lease),
        };
        // After counting: a fence either sees this operation or is seen by it.
        self.lease.check()?;
        Ok(operation)
    }

    /// A fresh key and its wrapped form.
    ///
    /// # Errors
    /// As [`TenantKeys::check`].
    pub async fn mint(&self) -> Result<(Arc<LeasedDek>, WrapSlot), KeyError> {
        let lease = &self.lease;
        lease.check()?;
        let (dek, slot) = match &lease.source {
            Source::Fixed(kek) => {
                let (dek, slot) = mint_fixed(kek, lease.tenant);
                (lease.held.keep(lease.tenant, dek)?, slot)
            }
            Source::Remote(remote) => remote.mint(lease).await?,
        };
        Ok((lease.hold(&slot, dek)?, slot))
    }

    /// The key that `slot` wraps.
    ///
    /// # Errors
    /// As [`TenantKeys::check`]; [`KeyError::Refused`] where the slot does not open.
    pub async fn open(&self, slot: &WrapSlot) -> Result<Arc<LeasedDek>, KeyError> {
        let missing = KeyError::Refused {
            tenant: self.lease.tenant,
            kind: KeyErrorKind::BrokenSlot,
        };
        let opened = self.open_many(std::slice::from_ref(slot)).await?;
        opened.into_iter().next().unwrap_or(Err(missing))
    }

    /// The keys that `slots` wrap, in order; those not at hand come in batches of
    /// [`api::keys::MAX_UNWRAP`].
    ///
    /// # Errors
    /// As [`TenantKeys::check`]; a slot that does not open fails alone.
    pub async fn open_many(
        &self,
        slots: &[WrapSlot],
    ) -> Result<Vec<Result<Arc<LeasedDek>, KeyError>>, KeyError> {
        let lease = &self.lease;
        lease.check()?;
        let held = |slot| lock(&lease.keys).get(slot).and_then(Weak::upgrade);
        let mut opened: Vec<_> = slots.iter().map(|slot| held(slot).map(Ok)).collect();
        let absent: Vec<usize> = (0..slots.len()).filter(|i| opened[*i].is_none()).collect();
        for batch in absent.chunks(api::keys::MAX_UNWRAP) {
            let wanted: Vec<WrapSlot> = batch.iter().map(|i| slots[*i].clone()).collect();
            let deks = lease.unwrap(&wanted).await?;
            for ((i, slot), dek) in batch.iter().zip(&wanted).zip(deks) {
                let held = dek.and_then(|dek| lease.held.keep(lease.tenant, dek));
                opened[*i] = Some(held.and_then(|dek| lease.hold(slot, dek)));
            }
        }
        Ok(opened.into_iter().flatten().collect())
    }

    /// Resolves with the reason when the tenant is fenced.
    pub async fn fenced(&self) -> RevokeReason {
        match self.closed().await {
            KeyError::Revoked { reason, .. } => reason,
            // Closed for another reason: no fence can follow on this handle.
            _ => std::future::pending().await,
        }
    }

    /// Resolves with the reason when the lease is over by a fence, or by its end where a
    /// keymanager granted it.
    pub async fn closed(&self) -> KeyError {
        let mut closed = self.lease.closed.subscribe();
        loop {
            if let Some(why) = closed.borrow_and_update().as_ref() {
                return why.clone();
            }
            if closed.changed().await.is_err() {
                // The sender lives in the lease that this handle holds.
                std::future::pending::<()>().await;
            }
        }
    }
}

fn mint_fixed(kek: &Kek, tenant: TenantId) -> (Dek, WrapSlot) {
    let dek = Dek::generate(&mut OsEntropy);
    let id = KekId(tenant.0);
    let slot = sealed::wrap::wrap(kek, tenant, id, KekVersion(1), &dek, &mut OsEntropy);
    (dek, slot)
}

/// A running operation; a fence waits for its drop.
pub struct Operation {
    lease: Arc<Lease>,
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.lease
            .running
            .send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// A data key that can be used only while its lease runs.
pub struct LeasedDek {
    lease: Arc<Lease>,
    dek: RwLock<Option<Counted>>,
}

impl LeasedDek {
    /// Uses the key.
    ///
    /// # Errors
    /// As [`TenantKeys::check`].
    pub fn with<R>(&self, use_key: impl FnOnce(&Dek) -> R) -> Result<R, KeyError> {
        let dek = self.dek.read().unwrap_or_else(PoisonError::into_inner);
        self.lease.check()?;
        match dek.as_ref() {
            Some(counted) => Ok(use_key(&counted.dek)),
            None => Err(KeyError::LeaseEnded {
                tenant: self.lease.tenant,
            }),
        }
    }

    /// Whether answers made with this key may leave (K5).
    ///
    /// # Errors
    /// As [`TenantKeys::check`].
    pub fn check(&self) -> Result<(), KeyError> {
        self.lease.check()
    }

    fn wipe(&self) {
        // Wiped by its drop.
        *self.dek.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
