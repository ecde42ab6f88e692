//! One tenant: its authorization unit, its leases, its KEKs, requests about it, and the loop that
//! probes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::keys::{
    KeyErrorKind, Lease, LeaseId, Request, Requested, RevokeReason, TenantState, TenantStatus,
};
use ids::{Generation, KekVersion, NodeId, TenantId};
use serde::Serialize;
use service::clock;
use service::entropy::OsEntropy;
use tokio::sync::Notify;

use super::leases::LeaseBook;
use super::unix_ms;
use crate::class::ErrorClass;
use crate::kek::{KekError, KekRing};
use crate::metrics;
use crate::request::{RequestError, Requests};
use crate::timings::Timings;
use crate::unit::{Closed, Transition, Unit};

/// How new the reading of requests is that an answer to a node rests on (K7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It began after the node asked.
    Anew,
    /// It may be a little older: enough for a renewal.
    MayBeOld,
}

/// A tenant that this keymanager serves. Its unit is its own: `per project` in the words of K1.
pub struct Tenant {
    /// Which.
    pub id: TenantId,
    /// The lowest KEK version that is accepted (K10).
    pub lowest: KekVersion,
    /// Its KEKs.
    pub ring: KekRing,
    requests: Requests,
    timings: Timings,
    guarded: Mutex<Guarded>,
    /// One reading of the requests at a time, however many wait for it.
    reading: tokio::sync::Mutex<()>,
    /// There is something to do before the next probe is due.
    pub(super) woken: Notify,
}

/// What has to change together: a fence ends the leases in the moment in which it is decided.
struct Guarded {
    unit: Unit,
    leases: LeaseBook,
    epoch: u64,
    /// When the reading of the newest request began that succeeded last (K7).
    read_at: Option<Duration>,
    requested: Option<Requested>,
    shown: TenantState,
    since_ms: u64,
    /// Not announced yet.
    happened: Vec<Happened>,
}

/// What nodes have to hear of, and the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Happened {
    /// All leases ended.
    Fence {
        /// Why.
        reason: RevokeReason,
        /// The epoch that it begins.
        epoch: u64,
    },
    /// The unit answers again.
    Healed,
    /// The canary does not open.
    BrokenCanary,
    /// A request was obeyed (K7).
    Requested {
        /// As it lies beside the KEKs.
        request: Requested,
    },
}

impl Guarded {
    fn revoked_by_request(&self) -> bool {
        self.requested.as_ref().is_some_and(|newest| newest.revoked)
    }

    /// What nodes are told.
    fn state(&self) -> TenantState {
        if self.revoked_by_request() {
            return TenantState::Revoked(RevokeReason::Requested);
        }
        self.unit.state()
    }

    /// What operators are told: an outage beyond its grace by its name.
    fn status(&self) -> TenantState {
        match self.unit.closed() {
            Some(why @ Closed::GraceEnded) if !self.revoked_by_request() => {
                TenantState::Revoked(why.reason())
            }
            _ => self.state(),
        }
    }

    /// How long a lease granted now may run (K2, K3, K7).
    fn remaining(&self, now: Duration, grace: Duration) -> Option<Duration> {
        if self.revoked_by_request() {
            return None;
        }
        // While the bucket cannot be asked, a request may be unseen: that is an outage as one of
        // the KMS is.
        let known = (self.read_at? + grace).saturating_sub(now);
        let left = self.unit.remaining(now)?.min(known);
        (!left.is_zero()).then_some(left)
    }

    /// Whether operators are told another state from now on.
    fn settle(&mut self) -> bool {
        let state = self.status();
        let changed = state != self.shown;
        if changed {
            self.shown = state;
            self.since_ms = unix_ms();
        }
        changed
    }
}

impl Tenant {
    /// A tenant whose KMS nobody has asked yet.
    #[must_use]
    pub fn new(
        id: TenantId,
        lowest: KekVersion,
        ring: KekRing,
        requests: Requests,
        timings: Timings,
    ) -> Self {
        metrics::state(id, TenantState::Unknown);
        let guarded = Guarded {
            unit: Unit::new(timings.clone()),
            leases: LeaseBook::default(),
            // Beyond what an earlier process of this keymanager can have counted to.
            epoch: clock::unix_seconds(),
            read_at: None,
            requested: None,
            shown: TenantState::Unknown,
            since_ms: unix_ms(),
            happened: Vec::new(),
        };
        Self {
            id,
            lowest,
            ring,
            requests,
            timings,
            guarded: Mutex::new(guarded),
            reading: tokio::sync::Mutex::default(),
            woken: Notify::new(),
        }
    }

    /// The answer to one node that wants a lease. A new one is given only where the newest request
    /// was read since `since`; while the bucket is silent one that runs is renewed all the same.
    #[must_use]
    pub fn lease(
        &self,
        node: NodeId,
        generation: Generation,
        since: Duration,
        reading: Reading,
    ) -> Lease {
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
            state: guarded.state(),
        };
        let Some(remaining) = guarded.remaining(now, self.grace()) else {
            if lease.state == TenantState::Active {
                // The last answer is too old: the canary does not open, or the bucket is silent.
                lease.state = TenantState::Unverified;
            }
            return lease;
        };
        let is_renewal = reading == Reading::MayBeOld && guarded.leases.runs(node, now);
        let unread = guarded.read_at < Some(since) && !is_renewal;
        if active.is_none() || unread {
            // The KMS answers, but no KEK is there to be used, or a request may be unseen (K7).
            lease.state = TenantState::Unknown;
            return lease;
        }
        let fresh = LeaseId(u64::from_le_bytes(OsEntropy::bytes()));
        let (until, epoch) = (now + remaining, guarded.epoch);
        let leases = &mut guarded.leases;
        if let Ok(id) = leases.grant(node, generation, until, now, fresh, epoch) {
            lease.lease = Some(id);
            lease.remaining_ms = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
        }
        lease
    }

    /// Whether `node` holds a lease that runs.
    #[must_use]
    pub fn runs(&self, node: NodeId) -> bool {
        self.lock().leases.runs(node, clock::boottime())
    }

    /// Whether `lease` allows `node` the use of keys at this moment.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, node: NodeId, lease: LeaseId) -> Result<(), KeyErrorKind> {
        let now = clock::boottime();
        let guarded = self.lock();
        if guarded.remaining(now, self.grace()).is_none() {
            return Err(match guarded.state() {
                TenantState::Revoked(_) => KeyErrorKind::Revoked,
                TenantState::Active => KeyErrorKind::LeaseEnded,
                TenantState::Unverified | TenantState::Unknown => KeyErrorKind::Outage,
            });
        }
        guarded.leases.check(node, lease, now)
    }

    /// How old the reading of requests may be on which a renewal rests.
    #[must_use]
    pub fn readings(&self) -> Duration {
        self.timings.renewal.min(self.timings.lease / 5) / 2
    }

    /// Reads the newest request and obeys it, unless that was done since `since` (K7).
    pub async fn read_requests(&self, since: Duration) {
        let _reading = self.reading.lock().await;
        if self.lock().read_at.is_some_and(|at| at >= since) {
            return;
        }
        let began = clock::boottime();
        match tokio::time::timeout(self.timings.strike, self.requests.newest()).await {
            Ok(Ok(newest)) => self.obey_request(newest, Some(began)),
            Ok(Err(error)) => tracing::warn!(%error, "requests were not read"),
            Err(_) => tracing::warn!(tenant = %self.id, "requests were not read in time"),
        }
    }

    /// Revokes or restores by request: the document first, then its effect (K7).
    ///
    /// # Errors
    /// [`RequestError`]: it may be in force nevertheless, and the next reading shows.
    pub async fn request(&self, revoked: bool, request: &Request) -> Result<(), RequestError> {
        let written = self.requests.write(revoked, request, unix_ms()).await?;
        self.obey_request(written, None);
        Ok(())
    }

    fn obey_request(&self, newest: Option<Requested>, read_at: Option<Duration>) {
        let mut guarded = self.lock();
        guarded.read_at = guarded.read_at.max(read_at);
        let known = guarded.requested.as_ref().map(|requested| requested.number);
        let Some(newest) = newest.filter(|newest| Some(newest.number) > known) else {
            return;
        };
        let (was, is) = (guarded.revoked_by_request(), newest.revoked);
        guarded.requested = Some(newest.clone());
        let request = newest;
        guarded.happened.push(Happened::Requested { request });
        match (was, is) {
            (false, true) => self.fence(&mut guarded, RevokeReason::Requested),
            // What the KMS says now is not known: it was not asked in the meantime.
            (true, false) => guarded.unit = Unit::new(self.timings.clone()),
            _ => {}
        }
        self.settle(&mut guarded);
        drop(guarded);
        self.woken.notify_one();
    }

    /// What happened since this was asked last.
    pub fn take_happened(&self) -> Vec<Happened> {
        std::mem::take(&mut self.lock().happened)
    }

    /// A node has drained and wiped after a fence.
    pub fn drained(&self, node: NodeId, epoch: u64, took_ms: u64) {
        self.lock().leases.drained(node, epoch, took_ms, unix_ms());
    }

    /// What operators are told.
    #[must_use]
    pub fn status(&self) -> TenantStatus {
        let now = clock::boottime();
        let active = self.ring.active(self.id);
        let guarded = self.lock();
        let age = guarded.unit.t_ok().map(|t_ok| now.saturating_sub(t_ok));
        TenantStatus {
            tenant: self.id,
            state: guarded.status(),
            since_ms: guarded.since_ms,
            t_ok_age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            active_kek_version: active.map_or(KekVersion(0), |kek| kek.version),
            lowest: self.lowest,
            epoch: guarded.epoch,
            requested: guarded.requested.clone(),
            leases: guarded.leases.status(self.id, now),
        }
    }

    /// One turn of the probe loop: what is due is done. Returns how long to sleep.
    pub async fn turn(&self) -> Duration {
        let now = clock::boottime();
        let since = now.saturating_sub(self.timings.probe);
        if self.lock().read_at.is_none() {
            self.read_requests(now).await;
        }
        let due = {
            let mut guarded = self.lock();
            let transition = guarded.unit.on_tick(now);
            self.obey(&mut guarded, transition);
            // A tenant that is revoked by request is not asked about: no success lifts it (K7).
            let asks = guarded.read_at.is_some() && !guarded.revoked_by_request();
            asks && now >= guarded.unit.next_probe()
        };
        tokio::join!(self.read_requests(since), async {
            if due {
                self.probe().await;
            }
        });
        let next = self.lock().unit.next_probe();
        let wait = next.saturating_sub(clock::boottime());
        // Short enough that the end of a grace is met in time.
        let tick = self.timings.lease / 45;
        earlier(wait).clamp(tick / 10, tick)
    }

    async fn probe(&self) {
        let sent = clock::boottime();
        let asked = self.ring.probe(self.id, self.lowest);
        let answer = match tokio::time::timeout(self.timings.strike, asked).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(tenant = %self.id, %error, "a probe failed");
                Err(class_of(&error))
            }
            Err(_) => Err(ErrorClass::Outage),
        };
        metrics::probed(answer);
        let activates = {
            let mut guarded = self.lock();
            let transition = match answer {
                Ok(()) => guarded.unit.on_success(sent),
                Err(class) => guarded.unit.on_failure(clock::boottime(), class),
            };
            self.obey(&mut guarded, transition);
            answer.is_ok() && !guarded.revoked_by_request()
        };
        if activates && self.ring.active(self.id).is_none() {
            // After a fence this makes a new version (K8).
            let made = self.ring.activate(self.id, self.lowest);
            match tokio::time::timeout(self.timings.lease, made).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::error!(tenant = %self.id, %error, "no KEK"),
                Err(_) => tracing::error!(tenant = %self.id, "no KEK in time"),
            }
        }
        if self.lock().revoked_by_request() {
            // The request came while the KMS was asked: what it opened must not stay (K7).
            self.ring.fence(self.id);
        }
    }

    fn obey(&self, guarded: &mut Guarded, transition: Option<Transition>) {
        match transition {
            Some(Transition::Fence(why)) => self.fence(guarded, why.reason()),
            Some(Transition::BrokenCanary) => {
                tracing::error!(tenant = %self.id, "the canary does not open");
                guarded.happened.push(Happened::BrokenCanary);
            }
            Some(Transition::Healed) => guarded.happened.push(Happened::Healed),
            None => {}
        }
        self.settle(guarded);
    }

    fn settle(&self, guarded: &mut Guarded) {
        if guarded.settle() {
            metrics::state(self.id, guarded.shown);
        }
    }

    fn fence(&self, guarded: &mut Guarded, reason: RevokeReason) {
        tracing::error!(tenant = %self.id, ?reason, "fenced");
        metrics::fenced(self.id);
        guarded.epoch += 1;
        guarded.leases.end_all(clock::boottime(), unix_ms());
        self.ring.fence(self.id);
        let epoch = guarded.epoch;
        guarded.happened.push(Happened::Fence { reason, epoch });
    }

    /// Without grace a reading has to be as young as a lease is.
    fn grace(&self) -> Duration {
        self.timings.grace.max(self.timings.lease)
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
        KekError::NoMemory(_) => ErrorClass::OurFault,
    }
}

/// Up to a tenth earlier, so that many units do not ask at one time.
fn earlier(wait: Duration) -> Duration {
    let [share] = OsEntropy::bytes::<1>();
    wait.saturating_sub(wait * u32::from(share) / 2560)
}
