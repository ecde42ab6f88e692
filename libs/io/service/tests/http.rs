//! HTTP with and without mutual TLS.
#![allow(missing_docs, clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;

use api::{Client, Grade};
use axum::Router;
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use service::http::{self, ApiError};
use service::task::Shutdown;
use service::tls::TlsIdentity;
use tokio::net::TcpListener;

/// An authority, and a directory for each of its members.
fn authority(directories: &[&Path]) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    for directory in directories {
        let own = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let cert = CertificateParams::new(names)
            .unwrap()
            .signed_by(&own, &issuer)
            .unwrap();
        std::fs::write(directory.join("ca.pem"), ca.pem()).unwrap();
        std::fs::write(directory.join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(directory.join("key.pem"), own.serialize_pem()).unwrap();
    }
}

async fn begin(identity: Option<TlsIdentity>) -> (SocketAddr, Shutdown) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, shutdown) = (listener.local_addr().unwrap(), Shutdown::new());
    let router = Router::new()
        .route("/v1/seven", get(async || axum::Json(7)))
        .route(
            "/v1/locked",
            get(async || {
                let refused = ApiError::new(Grade::KeyUnavailable, "locked").hint("wait");
                Err::<(), _>(refused)
            }),
        );
    let stop = shutdown.clone();
    drop(shutdown.spawn("http", http::serve_on(listener, router, identity, stop)));
    (addr, shutdown)
}

#[tokio::test]
async fn both_sides_have_to_be_of_the_authority() {
    service::init();
    let (server, friend, stranger) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    authority(&[server.path(), friend.path()]);
    authority(&[stranger.path()]);
    let (addr, _shutdown) = begin(Some(TlsIdentity::load(server.path()).unwrap())).await;
    let base = format!("https://{addr}");

    let client = Client::new(&base, Some(friend.path())).unwrap();
    assert_eq!(client.get::<u32>("/v1/seven").await.unwrap(), 7);
    let client = Client::new(&base, Some(stranger.path())).unwrap();
    assert!(client.get::<u32>("/v1/seven").await.is_err());

    // Believes the server, but is not of its authority.
    std::fs::copy(server.path().join("ca.pem"), stranger.path().join("ca.pem")).unwrap();
    let client = Client::new(&base, Some(stranger.path())).unwrap();
    assert!(client.get::<u32>("/v1/seven").await.is_err());
}

#[tokio::test]
async fn refusals_carry_grade_and_hint() {
    service::init();
    let (addr, shutdown) = begin(None).await;
    let client = Client::new(&format!("http://{addr}"), None).unwrap();
    let refused = client.get::<()>("/v1/locked").await.unwrap_err();
    assert_eq!(refused.grade(), Grade::KeyUnavailable);
    assert_eq!(refused.to_string(), "locked (wait) [423]");
    let refused = client.get::<()>("/nowhere").await.unwrap_err();
    assert_eq!(refused.grade(), Grade::FixRequest);
    let refused = client.get::<()>("/ready").await.unwrap_err();
    assert_eq!(refused.grade(), Grade::Retry);
    shutdown.request();
    shutdown.finished().await;
}
