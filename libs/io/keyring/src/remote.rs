//! Keys from keymanagers: any of several grants, renews, mints and unwraps (K3).

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::keys::{
    Acquire, Fence, KeyErrorKind, Lease as Answer, LeaseAnswer, LeaseId, MintBatch, PATH_ACQUIRE,
    PATH_MINT, PATH_RENEW, PATH_UNWRAP, RevokeReason, TenantState, UnwrapBatch, Wanted,
    decode_minted, decode_unwrapped,
};
use api::{Client, ClientError};
use ids::{Generation, KekVersion, NodeId, TenantId, WrapSlot};
use sealed::Dek;

use crate::KeyError;
use crate::held::Counted;
use crate::lease::{Lease, Source, lock, now_ms};

/// Keys minted ahead.
const POOL: u32 = 16;

/// How a node reaches its keymanagers.
#[derive(Clone)]
pub struct KeyringConfig {
    /// Their URLs; each of them can grant and renew (K3).
    pub keymanagers: Vec<String>,
    /// The directory of `ca.pem`, `cert.pem` and `key.pem`; `None` on one machine only.
    pub identity_dir: Option<PathBuf>,
    /// This node.
    pub node: NodeId,
    /// Between two renewals, and the longest wait for one answer (K2).
    pub renew: Duration,
    /// R: how long a fence waits for running operations (K2).
    pub drain: Duration,
    /// The token that is shown to keymanagers which check placement (K4): of the scope of a node,
    /// or of one tenant for its compute.
    pub token: Option<String>,
}

impl KeyringConfig {
    /// With the usual times of K2, no identity and no token.
    #[must_use]
    pub const fn new(node: NodeId, keymanagers: Vec<String>) -> Self {
        Self {
            keymanagers,
            identity_dir: None,
            node,
            renew: Duration::from_secs(10),
            drain: Duration::from_secs(5),
            token: None,
        }
    }
}

// A token is a secret: it must not reach a log.
impl std::fmt::Debug for KeyringConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyringConfig")
            .field("keymanagers", &self.keymanagers)
            .field("identity_dir", &self.identity_dir)
            .field("node", &self.node)
            .field("renew", &self.renew)
            .field("drain", &self.drain)
            .field("token", &self.token.as_ref().map(|_| "given"))
            .finish()
    }
}

/// The clients of a process.
pub(crate) struct Connection {
    pub(crate) servers: Vec<Client>,
    pub(crate) config: KeyringConfig,
    seqno: AtomicU64,
    /// The keymanager that granted last: the first to be asked.
    preferred: AtomicUsize,
}

/// A lease as one keymanager granted it.
#[derive(Clone, Copy)]
pub(crate) struct Grant {
    server: usize,
    lease: LeaseId,
    pub(crate) epoch: u64,
    kek: KekVersion,
    pub(crate) deadline_ms: u64,
}

/// The part of a lease that speaks to the keymanagers.
pub(crate) struct Remote {
    connection: Arc<Connection>,
    grant: Mutex<Grant>,
    pool: Mutex<Vec<(Counted, WrapSlot)>>,
}

impl Connection {
    pub(crate) fn new(config: KeyringConfig) -> Result<Self, ClientError> {
        let client = |url: &String| {
            let client = Client::new(url, config.identity_dir.as_deref())?;
            Ok::<_, ClientError>(match &config.token {
                Some(token) => client.with_token(token.clone()),
                None => client,
            })
        };
        let servers = config.keymanagers.iter().map(client);
        Ok(Self {
            servers: servers.collect::<Result<_, _>>()?,
            seqno: AtomicU64::new(1),
            preferred: AtomicUsize::new(0),
            config,
        })
    }

    /// Asks `server` first from now on: it knows of a fence that others may not have heard of yet.
    pub(crate) fn prefer(&self, server: usize) {
        self.preferred.store(server, Ordering::Relaxed);
    }

    /// The first grant of a keymanager whose KMS answers. A revocation that one of them knows
    /// counts at once; silence, or not knowing, does not keep the next one from being asked (K3).
    /// A grant without the KMS's word counts only where nobody else has that word: a keymanager
    /// that is cut off from the KMS must not outlive a revocation that another one has seen (K2).
    pub(crate) async fn ask(&self, tenant: TenantId, path: &str) -> Result<Grant, KeyError> {
        let mut refusal = None;
        let mut unverified = None;
        let mut silence = "none is configured".to_owned();
        let first = self.preferred.load(Ordering::Relaxed);
        for server in (0..self.servers.len()).map(|i| (first + i) % self.servers.len()) {
            match self.ask_one(server, tenant, path).await {
                Ok((sent, answer)) => match granted(server, sent, &answer) {
                    Ok(grant) if answer.state == TenantState::Active => {
                        self.preferred.store(server, Ordering::Relaxed);
                        return Ok(grant);
                    }
                    Ok(grant) => unverified = unverified.or(Some(grant)),
                    Err(revoked @ KeyError::Revoked { .. }) => return Err(revoked),
                    Err(error) => refusal = Some(error),
                },
                Err(detail) => silence = detail,
            }
        }
        if let Some(grant) = unverified {
            return Ok(grant);
        }
        Err(refusal.unwrap_or(KeyError::Unreachable {
            tenant,
            detail: silence,
        }))
    }

    async fn ask_one(
        &self,
        server: usize,
        tenant: TenantId,
        path: &str,
    ) -> Result<(u64, Answer), String> {
        let client = self.servers.get(server).ok_or("no such keymanager")?;
        let request = Acquire {
            node: self.config.node,
            tenants: vec![Wanted {
                tenant,
                generation: Generation::default(),
            }],
            seqno: self.seqno.fetch_add(1, Ordering::Relaxed),
        };
        // K2: what remains counts from here, however long the answer takes.
        let sent = now_ms();
        let asked = tokio::time::timeout(self.config.renew, client.post(path, &request)).await;
        let answer: LeaseAnswer = match asked {
            Ok(answer) => answer.map_err(|error| error.to_string())?,
            Err(_) => return Err("no answer in time".to_owned()),
        };
        if answer.seqno != request.seqno {
            return Err("the answer is for another request".to_owned());
        }
        let mine = answer.leases.into_iter().find(|l| l.tenant == tenant);
        Ok((sent, mine.ok_or("the answer lacks the tenant")?))
    }
}

fn granted(server: usize, sent: u64, answer: &Answer) -> Result<Grant, KeyError> {
    let tenant = answer.tenant;
    let refused = |kind| Err(KeyError::Refused { tenant, kind });
    match (answer.lease, answer.state) {
        (_, TenantState::Revoked(reason)) => Err(KeyError::Revoked { tenant, reason }),
        (Some(lease), TenantState::Active | TenantState::Unverified) => Ok(Grant {
            server,
            lease,
            epoch: answer.epoch,
            kek: answer.active_kek,
            deadline_ms: sent.saturating_add(answer.remaining_ms),
        }),
        (_, TenantState::Unknown) => refused(KeyErrorKind::NotKnownYet),
        (None, TenantState::Unverified) => refused(KeyErrorKind::Outage),
        (None, TenantState::Active) => refused(KeyErrorKind::StalePlacement),
    }
}

impl Remote {
    pub(crate) fn new(connection: Arc<Connection>, grant: Grant) -> Self {
        Self {
            connection,
            grant: Mutex::new(grant),
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

    /// One renewal of `lease`.
    ///
    /// # Errors
    /// Why there is none. [`KeyError::Unreachable`] and a keymanager that knows nothing yet leave
    /// the lease to its end; everything else ends it now.
    async fn renew(&self, lease: &Lease) -> Result<(), KeyError> {
        let tenant = lease.tenant();
        let next = self.connection.ask(tenant, PATH_RENEW).await?;
        let before = std::mem::replace(&mut *lock(&self.grant), next);
        if next.server == before.server && next.epoch > before.epoch {
            // A fence came and went between two renewals: this lease is of the time before it.
            return Err(KeyError::LeaseEnded { tenant });
        }
        if next.kek != before.kek {
            self.wipe();
        }
        if lease.renew(next.deadline_ms) {
            Ok(())
        } else {
            Err(KeyError::LeaseEnded { tenant })
        }
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
        let mut keys = minted
            .into_iter()
            .map(|(dek, slot)| (lease.held().count(Dek::from_bytes(*dek.expose())), slot));
        let first = keys
            .next()
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

/// Renews while somebody holds the lease, and ends it in the order of K6 when it is over.
pub(crate) async fn keep(lease: std::sync::Weak<Lease>, connection: Arc<Connection>) {
    let mut silence = None;
    let left = |lease: &Lease| Duration::from_millis(lease.deadline_ms().saturating_sub(now_ms()));
    loop {
        let Some(wait) = lease.upgrade().map(|lease| left(&lease)) else {
            return;
        };
        tokio::time::sleep(wait.min(connection.config.renew)).await;
        let Some(lease) = lease.upgrade() else { return };
        let Source::Remote(remote) = lease.source() else {
            return;
        };
        if let Err(ended) = lease.check() {
            return end(&lease, silence.unwrap_or(ended), &connection).await;
        }
        // The end of the lease does not wait for an answer.
        match tokio::time::timeout(left(&lease), remote.renew(&lease)).await {
            Ok(Ok(())) => silence = None,
            Ok(Err(error)) if leaves_running(&error) => {
                tracing::warn!(%error, "a lease was not renewed");
                silence = Some(error);
            }
            Ok(Err(why)) => return end(&lease, why, &connection).await,
            Err(_) => silence = Some(unreachable(lease.tenant(), "no answer in time")),
        }
    }
}

const fn leaves_running(error: &KeyError) -> bool {
    matches!(
        error,
        KeyError::Unreachable { .. }
            | KeyError::Refused {
                kind: KeyErrorKind::NotKnownYet,
                ..
            }
    )
}

async fn end(lease: &Lease, why: KeyError, connection: &Connection) {
    tracing::error!(error = %why, "a lease is over");
    lease.close(why, connection.config.drain).await;
}

/// The first lease of `tenant`.
pub(crate) async fn acquire(
    connection: &Arc<Connection>,
    tenant: TenantId,
) -> Result<(Grant, Remote), KeyError> {
    let grant = connection.ask(tenant, PATH_ACQUIRE).await?;
    Ok((grant, Remote::new(Arc::clone(connection), grant)))
}

fn unreachable(tenant: TenantId, detail: impl ToString) -> KeyError {
    KeyError::Unreachable {
        tenant,
        detail: detail.to_string(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keymanager_that_has_yet_to_ask_the_kms_is_asked_again() {
        let answer = Answer {
            tenant: TenantId([7; 16]),
            lease: None,
            remaining_ms: 0,
            epoch: 1,
            kek_id: None,
            active_kek: KekVersion(0),
            lowest_kek: KekVersion(1),
            state: TenantState::Unknown,
        };
        let error = granted(0, 0, &answer).err().unwrap();
        assert_eq!(error.grade(), api::Grade::KeyUnavailable);
        assert!(leaves_running(&error), "a lease of another one goes on");
        assert!(error.to_string().contains("yet"), "{error}");
    }
}
