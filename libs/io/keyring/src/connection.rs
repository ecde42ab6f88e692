//! The keymanagers of a process, and how they are asked for leases (K3, K4).

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use api::keys::{
    Acquire, Lease as Answer, LeaseAnswer, PATH_ACQUIRE, PATH_RENEW, RenewAnswer, Round,
};
use api::{Client, ClientError};
use ids::{NodeId, TenantId};

use crate::KeyError;
use crate::lease::{Lease, lock, now_ms};
use crate::verdict::{Grant, Verdicts};

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
    /// What each keymanager told last in answer to a renewal.
    rounds: Vec<Mutex<Option<Round>>>,
    /// Every lease that somebody holds.
    leases: Mutex<Vec<Weak<Lease>>>,
    seqno: AtomicU64,
    /// The keymanager that granted last: the first to be asked.
    preferred: AtomicUsize,
}

/// Why a keymanager has not answered, in words.
type Silence = String;

impl Connection {
    pub(crate) fn new(config: KeyringConfig) -> Result<Self, ClientError> {
        let client = |url: &String| {
            let client = Client::new(url, config.identity_dir.as_deref())?;
            Ok::<_, ClientError>(match &config.token {
                Some(token) => client.with_token(token.clone()),
                None => client,
            })
        };
        let servers: Vec<Client> = config
            .keymanagers
            .iter()
            .map(client)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            rounds: servers.iter().map(|_| Mutex::default()).collect(),
            servers,
            leases: Mutex::default(),
            seqno: AtomicU64::new(1),
            preferred: AtomicUsize::new(0),
            config,
        })
    }

    /// Asks `server` first from now on: it knows of a fence that others may not have heard of yet.
    pub(crate) fn prefer(&self, server: usize) {
        self.preferred.store(server, Ordering::Relaxed);
    }

    /// Renews `lease` from now on, together with all others.
    pub(crate) fn keep(&self, lease: &Arc<Lease>) {
        lock(&self.leases).push(Arc::downgrade(lease));
    }

    /// The leases that run.
    pub(crate) fn running(&self) -> HashMap<TenantId, Arc<Lease>> {
        let mut leases = lock(&self.leases);
        leases.retain(|lease| lease.upgrade().is_some_and(|lease| lease.check().is_ok()));
        let held = leases.iter().filter_map(Weak::upgrade);
        held.map(|lease| (lease.tenant(), lease)).collect()
    }

    /// The first lease of a tenant.
    pub(crate) async fn acquire(&self, tenant: TenantId) -> Result<Grant, KeyError> {
        let mut verdicts = Verdicts::of([tenant]);
        for server in self.in_turn() {
            let sent = now_ms();
            let answers = self.acquire_at(server, tenant).await;
            self.weigh(&mut verdicts, server, sent, answers);
            if verdicts.open().is_empty() {
                break;
            }
        }
        let verdict = verdicts.conclude().remove(&tenant);
        verdict.unwrap_or_else(|| Err(unreachable(tenant, "no verdict")))
    }

    /// Renewals of all leases of the node: one request, and more of them only where a keymanager
    /// is silent, or cannot ask the KMS itself (K2). `apply` is told each verdict before the next
    /// keymanager is asked: the others' tenants do not wait for one that does not answer.
    pub(crate) async fn renew(
        &self,
        tenants: BTreeSet<TenantId>,
        apply: impl Fn(TenantId, Result<Grant, KeyError>),
    ) {
        let mut verdicts = Verdicts::of(tenants);
        for server in self.in_turn() {
            let open = verdicts.open();
            if open.is_empty() {
                break;
            }
            // K2: what remains counts from here, however long the answer takes.
            let sent = now_ms();
            let answers = self.renew_at(server, &open).await;
            self.weigh(&mut verdicts, server, sent, answers);
            for (tenant, verdict) in verdicts.take_decided() {
                apply(tenant, verdict);
            }
        }
        for (tenant, verdict) in verdicts.conclude() {
            apply(tenant, verdict);
        }
    }

    fn in_turn(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.preferred.load(Ordering::Relaxed), self.servers.len());
        (0..count).map(move |i| (first + i) % count)
    }

    fn weigh(
        &self,
        verdicts: &mut Verdicts,
        server: usize,
        sent: u64,
        answers: Result<Vec<Answer>, Silence>,
    ) {
        match answers {
            Ok(answers) => {
                for answer in &answers {
                    if verdicts.heard(server, sent, answer) {
                        self.prefer(server);
                    }
                }
            }
            Err(detail) => verdicts.silent(detail),
        }
    }

    async fn acquire_at(&self, server: usize, tenant: TenantId) -> Result<Vec<Answer>, Silence> {
        let request = Acquire {
            node: self.config.node,
            tenants: vec![tenant],
            seqno: self.seqno.fetch_add(1, Ordering::Relaxed),
        };
        let answer: LeaseAnswer = self.post(server, PATH_ACQUIRE, &request).await?;
        expect(answer.seqno, request.seqno)?;
        if answer.leases.iter().all(|lease| lease.tenant != tenant) {
            return Err("the answer lacks the tenant".to_owned());
        }
        Ok(answer.leases)
    }

    async fn renew_at(
        &self,
        server: usize,
        wanted: &BTreeSet<TenantId>,
    ) -> Result<Vec<Answer>, Silence> {
        let kept = self.rounds.get(server).ok_or("no such keymanager")?;
        // Taken: a round whose answer was lost is not the keymanager's last any more.
        let before = lock(kept).take();
        let read = match self.renew_round(server, wanted, before).await? {
            Some(read) => Some(read),
            // It started anew, or forgot: once more, in full.
            None => self.renew_round(server, wanted, None).await?,
        };
        let (round, answers) = read.ok_or("it knows no round at all")?;
        *lock(kept) = Some(round);
        Ok(answers)
    }

    async fn renew_round(
        &self,
        server: usize,
        wanted: &BTreeSet<TenantId>,
        before: Option<Round>,
    ) -> Result<Option<(Round, Vec<Answer>)>, Silence> {
        let seqno = self.seqno.fetch_add(1, Ordering::Relaxed);
        let request = Round::ask(before.as_ref(), self.config.node, seqno, wanted);
        let answer: RenewAnswer = self.post(server, PATH_RENEW, &request).await?;
        expect(answer.seqno, seqno)?;
        Round::read(before, wanted, answer).map_err(|error| error.to_string())
    }

    async fn post<B: serde::Serialize + Sync, T: serde::de::DeserializeOwned>(
        &self,
        server: usize,
        path: &str,
        request: &B,
    ) -> Result<T, Silence> {
        let client = self.servers.get(server).ok_or("no such keymanager")?;
        let asked = client.post(path, request);
        match tokio::time::timeout(self.config.renew, asked).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}

fn expect(answered: u64, asked: u64) -> Result<(), Silence> {
    if answered == asked {
        Ok(())
    } else {
        Err("the answer is for another request".to_owned())
    }
}

pub(crate) fn unreachable(tenant: TenantId, detail: impl ToString) -> KeyError {
    KeyError::Unreachable {
        tenant,
        detail: detail.to_string(),
    }
}
