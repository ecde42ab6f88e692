//! Who is let in. The key pair is the first test vector of RFC 8032.

use api::timeline::timelines_path;
use ids::TenantId;
use safekeeper::access::Gate;
use service::token::{Claims, Scope, Signer, Verifier};

use crate::bench::{Server, TENANT};

const PRIVATE: &str = "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g";
const PUBLIC: &str = "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

fn keys(directory: &std::path::Path) -> (Signer, Verifier) {
    let pem = |name: &str, kind: &str, text: &str| {
        let path = directory.join(name);
        let pem = format!("-----BEGIN {kind} KEY-----\n{text}\n-----END {kind} KEY-----\n");
        std::fs::write(&path, pem).unwrap();
        path
    };
    let private = pem("private.pem", "PRIVATE", PRIVATE);
    let public = pem("public.pem", "PUBLIC", PUBLIC);
    (
        Signer::load(private).unwrap(),
        Verifier::load(public).unwrap(),
    )
}

#[tokio::test]
async fn a_token_opens_its_tenant_on_both_listeners_and_no_other() {
    let root = tempfile::tempdir().unwrap();
    let (signer, verifier) = keys(root.path());
    let server = Server::start(root.path(), Gate(Some(verifier))).await;
    let token = |scope, tenant: Option<TenantId>| {
        let exp = service::clock::unix_seconds() + 60;
        let placement = None;
        let claims = Claims {
            tenant,
            scope,
            exp,
            placement,
        };
        signer.sign(&claims).unwrap()
    };
    let own = token(Scope::Tenant, Some(TENANT));
    let node = token(Scope::Node, None);
    let other = token(Scope::Tenant, Some(TenantId([9; 16])));
    for (token, admitted) in [
        (&own, true),
        (&node, true),
        (&other, false),
        (&String::new(), false),
    ] {
        let connected = server.connect("", token).await;
        assert_eq!(connected.is_ok(), admitted);
        if let Err(refused) = connected {
            assert!(refused.contains("28P01"), "{refused}");
        }
        let client = api::Client::new(&format!("http://{}", server.http), None).unwrap();
        let client = client.with_token(token.clone());
        let listed: Result<Vec<safekeeper::http::Listed>, _> =
            client.get(&timelines_path(TENANT)).await;
        assert_eq!(listed.is_ok(), admitted, "{listed:?}");
    }
    server.stop().await;
}
