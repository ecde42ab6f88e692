//! Leases are renewed, all of a node at once, and each of them ends by itself where that fails
//! (K2, K6).

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ids::TenantId;
use tokio::time::MissedTickBehavior;

use crate::KeyError;
use crate::connection::Connection;
use crate::lease::{Lease, Source, now_ms};
use crate::verdict::Grant;

/// Begins to renew every lease of `connection`. A lease outlives its keyring in the hands of whoever
/// uses it, so this goes on until nobody has either.
pub(crate) fn begin(connection: &Arc<Connection>) {
    let (connection, period) = (Arc::downgrade(connection), connection.config.renew);
    drop(service::task::spawn("renewals", async move {
        // What a slow answer takes is not added to the time between two renewals (K2).
        let mut turns = tokio::time::interval(period);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        turns.tick().await; // at once
        loop {
            turns.tick().await;
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
    let drain = connection.config.drain;
    let apply = |tenant, verdict| {
        if let Some(lease) = leases.get(&tenant) {
            settle(lease, verdict, drain);
        }
    };
    let tenants = leases.keys().copied().collect();
    connection.renew(tenants, apply).await;
}

fn settle(lease: &Arc<Lease>, verdict: Result<Grant, KeyError>, drain: Duration) {
    match verdict.and_then(|grant| take(lease, grant)) {
        Ok(()) => {}
        Err(error) if error.leaves_running() => {
            tracing::warn!(%error, "a lease was not renewed");
            if let Source::Remote(remote) = lease.source() {
                remote.not_renewed(error);
            }
        }
        Err(why) => {
            let lease = Arc::clone(lease);
            // Beside each other: a drain must not hold up the renewals of other tenants.
            drop(service::task::spawn("end of a lease", async move {
                end(&lease, why, drain).await;
            }));
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

/// Ends a lease at its deadline, which renewals move: its end waits for no answer (K2). It is looked
/// at every `period`, because a sleep does not count the time that the machine is suspended for.
pub(crate) async fn expire(lease: Weak<Lease>, period: Duration, drain: Duration) {
    loop {
        let Some(left) = lease.upgrade().map(|lease| left(&lease)) else {
            return;
        };
        tokio::time::sleep(left.min(period)).await;
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
