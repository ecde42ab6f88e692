//! One tenant: its authorization unit, its leases, its KEKs, and the loop that probes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::keys::{KeyErrorKind, Lease, LeaseId, TenantState, Wanted};
use ids::{KekVersion, NodeId, TenantId};
use service::clock;
use service::entropy::OsEntropy;

use super::leases::LeaseBook;
use crate::class::ErrorClass;
use crate::kek::{KekError, KekRing};
use crate::timings::Timings;
use crate::unit::{Transition, Unit};

/// A tenant that this keymanager serves. Its unit is its own: `per project` in the words of K1.
pub struct Tenant {
    /// Which.
    pub id: TenantId,
    /// The lowest KEK version that is accepted (K10).
    pub lowest: KekVersion,
    /// Its KEKs.
    pub ring: KekRing,
    timings: Timings,
    guarded: Mutex<Guarded>,
}

/// What has to change together: a fence ends the leases in the moment in which it is decided.
struct Guarded {
    unit: Unit,
    leases: LeaseBook,
    epoch: u64,
}

impl Tenant {
    /// A tenant whose KMS nobody has asked yet.
    #[must_use]
    pub fn new(id: TenantId, lowest: KekVersion, ring: KekRing, timings: Timings) -> Self {
        let guarded = Guarded {
            unit: Unit::new(timings.clone()),
            leases: LeaseBook::default(),
            // Beyond what an earlier process of this keymanager can have counted to.
            epoch: clock::unix_seconds(),
        };
        Self {
            id,
            lowest,
            ring,
            timings,
            guarded: Mutex::new(guarded),
        }
    }

    /// The answer to one node that wants a lease.
    #[must_use]
    pub fn lease(&self, node: NodeId, wanted: &Wanted) -> Lease {
        let now = clock::boottime();
        let mut guarded = self.lock();
        let active = self.ring.active(self.id);
        let mut lease = Lease {
            tenant: self.id,
            lease: None,
            remaining_ms: 0,
            epoch: guarded.epoch,
            kek_id: active.as_ref().map(|kek| kek.id),
            active_kek: active.as_ref().map_or(KekVersion(0), |kek| kek.version),
            lowest_kek: self.lowest,
            state: guarded.unit.state(),
        };
        let Some(remaining) = guarded.unit.remaining(now) else {
            return lease;
        };
        if active.is_none() {
            // The KMS answers, but no KEK is there to be used.
            lease.state = TenantState::Unknown;
            return lease;
        }
        let fresh = LeaseId(u64::from_le_bytes(OsEntropy::bytes()));
        let until = now + remaining;
        if let Ok(id) = guarded
            .leases
            .grant(node, wanted.generation, until, now, fresh)
        {
            lease.lease = Some(id);
            lease.remaining_ms = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
        }
        lease
    }

    /// Whether `lease` allows `node` the use of keys at this moment.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, node: NodeId, lease: LeaseId) -> Result<(), KeyErrorKind> {
        let now = clock::boottime();
        let guarded = self.lock();
        if guarded.unit.remaining(now).is_none() {
            return Err(match guarded.unit.state() {
                TenantState::Revoked(_) => KeyErrorKind::Revoked,
                TenantState::Active => KeyErrorKind::LeaseEnded,
                TenantState::Unverified | TenantState::Unknown => KeyErrorKind::Outage,
            });
        }
        guarded.leases.check(node, lease, now)
    }

    /// One turn of the probe loop: what is due is done. Returns how long to sleep, and the
    /// transition, if there was one.
    pub async fn turn(&self) -> (Duration, Option<Transition>) {
        let now = clock::boottime();
        let (due, mut transition) = {
            let mut guarded = self.lock();
            let transition = guarded.unit.on_tick(now);
            self.obey(&mut guarded, transition);
            (now >= guarded.unit.next_probe(), transition)
        };
        if due {
            transition = self.probe().await.or(transition);
        }
        let wait = self
            .lock()
            .unit
            .next_probe()
            .saturating_sub(clock::boottime());
        // Short enough that the end of a grace is met in time.
        let tick = self.timings.lease / 45;
        (earlier(wait).min(tick), transition)
    }

    async fn probe(&self) -> Option<Transition> {
        let sent = clock::boottime();
        let asked = tokio::time::timeout(self.timings.strike, self.ring.probe(self.id)).await;
        let answer = match asked {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(tenant = %self.id, %error, "a probe failed");
                Err(class_of(&error))
            }
            Err(_) => Err(ErrorClass::Outage),
        };
        let transition = {
            let mut guarded = self.lock();
            let transition = match answer {
                Ok(()) => guarded.unit.on_success(sent),
                Err(class) => guarded.unit.on_failure(clock::boottime(), class),
            };
            self.obey(&mut guarded, transition);
            transition
        };
        if answer.is_ok() && self.ring.active(self.id).is_none() {
            // After a fence this makes a new version (K8).
            let made = tokio::time::timeout(self.timings.lease, self.ring.activate(self.id)).await;
            match made {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::error!(tenant = %self.id, %error, "no KEK"),
                Err(_) => tracing::error!(tenant = %self.id, "no KEK in time"),
            }
        }
        transition
    }

    fn obey(&self, guarded: &mut Guarded, transition: Option<Transition>) {
        match transition {
            Some(Transition::Fence(why)) => {
                tracing::error!(tenant = %self.id, ?why, "fenced");
                guarded.epoch += 1;
                guarded.leases.end_all();
                self.ring.fence(self.id);
            }
            Some(Transition::BrokenCanary) => {
                tracing::error!(tenant = %self.id, "the canary does not open");
            }
            Some(Transition::Healed) | None => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn class_of(error: &KekError) -> ErrorClass {
    match error {
        KekError::Kms { source, .. } => source.class,
        KekError::DoesNotOpen { .. } | KekError::Damaged { .. } => ErrorClass::BrokenBlob,
        // Nobody refused: our bucket, or a fence in between.
        KekError::Bucket { .. }
        | KekError::Missing { .. }
        | KekError::TooLow { .. }
        | KekError::UsedUp(_)
        | KekError::Fenced(_) => ErrorClass::Outage,
    }
}

/// Up to a tenth earlier, so that many units do not ask at one time.
fn earlier(wait: Duration) -> Duration {
    let [share] = OsEntropy::bytes::<1>();
    wait.saturating_sub(wait * u32::from(share) / 2560)
}
