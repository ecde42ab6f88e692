//! The server: leases, unwraps and mints for nodes, each answer recorded before it leaves (K4).

pub mod config;
mod leases;
mod routes;
mod tenant;
#[cfg(test)]
mod tests;

pub use routes::router;
pub use tenant::Tenant;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ids::TenantId;
use serde::Serialize;
use service::http::ApiError;
use service::task::Shutdown;

use crate::ledger::Ledger;

/// Everything that requests need.
pub struct Keymanager {
    tenants: BTreeMap<TenantId, Tenant>,
    ledger: Mutex<Ledger>,
}

impl Keymanager {
    /// A keymanager of `tenants` that records in `ledger`.
    #[must_use]
    pub fn new(tenants: impl IntoIterator<Item = Tenant>, ledger: Ledger) -> Arc<Self> {
        Arc::new(Self {
            tenants: tenants.into_iter().map(|t| (t.id, t)).collect(),
            ledger: Mutex::new(ledger),
        })
    }

    /// Begins to probe; without it no lease is ever granted.
    pub fn begin(self: &Arc<Self>, shutdown: &Shutdown) {
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
            let (wait, transition) = tenant.turn().await;
            if let Some(transition) = transition {
                let record = Transitioned {
                    at: service::clock::unix_seconds(),
                    what: "transition",
                    tenant: id,
                    to: format!("{transition:?}"),
                };
                // The fence counts already: without its record no answer leaves either, because
                // a ledger that failed once takes no more.
                if let Err(error) = self.record(record).await {
                    tracing::error!(%error, "a transition was not recorded");
                }
            }
            tokio::select! {
                () = stop.requested() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Returns when `record` is on disk.
    async fn record(
        self: &Arc<Self>,
        record: impl Serialize + Send + 'static,
    ) -> Result<(), ApiError> {
        let keymanager = self.clone();
        let append = move || {
            let ledger = keymanager.ledger.lock();
            ledger
                .unwrap_or_else(PoisonError::into_inner)
                .append(&record)
        };
        let refused = |e: String| ApiError::new(api::Grade::RetryElsewhere, e);
        tokio::task::spawn_blocking(append)
            .await
            .map_err(|e| refused(e.to_string()))?
            .map_err(|e| refused(e.to_string()))
    }
}

#[derive(Serialize)]
struct Transitioned {
    at: u64,
    what: &'static str,
    tenant: TenantId,
    to: String,
}
