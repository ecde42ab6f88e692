//! The revocation drill: a keymanager process with a local KMS, and a node's keyring.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of a test fail the test"
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Client;
use api::keys::{
    LedgerTail, Request, RevokeReason, TenantState, TenantStatus, ledger_path, restore_path,
    revoke_path, tenant_path,
};
use ids::{NodeId, TenantId};
use keymanager::kms::local::{KeyState, LocalKms};
use keyring::{KeyError, Keyring, KeyringConfig, TenantKeys};

const TENANT: TenantId = TenantId([6; 16]);
const PROBE: Duration = Duration::from_millis(200);
const LEASE: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(5);
const RENEW: Duration = Duration::from_millis(300);
const DRAIN: Duration = Duration::from_millis(200);
/// For what a busy machine adds to a bound.
const SLACK: Duration = Duration::from_secs(1);

/// A keymanager process; it is killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

struct Drill {
    directory: tempfile::TempDir,
    kms: LocalKms,
}

impl Drill {
    fn new() -> Self {
        service::init();
        let directory = tempfile::tempdir().unwrap();
        let kms = LocalKms::new(&directory.path().join("kms"));
        kms.rotate().unwrap();
        Self { directory, kms }
    }

    /// Starts one more keymanager of the same tenant.
    fn start(&self, name: &str) -> (Process, String) {
        let addr = free_addr();
        let at = self.directory.path().display();
        let text = format!(
            "cell = 'c1'\nledger = '{at}/ledger-{name}'\nlisten = {{ addr = '{addr}' }}\n\
             [bucket]\nurl = 'file://{at}/bucket'\n\
             [timings]\nprobe_ms = {}\nlease_ms = {}\ngrace_ms = {}\nheal_ms = 100\n\
             [[tenants]]\nid = '{TENANT}'\nlocal_kms = '{at}/kms'\n",
            PROBE.as_millis(),
            LEASE.as_millis(),
            GRACE.as_millis(),
        );
        let config = self.directory.path().join(name);
        std::fs::write(&config, text).unwrap();
        (run(&config), format!("http://{addr}"))
    }
}

fn run(config: &Path) -> Process {
    let child = Command::new(env!("CARGO_BIN_EXE_keymanager"))
        .arg("--config")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Process(child.unwrap())
}

fn free_addr() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn client(url: &str) -> Client {
    Client::new(url, None).unwrap()
}

fn connect(keymanagers: Vec<String>) -> Arc<Keyring> {
    connect_with(keymanagers, RENEW)
}

fn connect_with(keymanagers: Vec<String>, renew: Duration) -> Arc<Keyring> {
    let config = KeyringConfig {
        renew,
        drain: DRAIN,
        ..KeyringConfig::new(NodeId(1), keymanagers)
    };
    Arc::new(Keyring::connect(config).unwrap())
}

async fn lease(ring: &Keyring) -> TenantKeys {
    let began = Instant::now();
    loop {
        match ring.tenant(TENANT).await {
            Ok(keys) => return keys,
            Err(error) => assert!(began.elapsed() < 10 * SLACK, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

async fn closed(keys: &TenantKeys, bound: Duration) -> KeyError {
    let closed = tokio::time::timeout(bound + SLACK, keys.closed()).await;
    closed.expect("the lease ends within its bound")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_key_fences_within_the_bound_and_an_enabled_one_opens_old_slots() {
    let drill = Drill::new();
    let (_process, url) = drill.start("a");
    let ring = connect(vec![url]);
    let keys = lease(&ring).await;
    let (minted, slot) = keys.mint().await.unwrap();
    let bytes = minted.with(|dek| *dek.expose()).unwrap();

    drill.kms.set_state(KeyState::Disabled).unwrap();
    let why = closed(&keys, PROBE + RENEW).await;
    let revoked = KeyError::Revoked {
        tenant: TENANT,
        reason: RevokeReason::Disabled,
    };
    assert_eq!(why, revoked);
    assert_eq!(keys.fenced().await, RevokeReason::Disabled);
    assert_eq!(minted.with(|_| ()), Err(revoked.clone()), "K6");
    until("nothing is held", || ring.held() == 0).await;
    assert_eq!(keys.open(&slot).await.err(), Some(revoked.clone()));
    assert_eq!(keys.mint().await.err(), Some(revoked.clone()));
    assert_eq!(ring.tenant(TENANT).await.err(), Some(revoked));

    drill.kms.set_state(KeyState::Enabled).unwrap();
    let healed = lease(&ring).await;
    assert!(healed.epoch() > keys.epoch());
    let opened = healed.open(&slot).await.unwrap();
    assert_eq!(opened.with(|dek| *dek.expose()).unwrap(), bytes);
    let (_, fresh) = healed.mint().await.unwrap();
    assert!(fresh.kek_version() > slot.kek_version(), "K8");
    assert!(keys.check().is_err() && minted.with(|_| ()).is_err());
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < 10 * SLACK, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn status(client: &Client, wanted: impl Fn(&TenantStatus) -> bool) -> TenantStatus {
    let began = Instant::now();
    loop {
        let asked: Result<TenantStatus, _> = client.get(&tenant_path(TENANT)).await;
        match asked {
            Ok(status) if wanted(&status) => return status,
            other => assert!(began.elapsed() < 10 * SLACK, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Renewals are too rare to tell within the time of this test: it is the push that fences.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_fences_at_once_whoever_granted_and_only_its_counterpart_lifts_it() {
    const RARELY: Duration = Duration::from_secs(60);
    let drill = Drill::new();
    let ((one, first), (_two, second)) = (drill.start("a"), drill.start("b"));
    let ring = connect_with(vec![first.clone(), second.clone()], RARELY);
    let keys = lease(&ring).await;
    drop(keys.mint().await.unwrap());
    assert!(ring.held() > 0);
    // The cursors of both watches.
    tokio::time::sleep(Duration::from_millis(300)).await;

    let (a, b) = (client(&first), client(&second));
    let request = Request {
        reason: "a drill".to_owned(),
        by: Some("its owner".to_owned()),
    };
    let began = Instant::now();
    let other: TenantStatus = b.post(&revoke_path(TENANT), &request).await.unwrap();
    let requested = TenantState::Revoked(RevokeReason::Requested);
    assert_eq!(other.state, requested);
    let revoked = KeyError::Revoked {
        tenant: TENANT,
        reason: RevokeReason::Requested,
    };
    assert_eq!(closed(&keys, SLACK).await, revoked, "K7");
    assert!(began.elapsed() < Duration::from_secs(5), "K7");
    until("nothing is held", || ring.held() == 0).await;
    assert_eq!(keys.remaining(), Duration::ZERO);
    let drained = |s: &TenantStatus| s.leases.iter().any(|l| l.drained_at_ms.is_some());
    let shown = status(&b, drained).await;
    assert_eq!(shown.requested.unwrap().by.as_deref(), Some("its owner"));

    assert_eq!(ring.tenant(TENANT).await.err(), Some(revoked.clone()));
    let only_a = connect(vec![first.clone()]);
    assert_eq!(
        only_a.tenant(TENANT).await.err(),
        Some(revoked.clone()),
        "K7"
    );
    drop(one);
    let (_again, third) = drill.start("c");
    let shown = status(&client(&third), |s| s.state == requested).await;
    assert_eq!((shown.t_ok_age_ms, shown.active_kek_version.0), (None, 0));
    tokio::time::sleep(3 * PROBE).await;
    let only_c = connect(vec![third]);
    assert_eq!(
        only_c.tenant(TENANT).await.err(),
        Some(revoked),
        "no success lifts it"
    );

    drop(a);
    let _: TenantStatus = b.post(&restore_path(TENANT), &request).await.unwrap();
    let healed = lease(&only_c).await;
    let (_, slot) = healed.mint().await.unwrap();
    assert!(slot.kek_version().0 > 1, "K8");
    let tail: LedgerTail = b.get(&ledger_path(TENANT, 50)).await.unwrap();
    let whats: Vec<_> = tail.records.iter().map(|r| r["what"].clone()).collect();
    for what in ["requested", "fence", "fence_done"] {
        assert!(whats.iter().any(|w| w == what), "{what}: {whats:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_keymanager_the_lease_ends_by_itself_and_nobody_says_revoked() {
    let drill = Drill::new();
    let (process, url) = drill.start("a");
    let ring = connect(vec![url]);
    let keys = lease(&ring).await;
    let (minted, _) = keys.mint().await.unwrap();
    tokio::time::sleep(LEASE + LEASE / 2).await;
    assert_eq!(keys.check(), Ok(()), "renewals carry it beyond one lease");

    drop(process);
    tokio::time::sleep(RENEW).await;
    assert!(minted.with(|_| ()).is_ok(), "a lease outlives its granter");
    let why = closed(&keys, LEASE).await;
    assert!(matches!(why, KeyError::Unreachable { .. }), "{why}");
    assert_eq!(minted.with(|_| ()), Err(why));
    let asked = ring.tenant(TENANT).await.err();
    assert!(
        matches!(asked, Some(KeyError::Unreachable { .. })),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_keymanager_renews() {
    let drill = Drill::new();
    let (first, one) = drill.start("a");
    drop(lease(&connect(vec![one.clone()])).await);
    let (_second, two) = drill.start("b");
    drop(lease(&connect(vec![two.clone()])).await);
    let ring = connect(vec![one, two]);
    let keys = lease(&ring).await;
    drop(first);
    tokio::time::sleep(2 * LEASE).await;
    assert_eq!(keys.check(), Ok(()), "K3");
    assert!(keys.mint().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_kms_is_served_until_its_grace_ends() {
    let drill = Drill::new();
    let (_process, url) = drill.start("a");
    let ring = connect(vec![url]);
    let keys = lease(&ring).await;
    let (minted, slot) = keys.mint().await.unwrap();

    // Moved away: a mode would not keep root from reading it.
    let kms = drill.directory.path().join("kms");
    std::fs::rename(&kms, drill.directory.path().join("away")).unwrap();
    tokio::time::sleep(LEASE + LEASE / 2).await;
    assert!(minted.with(|_| ()).is_ok(), "K3: inside the grace");
    assert!(keys.open(&slot).await.is_ok());
    let why = closed(&keys, GRACE).await;
    assert!(!matches!(why, KeyError::Revoked { .. }), "{why}");
    assert!(minted.with(|_| ()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_wait_for_a_lease_one_request_is_sent() {
    let drill = Drill::new();
    let (_process, url) = drill.start("a");
    let (_, slot) = lease(&connect(vec![url.clone()]))
        .await
        .mint()
        .await
        .unwrap();
    let ledger = drill.directory.path().join("ledger-a");
    let sent = || {
        let text = std::fs::read_to_string(&ledger).unwrap();
        text.matches(r#""what":"lease""#).count()
    };
    let before = sent();
    let ring = connect(vec![url]);
    let (one, two, three) = tokio::join!(
        ring.tenant(TENANT),
        ring.tenant(TENANT),
        ring.tenant(TENANT)
    );
    assert!(two.is_ok() && three.is_ok());
    assert_eq!(sent(), before + 1);
    let keys = one.unwrap();
    let (first, second) = tokio::join!(keys.open(&slot), keys.open(&slot));
    assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()), "K6");

    let mut broken = slot.clone();
    broken.0[ids::WRAP_SLOT_BYTES - 1] ^= 1;
    let (_, other) = keys.mint().await.unwrap();
    let many = keys.open_many(&[other, broken, slot]).await.unwrap();
    let good: Vec<bool> = many.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, false, true]);
}
