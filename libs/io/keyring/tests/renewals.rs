//! Renewals as a keymanager sees them: one request per node and period, whatever it serves (K2).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of a test fail the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::keys::{
    Acquire, Lease, LeaseAnswer, LeaseId, PATH_ACQUIRE, PATH_RENEW, Renew, RenewAnswer,
    RevokeReason, Round, TenantState,
};
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use ids::{KekVersion, NodeId, TenantId};
use keyring::{KeyError, Keyring, KeyringConfig, TenantKeys};
use service::task::Shutdown;

/// Also how long an answer may take, so that a busy machine misses none.
const RENEW: Duration = Duration::from_secs(1);
const LEASE_MS: u64 = 20_000;

/// A keymanager that grants everything but what is revoked, and counts.
#[derive(Default)]
struct Fake {
    rounds: BTreeMap<NodeId, Round>,
    revoked: BTreeSet<TenantId>,
    unverified: BTreeSet<TenantId>,
    acquired: usize,
    renewals: Vec<Seen>,
}

/// One renewal: how many tenants its round was about, and what crossed the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    about: Option<usize>,
    added: usize,
    dropped: usize,
    changed: usize,
}

type Shared = Arc<Mutex<Fake>>;

impl Fake {
    fn lease(&self, tenant: TenantId) -> Lease {
        let revoked = self.revoked.contains(&tenant);
        Lease {
            tenant,
            lease: (!revoked).then_some(LeaseId(1)),
            remaining_ms: if revoked { 0 } else { LEASE_MS },
            epoch: 1,
            kek_id: None,
            active_kek: KekVersion(1),
            lowest_kek: KekVersion(1),
            state: if revoked {
                TenantState::Revoked(RevokeReason::Disabled)
            } else if self.unverified.contains(&tenant) {
                TenantState::Unverified
            } else {
                TenantState::Active
            },
        }
    }
}

async fn acquire(State(fake): State<Shared>, Json(asked): Json<Acquire>) -> Json<LeaseAnswer> {
    let mut fake = fake.lock().unwrap();
    fake.acquired += 1;
    let leases = asked.tenants.iter().map(|t| fake.lease(*t)).collect();
    let seqno = asked.seqno;
    Json(LeaseAnswer { seqno, leases })
}

async fn renew(State(fake): State<Shared>, Json(asked): Json<Renew>) -> Json<RenewAnswer> {
    let mut fake = fake.lock().unwrap();
    let before = fake.rounds.get(&asked.node).cloned();
    let about = Round::tenants(before.as_ref(), &asked);
    let answer = match &about {
        None => RenewAnswer::of_unknown_round(asked.seqno),
        Some(tenants) => {
            let leases = tenants.iter().map(|t| fake.lease(*t)).collect();
            let (round, answer) = Round::answer(before.as_ref(), &asked, asked.seqno, leases);
            fake.rounds.insert(asked.node, round);
            answer
        }
    };
    fake.renewals.push(Seen {
        about: about.map(|tenants| tenants.len()),
        added: asked.added.len(),
        dropped: asked.dropped.len(),
        changed: answer.changed.len(),
    });
    Json(answer)
}

struct Served {
    fake: Shared,
    ring: Option<Keyring>,
    shutdown: Shutdown,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

async fn serve() -> Served {
    serve_beside(Vec::new(), BTreeSet::new()).await
}

/// The keymanager that is asked first, before those at `others`.
async fn serve_beside(others: Vec<String>, unverified: BTreeSet<TenantId>) -> Served {
    service::init();
    let fake = Shared::default();
    fake.lock().unwrap().unverified = unverified;
    let router = Router::new()
        .route(PATH_ACQUIRE, post(acquire))
        .route(PATH_RENEW, post(renew))
        .with_state(fake.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = Shutdown::new();
    let served = service::http::serve_on(listener, router, None, shutdown.clone());
    drop(shutdown.spawn("http", served));
    let config = KeyringConfig {
        renew: RENEW,
        drain: Duration::ZERO,
        ..KeyringConfig::new(NodeId(1), [vec![url], others].concat())
    };
    let ring = Some(Keyring::connect(config).unwrap());
    Served {
        fake,
        ring,
        shutdown,
    }
}

impl Served {
    async fn take(&self, tenants: &[TenantId]) -> Vec<TenantKeys> {
        let mut taken = Vec::new();
        for tenant in tenants {
            let ring = self.ring.as_ref().unwrap();
            taken.push(ring.tenant(*tenant).await.unwrap());
        }
        taken
    }

    /// The next `count` renewals that begin from now on.
    async fn next(&self, count: usize) -> Vec<Seen> {
        let from = self.fake.lock().unwrap().renewals.len();
        loop {
            let seen = self.fake.lock().unwrap().renewals.clone();
            if seen.len() >= from + count {
                return seen[from..from + count].to_vec();
            }
            tokio::time::sleep(RENEW / 10).await;
        }
    }
}

fn tenants(count: u16) -> Vec<TenantId> {
    let one = |n: u16| {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&n.to_le_bytes());
        TenantId(id)
    };
    (0..count).map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_thousand_tenants_makes_one_renewal_call_per_period() {
    let served = serve().await;
    let taken = served.take(&tenants(1000)).await;
    drop(served.next(1).await);
    let before: Vec<Duration> = taken.iter().map(|keys| *keys.deadline().borrow()).collect();
    // Every renewal is about every tenant, so that a period has one of them; and nothing crosses
    // the wire but the times, since nothing else changes.
    let all = Seen {
        about: Some(1000),
        added: 0,
        dropped: 0,
        changed: 0,
    };
    assert_eq!(served.next(4).await[1..], [all.clone(), all.clone(), all]);
    let moved = |(keys, before): (&TenantKeys, &Duration)| *keys.deadline().borrow() > *before;
    assert!(taken.iter().zip(&before).all(moved), "K2");
    assert_eq!(served.fake.lock().unwrap().acquired, 1000, "K4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keymanager_that_forgot_is_told_all_tenants_once() {
    let served = serve().await;
    let taken = served.take(&tenants(3)).await;
    drop(served.next(2).await);
    served.fake.lock().unwrap().rounds.clear();
    let seen = served.next(4).await;
    let unknown = seen.iter().position(|seen| seen.about.is_none()).unwrap();
    let whole = Seen {
        about: Some(3),
        added: 3,
        dropped: 0,
        changed: 3,
    };
    assert_eq!(seen[unknown + 1], whole);
    assert_eq!(seen[unknown + 2].added, 0);
    assert!(taken.iter().all(|keys| keys.check().is_ok()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_revoked_ends_alone() {
    let served = serve().await;
    let taken = served.take(&tenants(3)).await;
    drop(served.next(2).await);
    let tenant = taken[1].tenant();
    served.fake.lock().unwrap().revoked.insert(tenant);
    let reason = RevokeReason::Disabled;
    assert_eq!(
        taken[1].closed().await,
        KeyError::Revoked { tenant, reason }
    );
    let seen = served.next(2).await;
    assert_eq!(seen[1].about, Some(2), "it is not asked for any more");
    assert!(taken[0].check().is_ok() && taken[2].check().is_ok());
    // It begins again with an acquisition of its own.
    served.fake.lock().unwrap().revoked.clear();
    drop(served.take(&[tenant]).await);
    assert_eq!(served.next(3).await[2].about, Some(3));
}

/// K2: that another tenant's KMS cannot be asked, and the keymanager that might know more hangs,
/// ends nobody else's lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_keymanager_that_hangs_holds_up_none_that_another_has_renewed() {
    let asked = Arc::new(tokio::sync::Notify::new());
    let arrived = Arc::clone(&asked);
    let hang = move || {
        let arrived = Arc::clone(&arrived);
        async move {
            arrived.notify_one();
            std::future::pending::<()>().await;
        }
    };
    let never = async || std::future::pending::<()>().await;
    let router = Router::new()
        .route(PATH_RENEW, post(hang))
        .route(PATH_ACQUIRE, post(never));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = Shutdown::new();
    let served = service::http::serve_on(listener, router, None, shutdown.clone());
    drop(shutdown.spawn("a keymanager that hangs", served));

    let [sound, unverified] = tenants(2).try_into().unwrap();
    let served = serve_beside(vec![url], BTreeSet::from([unverified])).await;
    let taken = served.take(&[unverified, sound]).await;
    let (before, renewals) = {
        let fake = served.fake.lock().unwrap();
        (*taken[1].deadline().borrow(), fake.renewals.len())
    };
    loop {
        asked.notified().await;
        // Else it was the end of a renewal that began before.
        if served.fake.lock().unwrap().renewals.len() > renewals {
            break;
        }
    }
    assert!(*taken[1].deadline().borrow() > before, "it waited");
    shutdown.request();
}

/// As an agent does that makes a timeline: it takes one lease, and keeps nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_while_somebody_holds_it_and_no_longer() {
    let mut served = serve().await;
    let taken = served.take(&tenants(1)).await;
    drop(served.ring.take());
    let before = *taken[0].deadline().borrow();
    assert_eq!(served.next(2).await[1].about, Some(1));
    assert!(*taken[0].deadline().borrow() > before);
    drop(taken);
    let seen = || served.fake.lock().unwrap().renewals.len();
    loop {
        let before = seen();
        tokio::time::sleep(2 * RENEW).await;
        if seen() == before {
            break;
        }
    }
}
