//! The server: leases, unwraps and mints for nodes, each answer recorded before it leaves (K4).

pub mod config;
mod fences;
mod grants;
mod leases;
mod operator;
mod placement;
mod routes;
mod tenant;
#[cfg(test)]
mod tests;

pub use tenant::{Happened, Tenant};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::keys::Fence;
use axum::Router;
use axum::http::HeaderMap;
use ids::TenantId;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use service::http::{ApiError, authorize};
use service::task::Shutdown;
use service::token::{Scope, Verifier};

use self::fences::FenceLog;
use self::grants::Rounds;
use crate::ledger::Ledger;

/// The routes for nodes and for operators.
pub fn router(keymanager: Arc<Keymanager>) -> Router {
    grants::router()
        .merge(routes::router())
        .merge(operator::router())
        .with_state(keymanager)
}

/// Everything that requests need.
pub struct Keymanager {
    tenants: BTreeMap<TenantId, Tenant>,
    ledger: Mutex<Ledger>,
    fences: FenceLog,
    rounds: Rounds,
    verifier: Option<Verifier>,
}

impl Keymanager {
    /// A keymanager of `tenants` that records in `ledger`. Without a `verifier` everybody who
    /// reaches it is believed.
    #[must_use]
    pub fn new(
        tenants: impl IntoIterator<Item = Tenant>,
        ledger: Ledger,
        verifier: Option<Verifier>,
    ) -> Arc<Self> {
        Arc::new(Self {
            tenants: tenants.into_iter().map(|t| (t.id, t)).collect(),
            ledger: Mutex::new(ledger),
            fences: FenceLog::new(unix_ms()),
            rounds: Rounds::default(),
            verifier,
        })
    }

    /// Begins to probe; without it no lease is ever granted.
    pub fn begin(self: &Arc<Self>, shutdown: &Shutdown) {
        let (keymanager, stop) = (self.clone(), shutdown.clone());
        drop(shutdown.spawn("end of watches", async move {
            stop.requested().await;
            keymanager.fences.close();
        }));
        for id in self.tenants.keys().copied() {
            let (keymanager, stop) = (self.clone(), shutdown.clone());
            drop(shutdown.spawn("probe", async move {
                keymanager.probe_until(id, &stop).await;
            }));
        }
    }

    async fn probe_until(self: &Arc<Self>, id: TenantId, stop: &Shutdown) {
        let Some(tenant) = self.tenants.get(&id) else {
            return;
        };
        while !stop.is_requested() {
            let wait = tenant.turn().await;
            self.announce(tenant).await;
            tokio::select! {
                () = stop.requested() => {}
                () = tenant.woken.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Tells nodes what happened to a tenant, then the ledger.
    async fn announce(self: &Arc<Self>, tenant: &Tenant) {
        let happened = tenant.take_happened();
        for happened in &happened {
            if let Happened::Fence { reason, epoch } = *happened {
                self.fences.push(Fence {
                    tenant: tenant.id,
                    reason,
                    epoch,
                });
            }
        }
        for happened in happened {
            let record = Announced {
                at_ms: unix_ms(),
                tenant: tenant.id,
                happened,
            };
            // The fence counts already: without its record no answer leaves either, because
            // a ledger that failed once takes no more.
            if let Err(error) = self.record(record).await {
                tracing::error!(%error, "what happened was not recorded");
            }
        }
    }

    /// Returns when `record` is on disk.
    async fn record(
        self: &Arc<Self>,
        record: impl Serialize + Send + 'static,
    ) -> Result<(), ApiError> {
        let keymanager = self.clone();
        let append = move || keymanager.lock_ledger().append(&record);
        let refused = |e: String| ApiError::new(api::Grade::RetryElsewhere, e);
        tokio::task::spawn_blocking(append)
            .await
            .map_err(|e| refused(e.to_string()))?
            .map_err(|e| refused(e.to_string()))
    }

    fn lock_ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// K4: the bearer's token has to allow `scope` for `tenant`, where tokens are checked.
    fn authorize(
        &self,
        headers: &HeaderMap,
        scope: Scope,
        tenant: Option<TenantId>,
    ) -> Result<(), ApiError> {
        match &self.verifier {
            Some(verifier) => authorize(headers, verifier, scope, tenant).map(drop),
            None => Ok(()),
        }
    }
}

/// The wall clock, for people and records alone: nothing is decided by it.
fn unix_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |now| {
        u64::try_from(std::time::Duration::from(now).as_millis()).unwrap_or(u64::MAX)
    })
}

#[derive(Serialize)]
struct Announced {
    at_ms: u64,
    tenant: TenantId,
    #[serde(flatten)]
    happened: Happened,
}
