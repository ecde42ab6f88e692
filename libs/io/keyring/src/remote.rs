//! Keys from keymanagers, under the lease that one of them granted: minted and unwrapped.

use std::sync::{Arc, Mutex};

use api::ClientError;
use api::keys::{
    DekBytes, Fence, KeyErrorKind, MintBatch, PATH_MINT, PATH_UNWRAP, RevokeReason, UnwrapBatch,
    decode_minted, decode_unwrapped,
};
use ids::{TenantId, WrapSlot};
use sealed::Dek;

use crate::KeyError;
use crate::connection::{Connection, unreachable};
use crate::held::Counted;
use crate::lease::{Lease, lock};
use crate::verdict::Grant;

/// Keys minted ahead.
const POOL: u32 = 16;

/// The part of a lease that speaks to the keymanagers.
pub(crate) struct Remote {
    connection: Arc<Connection>,
    grant: Mutex<Grant>,
    silence: Mutex<Option<KeyError>>,
    pool: Mutex<Vec<(Counted, WrapSlot)>>,
}

impl Remote {
    pub(crate) fn new(connection: Arc<Connection>, grant: Grant) -> Self {
        Self {
            connection,
            grant: Mutex::new(grant),
            silence: Mutex::new(None),
            pool: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn wipe(&self) {
        // `Dek` is wiped by its drop.
        lock(&self.pool).clear();
    }

    /// Whether a fence that keymanager `server` has decided ends this lease. A refusal counts
    /// whoever heard it; an outage beyond its grace is one of that keymanager alone (K3), whose
    /// epochs tell whether the lease is of the time before.
    pub(crate) fn is_ended_by(&self, server: usize, fence: &Fence) -> bool {
        let grant = *lock(&self.grant);
        if grant.server == server {
            return grant.epoch < fence.epoch;
        }
        fence.reason != RevokeReason::GraceEnded
    }

    /// Goes on with what a renewal brought; `false` where the lease is of the time before a fence
    /// that came and went between two renewals.
    pub(crate) fn replace(&self, next: Grant) -> bool {
        *lock(&self.silence) = None;
        let before = std::mem::replace(&mut *lock(&self.grant), next);
        if next.kek != before.kek {
            self.wipe();
        }
        next.server != before.server || next.epoch <= before.epoch
    }

    /// A renewal failed in a way that leaves the lease to its end.
    pub(crate) fn not_renewed(&self, why: KeyError) {
        *lock(&self.silence) = Some(why);
    }

    /// Why the last renewal failed, where it did.
    pub(crate) fn silence(&self) -> Option<KeyError> {
        lock(&self.silence).clone()
    }

    pub(crate) async fn mint(&self, lease: &Lease) -> Result<(Counted, WrapSlot), KeyError> {
        if let Some(ready) = lock(&self.pool).pop() {
            return Ok(ready);
        }
        let tenant = lease.tenant();
        let grant = *lock(&self.grant);
        let request = MintBatch {
            node: self.connection.config.node,
            tenant,
            lease: grant.lease,
            count: POOL,
        };
        let body = self.post(grant, tenant, PATH_MINT, &request).await?;
        let minted = decode_minted(&body).map_err(|error| unreachable(tenant, error))?;
        let held = lease.held();
        let keep = |(dek, slot): (DekBytes, WrapSlot)| {
            let dek = Dek::from_bytes(*dek.expose());
            Ok::<_, KeyError>((held.keep(tenant, dek)?, slot))
        };
        let mut keys: Vec<_> = minted.into_iter().map(keep).collect::<Result<_, _>>()?;
        let first = keys
            .pop()
            .ok_or_else(|| unreachable(tenant, "no key in the answer"))?;
        let mut pool = lock(&self.pool);
        // Checked under the lock under which a fence wipes: no key slips in behind it.
        lease.check()?;
        if lock(&self.grant).kek == grant.kek {
            pool.extend(keys);
        }
        Ok(first)
    }

    /// Opens at most [`api::keys::MAX_UNWRAP`] slots; one result for each, in order.
    pub(crate) async fn unwrap(
        &self,
        tenant: TenantId,
        slots: &[WrapSlot],
    ) -> Result<Vec<Result<Dek, KeyError>>, KeyError> {
        let grant = *lock(&self.grant);
        let request = UnwrapBatch {
            node: self.connection.config.node,
            tenant,
            lease: grant.lease,
            slots: slots.to_vec(),
        };
        let body = self.post(grant, tenant, PATH_UNWRAP, &request).await?;
        let results = decode_unwrapped(&body).map_err(|error| unreachable(tenant, error))?;
        if results.len() != slots.len() {
            return Err(unreachable(tenant, "not one key per slot in the answer"));
        }
        let taken = results.into_iter().map(|result| match result {
            Ok(dek) => Ok(Dek::from_bytes(*dek.expose())),
            Err(kind) => Err(KeyError::Refused { tenant, kind }),
        });
        Ok(taken.collect())
    }

    async fn post<B: serde::Serialize + Sync>(
        &self,
        grant: Grant,
        tenant: TenantId,
        path: &str,
        body: &B,
    ) -> Result<bytes::Bytes, KeyError> {
        let servers = &self.connection.servers;
        let client = servers
            .get(grant.server)
            .ok_or_else(|| unreachable(tenant, "no such keymanager"))?;
        let asked = client.post_bytes(path, body);
        match tokio::time::timeout(self.connection.config.renew, asked).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(error)) => Err(refusal(tenant, &error)),
            Err(_) => Err(unreachable(tenant, "no answer in time")),
        }
    }
}

/// The contract carries the kind of a refusal as its text.
fn refusal(tenant: TenantId, error: &ClientError) -> KeyError {
    const KINDS: [KeyErrorKind; 8] = [
        KeyErrorKind::Revoked,
        KeyErrorKind::LeaseEnded,
        KeyErrorKind::Outage,
        KeyErrorKind::UnknownTenant,
        KeyErrorKind::BrokenSlot,
        KeyErrorKind::UnknownKek,
        KeyErrorKind::StalePlacement,
        KeyErrorKind::NotKnownYet,
    ];
    let ClientError::Refused { body, .. } = error else {
        return unreachable(tenant, error);
    };
    match KINDS
        .into_iter()
        .find(|kind| kind.to_string() == body.error)
    {
        Some(kind) => KeyError::Refused { tenant, kind },
        None => unreachable(tenant, error),
    }
}
