//! Leases are renewed, all of a node at once, and each of them ends by itself where that fails
//! (K2, K6).

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ids::TenantId;

use crate::KeyError;
use crate::connection::Connection;
use crate::lease::{Lease, Source, now_ms};
use crate::verdict::Grant;

/// Begins to renew every lease of `connection`. A lease outlives its keyring in the hands of whoever
/// uses it, so this goes on until nobody has either.
pub(crate) fn begin(connection: &Arc<Connection>) {
    let (connection, period) = (Arc::downgrade(connection), connection.config.renew);
    drop(service::task::spawn("renewals", async move {
        loop {
            tokio::time::sleep(period).await;
            let Some(connection) = connection.upgrade() else {
                return;
            };
            let leases = connection.running();
            if !leases.is_empty() {
                renew(&connection, leases).await;
            }
        }
    }));
}

async fn renew(connection: &Arc<Connection>, leases: HashMap<TenantId, Arc<Lease>>) {
    let verdicts = connection.renew(leases.keys().copied().collect()).await;
    for (tenant, verdict) in verdicts {
        let Some(lease) = leases.get(&tenant) else {
            continue;
        };
        match verdict.and_then(|grant| take(lease, grant)) {
            Ok(()) => {}
            Err(error) if error.leaves_running() => {
                tracing::warn!(%error, "a lease was not renewed");
                if let Source::Remote(remote) = lease.source() {
                    remote.not_renewed(error);
                }
            }
            Err(why) => {
                let (lease, drain) = (Arc::clone(lease), connection.config.drain);
                // Beside each other: a drain must not hold up the renewals of other tenants.
                drop(service::task::spawn("end of a lease", async move {
                    end(&lease, why, drain).await;
                }));
            }
        }
    }
}

fn take(lease: &Lease, next: Grant) -> Result<(), KeyError> {
    let ended = KeyError::LeaseEnded {
        tenant: lease.tenant(),
    };
    let Source::Remote(remote) = lease.source() else {
        return Err(ended);
    };
    if remote.replace(next) && lease.renew(next.deadline_ms) {
        Ok(())
    } else {
        Err(ended)
    }
}

/// Ends a lease at its deadline, which renewals move: its end waits for no answer (K2).
pub(crate) async fn expire(lease: Weak<Lease>, drain: Duration) {
    loop {
        let Some(left) = lease.upgrade().map(|lease| left(&lease)) else {
            return;
        };
        tokio::time::sleep(left).await;
        let Some(lease) = lease.upgrade() else { return };
        if lease.is_closed() {
            return;
        }
        if let Err(ended) = lease.check() {
            let silence = match lease.source() {
                Source::Remote(remote) => remote.silence(),
                Source::Fixed(_) => None,
            };
            return end(&lease, silence.unwrap_or(ended), drain).await;
        }
    }
}

fn left(lease: &Lease) -> Duration {
    Duration::from_millis(lease.deadline_ms().saturating_sub(now_ms()))
}

async fn end(lease: &Lease, why: KeyError, drain: Duration) {
    tracing::error!(error = %why, "a lease is over");
    lease.close(why, drain).await;
}
