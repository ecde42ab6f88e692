//! Fences as they happen: one task per keymanager listens, fences at once, and says when the
//! drain is over, so that the revocation's time is measured (K4, K6).

use std::sync::{Arc, Weak};
use std::time::Duration;

use api::keys::{
    Fence, FenceDone, KeyErrorKind, PATH_FENCE_DONE, PATH_WATCH, RevokeReason, Watch, WatchAnswer,
};
use service::clock::boottime;
use tokio::task::JoinHandle;

use crate::KeyError;
use crate::connection::Connection;
use crate::lease::{Source, lock};
use crate::ring::Tenants;

/// The first wait after a keymanager did not answer; it doubles up to the time of a renewal,
/// which tells the same.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Begins to listen to every keymanager.
pub(crate) fn begin(connection: &Arc<Connection>, tenants: &Arc<Tenants>) -> Vec<JoinHandle<()>> {
    let listen = |server| {
        let (connection, tenants) = (Arc::clone(connection), Arc::downgrade(tenants));
        service::task::spawn("fences", listen(server, connection, tenants))
    };
    (0..connection.servers.len()).map(listen).collect()
}

async fn listen(server: usize, connection: Arc<Connection>, tenants: Weak<Tenants>) {
    let (mut after, mut wait) = (0, FIRST_WAIT);
    let Some(client) = connection.servers.get(server) else {
        return;
    };
    loop {
        let node = connection.config.node;
        let asked: Result<WatchAnswer, _> = client.post(PATH_WATCH, &Watch { node, after }).await;
        if tenants.strong_count() == 0 {
            return;
        }
        match asked {
            Ok(answer) => {
                wait = FIRST_WAIT;
                after = answer.cursor;
                for fence in answer.fences {
                    let (connection, tenants) = (Arc::clone(&connection), tenants.clone());
                    // Beside each other: a drain must not hold up the fence of another tenant.
                    drop(service::task::spawn("fence", async move {
                        obey(server, fence, &connection, &tenants).await;
                    }));
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a keymanager is not heard");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(connection.config.renew.max(FIRST_WAIT));
            }
        }
    }
}

async fn obey(server: usize, fence: Fence, connection: &Connection, tenants: &Weak<Tenants>) {
    let began = boottime();
    let tenant = fence.tenant;
    let Some(tenants) = tenants.upgrade() else {
        return;
    };
    let held = lock(&tenants).get_mut(&tenant).and_then(|t| {
        // A lease that is on its way may be of the time before: it is asked for again.
        t.epoch += 1;
        t.lease.clone()
    });
    let Some(lease) = held else { return };
    let Source::Remote(remote) = lease.source() else {
        return;
    };
    if !remote.is_ended_by(server, &fence) {
        return;
    }
    tracing::error!(%tenant, reason = ?fence.reason, "fenced by a push");
    connection.prefer(server);
    let why = match fence.reason {
        // Nobody refused.
        RevokeReason::GraceEnded => KeyError::Refused {
            tenant,
            kind: KeyErrorKind::Outage,
        },
        reason => KeyError::Revoked { tenant, reason },
    };
    // A renewal may have ended it a moment ago: then this waits for the same drain.
    lease.close(why, connection.config.drain).await;
    let took = boottime().saturating_sub(began);
    let done = FenceDone {
        node: connection.config.node,
        tenant,
        epoch: fence.epoch,
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    };
    let Some(client) = connection.servers.get(server) else {
        return;
    };
    if let Err(error) = client.post_bytes(PATH_FENCE_DONE, &done).await {
        tracing::warn!(%tenant, %error, "the end of a fence was not acknowledged");
    }
}

#[cfg(test)]
mod tests {
    use ids::{NodeId, TenantId};

    use super::*;
    use crate::KeyringConfig;
    use crate::ring::Tenant;

    /// A keymanager granted a lease, decided a fence, and the fence was faster than the grant.
    #[tokio::test]
    async fn a_fence_is_not_missed_while_a_lease_is_asked_for() {
        let tenant = TenantId([7; 16]);
        let config = KeyringConfig::new(NodeId(1), Vec::new());
        let connection = Connection::new(config).unwrap();
        let tenants = Arc::new(Tenants::default());
        lock(&tenants).insert(tenant, Tenant::default());
        let fence = Fence {
            tenant,
            reason: RevokeReason::Requested,
            epoch: 9,
        };
        obey(0, fence, &connection, &Arc::downgrade(&tenants)).await;
        // What `Keyring::tenant` compares when its answer is there.
        assert_eq!(lock(&tenants)[&tenant].epoch, 1);
    }
}
