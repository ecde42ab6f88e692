//! A keymanager over HTTP, with a local bucket and a local KMS.

use std::collections::BTreeSet;
use std::time::Duration;

use api::Client;
use api::keys::{
    Acquire, FenceDone, KeyErrorKind, Lease, LeaseAnswer, MintBatch, PATH_ACQUIRE, PATH_FENCE_DONE,
    PATH_MINT, PATH_RENEW, PATH_UNWRAP, PATH_WATCH, RenewAnswer, Request, RevokeReason, Round,
    TenantState, TenantStatus, UnwrapBatch, Watch, WatchAnswer, decode_minted, decode_unwrapped,
    revoke_path,
};
use ids::{Generation, KekVersion, NodeId, WrapSlot};
use service::http;
use service::token::{Claims, Placement, Scope, Signer};
use tokio::net::TcpListener;

use super::config::Config;
use super::*;
use crate::kms::local::{KeyState, LocalKms};

const TENANT: TenantId = TenantId([6; 16]);
const NODE: NodeId = NodeId(1);

struct Served {
    directory: tempfile::TempDir,
    kms: LocalKms,
    client: Client,
    shutdown: Shutdown,
}

async fn serve() -> Served {
    serve_with("").await
}

/// `settings` may name files in `{at}`, the test's own directory.
async fn serve_with(settings: &str) -> Served {
    service::init();
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().display();
    let settings = settings.replace("{at}", &at.to_string());
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    std::fs::write(directory.path().join("private.pem"), pair.serialize_pem()).unwrap();
    std::fs::write(directory.path().join("public.pem"), pair.public_key_pem()).unwrap();
    let text = format!(
        "{settings}\ncell = 'c1'\nledger = '{at}/ledger'\nlisten = {{ addr = '127.0.0.1:0' }}\n\
         [bucket]\nurl = 'file://{at}/bucket'\n\
         [timings]\nprobe_ms = 200\nlease_ms = 2000\nheal_ms = 100\n\
         [[tenants]]\nid = '{TENANT}'\nlocal_kms = '{at}/kms'\n"
    );
    let path = directory.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let kms = LocalKms::new(&directory.path().join("kms"));
    kms.rotate().unwrap();

    let config: Config = service::config::load(&path).unwrap();
    let keymanager = config.open().await.unwrap();
    let (listener, shutdown) = (
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        Shutdown::new(),
    );
    let addr = listener.local_addr().unwrap();
    keymanager.begin(&shutdown);
    let served = http::serve_on(listener, router(keymanager), None, shutdown.clone());
    drop(shutdown.spawn("http", served));
    let client = Client::new(&format!("http://{addr}"), None).unwrap();
    Served {
        directory,
        kms,
        client,
        shutdown,
    }
}

impl Served {
    async fn lease(&self, tenant: TenantId) -> Lease {
        let request = Acquire {
            node: NODE,
            tenants: vec![tenant],
            seqno: 3,
        };
        let answer: LeaseAnswer = self.client.post(PATH_ACQUIRE, &request).await.unwrap();
        assert_eq!(answer.seqno, 3);
        let [lease] = answer.leases.try_into().unwrap();
        lease
    }

    async fn until(&self, wanted: impl Fn(&Lease) -> bool) -> Lease {
        for _ in 0..200 {
            let lease = self.lease(TENANT).await;
            if wanted(&lease) {
                return lease;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("it did not come to that within 5 s")
    }

    async fn mint(&self, lease: &Lease) -> Result<bytes::Bytes, api::ClientError> {
        let request = MintBatch {
            node: NODE,
            tenant: TENANT,
            lease: lease.lease.unwrap(),
            count: 2,
        };
        self.client.post_bytes(PATH_MINT, &request).await
    }

    async fn unwrap(
        &self,
        lease: &Lease,
        slots: Vec<WrapSlot>,
    ) -> Result<bytes::Bytes, api::ClientError> {
        let request = UnwrapBatch {
            node: NODE,
            tenant: TENANT,
            lease: lease.lease.unwrap(),
            slots,
        };
        self.client.post_bytes(PATH_UNWRAP, &request).await
    }

    fn ledger(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("ledger")).unwrap()
    }
}

#[tokio::test]
async fn a_node_mints_and_unwraps_under_its_lease_and_all_is_recorded() {
    let served = serve().await;
    let lease = served.until(|lease| lease.lease.is_some()).await;
    assert_eq!(lease.state, TenantState::Active);
    assert!((1..=2000).contains(&lease.remaining_ms), "K2: {lease:?}");
    assert_eq!(lease.active_kek, KekVersion(1));
    let minted = decode_minted(&served.mint(&lease).await.unwrap()).unwrap();
    assert_eq!(minted.len(), 2);

    let mut broken = minted[1].1.clone();
    broken.0[60] ^= 1;
    let slots = vec![
        minted[0].1.clone(),
        broken,
        WrapSlot([0; ids::WRAP_SLOT_BYTES]),
    ];
    let body = served.unwrap(&lease, slots).await.unwrap();
    let opened = decode_unwrapped(&body).unwrap();
    assert!(matches!(&opened[0], Ok(dek) if dek.expose() == minted[0].0.expose()));
    assert!(matches!(opened[1], Err(KeyErrorKind::BrokenSlot)));
    assert!(matches!(opened[2], Err(KeyErrorKind::UnknownKek)));

    let ledger = served.ledger();
    assert!(ledger.contains(r#""what":"mint""#) && ledger.contains(r#""what":"unwrap""#));
    assert!(!ledger.contains(&hex::encode(minted[0].0.expose())));
    served.shutdown.request();
    served.shutdown.finished().await;
    drop(Ledger::open(&served.directory.path().join("ledger")).unwrap());
}

#[tokio::test]
async fn a_renewal_tells_changes_alone_and_is_one_record() {
    let served = serve().await;
    let first = served.until(|lease| lease.lease.is_some()).await;
    // One that is served here, and one that is not.
    let wanted = BTreeSet::from([TENANT, TenantId([7; 16])]);
    let mut round: Option<Round> = None;
    for (seqno, changed) in [(1, 2), (2, 0), (3, 0)] {
        let request = Round::ask(round.as_ref(), NODE, seqno, &wanted);
        let answer: RenewAnswer = served.client.post(PATH_RENEW, &request).await.unwrap();
        assert_eq!((answer.seqno, answer.changed.len()), (seqno, changed));
        let (next, leases) = Round::read(round, &wanted, answer).unwrap().unwrap();
        let states: Vec<_> = leases.iter().map(|lease| lease.state).collect();
        assert_eq!(states, [TenantState::Active, TenantState::Unknown]);
        assert_eq!(leases[0].lease, first.lease, "it goes on");
        assert!((1..=2000).contains(&leases[0].remaining_ms), "K2");
        round = Some(next);
    }
    let stale = Round::ask(None, NODE, 4, &wanted);
    let stale = api::keys::Renew {
        round: Some(1),
        ..stale
    };
    let answer: RenewAnswer = served.client.post(PATH_RENEW, &stale).await.unwrap();
    assert_eq!((answer.round, answer.remaining_ms.len()), (None, 0));
    let ledger = served.ledger();
    let renewals = ledger
        .lines()
        .filter(|line| line.contains(r#""renewed":1"#));
    assert_eq!(renewals.count(), 2, "K4: one record per batch");
}

#[tokio::test]
async fn nothing_is_given_without_a_lease() {
    let served = serve().await;
    let mut lease = served.until(|lease| lease.lease.is_some()).await;
    lease.lease = lease.lease.map(|id| api::keys::LeaseId(id.0 ^ 1));
    let refused = served.mint(&lease).await.unwrap_err();
    assert_eq!(refused.grade(), KeyErrorKind::LeaseEnded.grade());
    let stranger = served.lease(TenantId([7; 16])).await;
    assert_eq!(
        (stranger.lease, stranger.state),
        (None, TenantState::Unknown)
    );
    assert!(served.ledger().contains(r#""refused":"lease_ended""#));
}

#[tokio::test]
async fn a_disabled_key_fences_and_heals_with_a_new_version() {
    let served = serve().await;
    let before = served.until(|lease| lease.lease.is_some()).await;
    let minted = decode_minted(&served.mint(&before).await.unwrap()).unwrap();
    served.kms.set_state(KeyState::Disabled).unwrap();
    let fenced = served
        .until(|lease| lease.state == TenantState::Revoked(RevokeReason::Disabled))
        .await;
    assert!(fenced.lease.is_none() && fenced.epoch > before.epoch);
    for refused in [
        served.mint(&before).await,
        served.unwrap(&before, vec![minted[0].1.clone()]).await,
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.grade(), api::Grade::KeyUnavailable);
    }
    served.kms.set_state(KeyState::Enabled).unwrap();
    let healed = served.until(|lease| lease.lease.is_some()).await;
    assert_eq!(healed.active_kek, KekVersion(2), "K8");
    assert!(served.mint(&before).await.is_err(), "the old lease is over");
    let body = served
        .unwrap(&healed, vec![minted[0].1.clone()])
        .await
        .unwrap();
    let opened = decode_unwrapped(&body).unwrap();
    assert!(matches!(&opened[0], Ok(dek) if dek.expose() == minted[0].0.expose()));
}

impl Served {
    fn bearer(&self, scope: Scope, tenant: Option<TenantId>) -> Client {
        self.placed(scope, tenant, Some((NODE, 1)))
    }

    fn placed(
        &self,
        scope: Scope,
        tenant: Option<TenantId>,
        placed: Option<(NodeId, u32)>,
    ) -> Client {
        let signer = Signer::load(self.directory.path().join("private.pem")).unwrap();
        let placement = placed.map(|(node, generation)| Placement {
            node,
            generation: Generation(generation),
        });
        let claims = Claims {
            tenant,
            scope,
            exp: service::clock::unix_seconds() + 60,
            placement,
        };
        self.client
            .clone()
            .with_token(signer.sign(&claims).unwrap())
    }
}

#[tokio::test]
async fn tokens_open_their_tenant_alone_and_only_an_operator_revokes() {
    let served = serve_with("token_key = '{at}/public.pem'").await;
    let request = Acquire {
        node: NODE,
        tenants: vec![TENANT],
        seqno: 3,
    };
    let renewal = Round::ask(None, NODE, 3, &BTreeSet::from([TENANT]));
    // A compute has a lease, and no keys.
    let (node, own) = (
        served.bearer(Scope::Node, None),
        served.bearer(Scope::Tenant, Some(TENANT)),
    );
    let lease = loop {
        let answer: LeaseAnswer = own.post(PATH_ACQUIRE, &request).await.unwrap();
        if let Some(lease) = answer.leases[0].lease {
            break lease;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    };
    let mint = MintBatch {
        node: NODE,
        tenant: TENANT,
        lease,
        count: 1,
    };
    assert!(own.post_bytes(PATH_MINT, &mint).await.is_err(), "K4");
    let minted = node.post_bytes(PATH_MINT, &mint).await.unwrap();
    let slots = vec![decode_minted(&minted).unwrap()[0].1.clone()];
    let unwrap = UnwrapBatch {
        node: NODE,
        tenant: TENANT,
        lease,
        slots,
    };
    assert!(own.post_bytes(PATH_UNWRAP, &unwrap).await.is_err(), "K4");
    node.post_bytes(PATH_UNWRAP, &unwrap).await.unwrap();

    let stranger = Some(TenantId([7; 16]));
    let revoke = Request {
        reason: "a test".to_owned(),
        by: None,
    };
    for (client, leases, revokes) in [
        (served.client.clone(), false, false),
        (served.bearer(Scope::Tenant, stranger), false, false),
        (served.bearer(Scope::Node, stranger), false, false),
        (served.bearer(Scope::Tenant, Some(TENANT)), true, false),
        (served.bearer(Scope::Node, None), true, false),
        (served.bearer(Scope::Admin, None), true, true),
    ] {
        let leased = client.post::<_, LeaseAnswer>(PATH_ACQUIRE, &request).await;
        assert_eq!(leased.is_ok(), leases, "K4: {leased:?}");
        let renewed = client.post::<_, RenewAnswer>(PATH_RENEW, &renewal).await;
        assert_eq!(renewed.is_ok(), leases, "K4: {renewed:?}");
        let path = revoke_path(TENANT);
        let revoked = client.post::<_, TenantStatus>(&path, &revoke).await;
        assert_eq!(revoked.is_ok(), revokes, "K7: {revoked:?}");
    }
    let compute = served.bearer(Scope::Tenant, stranger);
    let watch = Watch {
        node: NODE,
        after: 1,
    };
    let answer = tokio::time::timeout(
        Duration::from_millis(300),
        compute.post::<_, WatchAnswer>(PATH_WATCH, &watch),
    );
    assert!(answer.await.is_err(), "fences of others are not told");
    let own = served.bearer(Scope::Tenant, Some(TENANT));
    let answer: WatchAnswer = own.post(PATH_WATCH, &watch).await.unwrap();
    assert_eq!(answer.fences[0].reason, RevokeReason::Requested);
}

#[tokio::test]
async fn a_node_is_who_its_token_says() {
    let served = serve_with("token_key = '{at}/public.pem'").await;
    let acquire = Acquire {
        node: NODE,
        tenants: vec![TENANT],
        seqno: 3,
    };
    let renew = Round::ask(None, NODE, 3, &BTreeSet::from([TENANT]));
    let lease = api::keys::LeaseId(1);
    let (node, tenant) = (NODE, TENANT);
    let mint = MintBatch {
        node,
        tenant,
        lease,
        count: 1,
    };
    let unwrap = UnwrapBatch {
        node,
        tenant,
        lease,
        slots: Vec::new(),
    };
    let watch = Watch { node, after: 0 };
    let done = FenceDone {
        node,
        tenant,
        epoch: 1,
        took_ms: 1,
    };
    let other = served.placed(Scope::Node, None, Some((NodeId(2), 1)));
    let nowhere = served.placed(Scope::Node, None, None);
    let operator = served.placed(Scope::Admin, None, None);
    for (client, why) in [
        (other, "the token is of node 2, the request of 1"),
        (nowhere, "the token places no node"),
        (operator, "the token places no node"),
    ] {
        for refused in [
            client.post_bytes(PATH_ACQUIRE, &acquire).await,
            client.post_bytes(PATH_RENEW, &renew).await,
            client.post_bytes(PATH_MINT, &mint).await,
            client.post_bytes(PATH_UNWRAP, &unwrap).await,
            client.post_bytes(PATH_WATCH, &watch).await,
            client.post_bytes(PATH_FENCE_DONE, &done).await,
        ] {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains(why), "K4: {refused}");
        }
    }
}

#[tokio::test]
async fn an_older_placement_gets_no_renewal_once_a_later_one_has_a_lease() {
    let served = serve_with("token_key = '{at}/public.pem'").await;
    let placed = |generation| served.placed(Scope::Node, None, Some((NODE, generation)));
    let (older, later) = (placed(1), placed(2));
    let wanted = BTreeSet::from([TENANT]);
    let renewed = async |client: &Client| {
        let request = Round::ask(None, NODE, 3, &wanted);
        let answer: RenewAnswer = client.post(PATH_RENEW, &request).await.unwrap();
        let (_, leases) = Round::read(None, &wanted, answer).unwrap().unwrap();
        leases[0].lease
    };
    let began = tokio::time::Instant::now();
    let first = loop {
        if let Some(lease) = renewed(&older).await {
            break lease;
        }
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "a lease is granted"
        );
        tokio::time::sleep(Duration::from_millis(25)).await;
    };
    assert_eq!(renewed(&older).await, Some(first));
    let second = renewed(&later).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(renewed(&older).await, None, "K4");
    assert_eq!(renewed(&later).await, Some(second));
    // Nor do keys go out under the lease that it had.
    let mint = MintBatch {
        node: NODE,
        tenant: TENANT,
        lease: first,
        count: 1,
    };
    assert!(older.post_bytes(PATH_MINT, &mint).await.is_err());
}
