//! A keymanager process whose tenant has its key in AWS KMS: against a stub that answers every
//! error class (KEYS.md, part 3), and, where `REDOUBT_TEST_KMS` names one, against another KMS.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of a test fail the test"
)]

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::Client;
use api::keys::{
    Acquire, Lease, LeaseAnswer, MintBatch, PATH_ACQUIRE, PATH_MINT, PATH_UNWRAP, RevokeReason,
    TenantState, UnwrapBatch, decode_minted, decode_unwrapped,
};
use aws_config::{BehaviorVersion, Region};
use aws_sdk_kms::config::Credentials;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ids::{KekVersion, NodeId, TenantId};
use serde_json::{Value, json};

const TENANT: TenantId = TenantId([6; 16]);
const NODE: NodeId = NodeId(1);
const KEY: &str = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555";

/// A keymanager process; it is killed when dropped.
struct Process {
    child: Child,
    client: Client,
    _directory: tempfile::TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn run(key: &str, endpoint: &str) -> Process {
    service::init();
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().display();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let text = format!(
        "cell = 'c1'\nledger = '{at}/ledger'\nlisten = {{ addr = '{addr}' }}\n\
         [bucket]\nurl = 'file://{at}/bucket'\n\
         [timings]\nprobe_ms = 100\nlease_ms = 4000\nstrike_ms = 1000\nheal_ms = 100\n\
         [[tenants]]\nid = '{TENANT}'\naws = {{ key = '{key}', endpoint = '{endpoint}' }}\n"
    );
    let config = directory.path().join("config.toml");
    std::fs::write(&config, text).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_keymanager"))
        .arg("--config")
        .arg(&config)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Process {
        child,
        client: Client::new(&format!("http://{addr}"), None).unwrap(),
        _directory: directory,
    }
}

impl Process {
    async fn until(&self, what: &str, wanted: impl Fn(&Lease) -> bool) -> Lease {
        let began = Instant::now();
        let mut last = None;
        while began.elapsed() < Duration::from_secs(20) {
            let request = Acquire {
                node: NODE,
                tenants: vec![TENANT],
                seqno: 1,
            };
            let asked: Result<LeaseAnswer, _> = self.client.post(PATH_ACQUIRE, &request).await;
            if let Ok(answer) = asked {
                let [lease] = answer.leases.try_into().unwrap();
                if wanted(&lease) {
                    return lease;
                }
                last = Some(lease);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{what}: it did not come to that, but stays at {last:?}")
    }

    async fn until_active(&self) -> Lease {
        let serves = |lease: &Lease| lease.state == TenantState::Active && lease.lease.is_some();
        self.until("serves", serves).await
    }

    async fn until_revoked(&self, reason: RevokeReason) {
        let state = TenantState::Revoked(reason);
        let lease = self.until("refused", |lease| lease.state == state).await;
        assert_eq!(lease.lease, None);
    }
}

#[derive(Clone, Copy)]
enum Fault {
    None,
    Code(u16, &'static str),
    Garbage,
    Silence,
}

/// As much of a KMS as the keymanager asks for.
struct Stub {
    fault: Mutex<Fault>,
    /// The plaintext and the context of each ciphertext, which is its index.
    wrapped: Mutex<Vec<([u8; 32], Value)>>,
    decrypts: Mutex<u32>,
}

impl Stub {
    async fn begin() -> (Arc<Self>, String) {
        let stub = Arc::new(Self {
            fault: Mutex::new(Fault::None),
            wrapped: Mutex::default(),
            decrypts: Mutex::new(0),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/", post(answer))
            .with_state(stub.clone());
        drop(service::task::spawn("stub", async move {
            axum::serve(listener, router).await.unwrap();
        }));
        (stub, url)
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
        *self.decrypts.lock().unwrap() = 0;
    }

    fn serve(&self, target: &str, body: &Value) -> Response {
        assert_eq!(body["KeyId"], KEY, "every request names the key");
        let context = body["EncryptionContext"].clone();
        assert_eq!(context["tenant"], TENANT.to_string());
        let mut wrapped = self.wrapped.lock().unwrap();
        match target {
            "TrentService.GenerateDataKeyWithoutPlaintext" => {
                assert_eq!(body["NumberOfBytes"], 32);
                let number = u8::try_from(wrapped.len()).unwrap();
                wrapped.push(([number + 1; 32], context));
                let blob = STANDARD.encode([number]);
                ok(&json!({ "CiphertextBlob": blob, "KeyId": KEY }))
            }
            "TrentService.Decrypt" => {
                let blob = STANDARD.decode(body["CiphertextBlob"].as_str().unwrap());
                let (plaintext, made_for) = &wrapped[usize::from(blob.unwrap()[0])];
                if *made_for != context {
                    return refusal(400, "InvalidCiphertextException");
                }
                ok(&json!({ "Plaintext": STANDARD.encode(plaintext), "KeyId": KEY }))
            }
            other => panic!("{other} is not in the key policy that is asked for"),
        }
    }
}

async fn answer(State(stub): State<Arc<Stub>>, headers: HeaderMap, body: String) -> Response {
    let target = headers["x-amz-target"].to_str().unwrap();
    *stub.decrypts.lock().unwrap() += u32::from(target.ends_with("Decrypt"));
    let fault = *stub.fault.lock().unwrap();
    match fault {
        Fault::None => stub.serve(target, &serde_json::from_str(&body).unwrap()),
        Fault::Code(status, code) => refusal(status, code),
        Fault::Garbage => (StatusCode::OK, "<html>a captive portal</html>").into_response(),
        Fault::Silence => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            StatusCode::OK.into_response()
        }
    }
}

fn ok(body: &Value) -> Response {
    let kind = [("content-type", "application/x-amz-json-1.1")];
    (kind, body.to_string()).into_response()
}

fn refusal(status: u16, code: &str) -> Response {
    let body = json!({ "__type": code, "message": "a test says so" });
    (StatusCode::from_u16(status).unwrap(), ok(&body)).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_revoke_after_two_strikes_and_heal_with_a_new_version() {
    let (stub, url) = Stub::begin().await;
    let process = run(KEY, &url);
    assert_eq!(process.until_active().await.active_kek, KekVersion(1));
    let mut version = 1;
    for (code, reason, strikes) in [
        ("AccessDeniedException", RevokeReason::AccessDenied, 2),
        ("NotFoundException", RevokeReason::NotFound, 2),
        ("KMSInvalidStateException", RevokeReason::PendingDeletion, 2),
        ("DisabledException", RevokeReason::Disabled, 1),
    ] {
        stub.set(Fault::Code(400, code));
        process.until_revoked(reason).await;
        let asked = *stub.decrypts.lock().unwrap();
        assert!(asked >= strikes, "K8: {code} counts after {asked}");
        stub.set(Fault::None);
        let healed = process.until_active().await;
        version += 1;
        assert_eq!(healed.active_kek, KekVersion(version), "K8: {code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_refusal_is_an_outage_and_serving_goes_on() {
    let (stub, url) = Stub::begin().await;
    let process = run(KEY, &url);
    process.until_active().await;
    for fault in [
        Fault::Code(400, "ThrottlingException"),
        Fault::Code(500, "KMSInternalException"),
        Fault::Code(500, "KeyUnavailableException"),
        Fault::Code(503, "AccessDeniedException"),
        Fault::Code(400, "UnrecognizedClientException"),
        Fault::Code(400, "NobodyKnowsThisException"),
        Fault::Garbage,
        Fault::Silence,
    ] {
        stub.set(fault);
        let unverified = |lease: &Lease| lease.state == TenantState::Unverified;
        let lease = process.until("unverified", unverified).await;
        assert!(lease.lease.is_some(), "K3: {lease:?}");
        assert_eq!(lease.active_kek, KekVersion(1));
        stub.set(Fault::None);
        process.until_active().await;
    }
    stub.set(Fault::Code(400, "InvalidCiphertextException"));
    while *stub.decrypts.lock().unwrap() < 3 {
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let ended = |lease: &Lease| lease.lease.is_none();
    let lease = process.until("no lease", ended).await;
    assert!(
        !matches!(lease.state, TenantState::Revoked(_)),
        "a broken document is never a revocation: {lease:?}"
    );
}

/// The states of a key as another implementation has them; `make servers` runs it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a KMS: REDOUBT_TEST_KMS"]
async fn states_of_a_key_revoke_and_heal() {
    let url = std::env::var("REDOUBT_TEST_KMS").unwrap();
    let http = aws_smithy_http_client::Builder::new().build_http();
    let sdk = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .region(Region::new("eu-central-1"))
        .endpoint_url(&url)
        .load()
        .await;
    let owner = aws_sdk_kms::Client::new(&sdk);
    let key = owner
        .create_key()
        .send()
        .await
        .unwrap()
        .key_metadata
        .unwrap();
    let (id, arn) = (key.key_id, key.arn.unwrap());
    let process = run(&arn, &url);
    let before = process.until_active().await;
    let mint = MintBatch {
        node: NODE,
        tenant: TENANT,
        lease: before.lease.unwrap(),
        count: 1,
    };
    let body = process.client.post_bytes(PATH_MINT, &mint).await.unwrap();
    let [(dek, slot)] = decode_minted(&body).unwrap().try_into().ok().unwrap();

    owner.disable_key().key_id(&id).send().await.unwrap();
    process.until_revoked(RevokeReason::Disabled).await;
    owner.enable_key().key_id(&id).send().await.unwrap();
    process.until_active().await;
    let days = owner.schedule_key_deletion().key_id(&id);
    days.pending_window_in_days(7).send().await.unwrap();
    process.until_revoked(RevokeReason::PendingDeletion).await;
    owner
        .cancel_key_deletion()
        .key_id(&id)
        .send()
        .await
        .unwrap();
    owner.enable_key().key_id(&id).send().await.unwrap();
    let healed = process.until_active().await;
    assert_eq!(healed.active_kek, KekVersion(3), "K8");

    let unwrap = UnwrapBatch {
        node: NODE,
        tenant: TENANT,
        lease: healed.lease.unwrap(),
        slots: vec![slot],
    };
    let body = process.client.post_bytes(PATH_UNWRAP, &unwrap).await;
    let opened = decode_unwrapped(&body.unwrap()).unwrap();
    assert!(matches!(&opened[0], Ok(opened) if opened.expose() == dek.expose()));
}
