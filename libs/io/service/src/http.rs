//! HTTP: routes of a process with `/metrics`, `/health` and `/ready`, and errors as JSON.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use api::{ErrorBody, Grade};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use ids::TenantId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::listen::{Listen, ListenError};
use crate::metrics;
use crate::task::Shutdown;
use crate::tls::TlsIdentity;
use crate::token::{Claims, Scope, Verifier};

/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way at one time.
const HANDSHAKES: usize = 256;

/// A refusal, as handlers return it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ApiError(pub ErrorBody);

impl ApiError {
    /// A refusal of `grade`.
    pub fn new(grade: Grade, error: impl ToString) -> Self {
        Self(ErrorBody {
            error: error.to_string(),
            grade,
            hint: None,
        })
    }

    /// With a hint for people.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.grade.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.0)).into_response()
    }
}

/// Who sent a request, by its bearer token; what that allows is still to be asked.
///
/// # Errors
/// No token, or a refused one.
pub fn bearer(headers: &HeaderMap, verifier: &Verifier) -> Result<Claims, ApiError> {
    let refuse = |why: String| ApiError::new(Grade::FixRequest, why);
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .ok_or_else(|| refuse("no bearer token".to_owned()))?;
    verifier.verify(token).map_err(|e| refuse(e.to_string()))
}

/// Checks the bearer token of a request.
///
/// # Errors
/// No token, a refused one, or one that does not allow `scope` for `tenant`.
pub fn authorize(
    headers: &HeaderMap,
    verifier: &Verifier,
    scope: Scope,
    tenant: Option<TenantId>,
) -> Result<Claims, ApiError> {
    let claims = bearer(headers, verifier)?;
    allow(&claims, scope, tenant).map(|()| claims)
}

/// Checks what a bearer may do.
///
/// # Errors
/// The token does not allow `scope` for `tenant`.
pub fn allow(claims: &Claims, scope: Scope, tenant: Option<TenantId>) -> Result<(), ApiError> {
    if claims.allow(scope, tenant) {
        return Ok(());
    }
    let why = "the token does not allow this";
    Err(ApiError::new(Grade::FixRequest, why))
}

/// Whether the process can do its work; `/ready` says so. Not ready until said.
#[derive(Debug)]
pub struct Readiness(Mutex<Result<(), String>>);

impl Readiness {
    /// Ready, or why not.
    pub fn set(&self, state: Result<(), String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn get(&self) -> Result<(), String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The readiness of this process.
pub fn readiness() -> &'static Readiness {
    static READINESS: OnceLock<Readiness> = OnceLock::new();
    READINESS.get_or_init(|| Readiness(Mutex::new(Err("starting".to_owned()))))
}

/// Listens on `listen` and answers until `shutdown`. With an identity clients have to show a
/// certificate of the same authority.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    listen: impl Into<Listen>,
    router: Router,
    identity: Option<TlsIdentity>,
    shutdown: Shutdown,
) -> Result<(), ListenError> {
    let listener = listen.into().bind().await?;
    serve_on(listener, router, identity, shutdown).await;
    Ok(())
}

/// As [`serve`], on a listener that exists.
pub async fn serve_on(
    listener: TcpListener,
    router: Router,
    identity: Option<TlsIdentity>,
    shutdown: Shutdown,
) {
    let router = router
        .route("/metrics", get(show_metrics))
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(show_readiness))
        .fallback(async || {
            let refused = ApiError::new(Grade::FixRequest, "there is nothing under this path");
            (StatusCode::NOT_FOUND, Json(refused.0))
        });
    let stop = shutdown.clone();
    let until = async move { stop.requested().await };
    let ended = match identity {
        None => {
            axum::serve(listener, router)
                .with_graceful_shutdown(until)
                .await
        }
        Some(identity) => {
            let secured = TlsListener::begin(listener, &identity, &shutdown);
            axum::serve(secured, router)
                .with_graceful_shutdown(until)
                .await
        }
    };
    if let Err(error) = ended {
        tracing::error!(%error, "the HTTP listener ended");
    }
}

async fn show_metrics() -> Result<String, ApiError> {
    metrics::render().map_err(|e| ApiError::new(Grade::Bug, e))
}

async fn show_readiness() -> Result<&'static str, ApiError> {
    readiness()
        .get()
        .map(|()| "ready\n")
        .map_err(|why| ApiError::new(Grade::Retry, why))
}

/// Handshakes happen beside each other: a client that is slow with its own holds up nobody.
struct TlsListener {
    accepted: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local: io::Result<SocketAddr>,
}

impl TlsListener {
    fn begin(listener: TcpListener, identity: &TlsIdentity, shutdown: &Shutdown) -> Self {
        let local = listener.local_addr();
        let (sender, accepted) = mpsc::channel(16);
        let acceptor = TlsAcceptor::from(identity.server());
        let stop = shutdown.clone();
        drop(shutdown.spawn("tls accept", async move {
            tokio::select! {
                () = stop.requested() => {}
                () = accept_all(listener, acceptor, sender, stop.clone()) => {}
            }
        }));
        Self { accepted, local }
    }
}

async fn accept_all(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    sender: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
    shutdown: Shutdown,
) {
    let room = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others close some in the meantime.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        drop(shutdown.spawn("tls handshake", async move {
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(secured)) => drop(sender.send((secured, peer)).await),
                Ok(Err(error)) => tracing::info!(%peer, %error, "TLS refused"),
                Err(_) => tracing::info!(%peer, "TLS handshake given up"),
            }
            drop(permit);
        }));
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            // The acceptor ends with the shutdown, which ends the server too.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.local {
            Ok(addr) => Ok(*addr),
            Err(error) => Err(error.kind().into()),
        }
    }
}
