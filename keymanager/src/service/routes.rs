//! The endpoints for data keys and fences of the contract in `api::keys`. Data keys leave as binary
//! bodies alone.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use api::Grade;
use api::keys::{
    DekBytes, FenceDone, KeyErrorKind, LeaseId, MAX_MINT, MAX_UNWRAP, MintBatch, PATH_FENCE_DONE,
    PATH_MINT, PATH_UNWRAP, PATH_WATCH, UnwrapBatch, Watch, WatchAnswer, encode_minted,
    encode_unwrapped,
};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use ids::{KekVersion, NodeId, TenantId, WrapSlot};
use sealed::{Dek, wrap};
use serde::Serialize;
use service::clock;
use service::entropy::OsEntropy;
use service::http::ApiError;
use service::token::Scope;

use super::{Keymanager, Tenant, unix_ms};
use crate::kek::{KekError, Opened};
use crate::metrics;

type Shared = State<Arc<Keymanager>>;

/// How long a [`Watch`] waits: shorter than a client's patience.
const WATCH: Duration = Duration::from_secs(20);

/// Who gets data keys: nodes of the storage. A tenant's token is enough for a lease, which tells
/// its compute how long it may live, and a compute opens nothing.
const OF_KEYS: Scope = Scope::Node;

/// The routes for nodes that hold a lease.
pub(super) fn router() -> Router<Arc<Keymanager>> {
    Router::new()
        .route(PATH_UNWRAP, post(unwrap))
        .route(PATH_MINT, post(mint))
        .route(PATH_WATCH, post(watch))
        .route(PATH_FENCE_DONE, post(fence_done))
}

/// One audit record per batch (K4).
#[derive(Serialize)]
struct Batch {
    at: u64,
    what: &'static str,
    node: NodeId,
    tenant: TenantId,
    lease: LeaseId,
    asked: usize,
    given: usize,
    refused: Option<KeyErrorKind>,
}

async fn unwrap(
    State(keymanager): Shared,
    headers: HeaderMap,
    Json(request): Json<UnwrapBatch>,
) -> Result<impl IntoResponse, ApiError> {
    let placed = keymanager.place(&headers, request.node)?;
    placed.allow(OF_KEYS, request.tenant)?;
    let asked = request.slots.len();
    limit(asked, MAX_UNWRAP)?;
    let claim = Claim {
        what: "unwrap",
        node: request.node,
        tenant: request.tenant,
        lease: request.lease,
        asked,
    };
    let tenant = keymanager.admit(&claim).await?;
    let results = unwrap_all(tenant, &request.slots).await;
    let given = results.iter().filter(|result| result.is_ok()).count();
    keymanager.release(&claim, tenant, given).await?;
    Ok(binary(encode_unwrapped(&results)))
}

async fn mint(
    State(keymanager): Shared,
    headers: HeaderMap,
    Json(request): Json<MintBatch>,
) -> Result<impl IntoResponse, ApiError> {
    let placed = keymanager.place(&headers, request.node)?;
    placed.allow(OF_KEYS, request.tenant)?;
    let asked = usize::try_from(request.count).unwrap_or(usize::MAX);
    limit(asked, usize::try_from(MAX_MINT).unwrap_or(usize::MAX))?;
    let claim = Claim {
        what: "mint",
        node: request.node,
        tenant: request.tenant,
        lease: request.lease,
        asked,
    };
    let tenant = keymanager.admit(&claim).await?;
    let Some(active) = tenant.ring.active(tenant.id) else {
        return Err(keymanager.refuse(&claim, KeyErrorKind::LeaseEnded).await);
    };
    let keys: Vec<_> = (0..asked).map(|_| fresh(tenant.id, &active)).collect();
    keymanager.release(&claim, tenant, keys.len()).await?;
    Ok(binary(encode_minted(&keys)))
}

async fn watch(
    State(keymanager): Shared,
    headers: HeaderMap,
    Json(request): Json<Watch>,
) -> Result<Json<WatchAnswer>, ApiError> {
    let placed = keymanager.place(&headers, request.node)?;
    let allowed = |tenant| placed.allow(Scope::Tenant, tenant).is_ok();
    let waited = keymanager.fences.wait(request.after, WATCH, allowed);
    Ok(Json(waited.await))
}

async fn fence_done(
    State(keymanager): Shared,
    headers: HeaderMap,
    Json(done): Json<FenceDone>,
) -> Result<(), ApiError> {
    let placed = keymanager.place(&headers, done.node)?;
    placed.allow(Scope::Tenant, done.tenant)?;
    let Some(tenant) = keymanager.tenants.get(&done.tenant) else {
        return Err(ApiError::new(
            Grade::FixRequest,
            KeyErrorKind::UnknownTenant,
        ));
    };
    tenant.drained(done.node, done.epoch, done.took_ms);
    let record = Drained {
        at_ms: unix_ms(),
        what: "fence_done",
        done,
    };
    keymanager.record(record).await
}

/// The measured end of a fence on one node (K4).
#[derive(Serialize)]
struct Drained {
    at_ms: u64,
    what: &'static str,
    #[serde(flatten)]
    done: FenceDone,
}

/// Who asks for keys, and on which ground.
struct Claim {
    what: &'static str,
    node: NodeId,
    tenant: TenantId,
    lease: LeaseId,
    asked: usize,
}

impl Keymanager {
    async fn admit(self: &Arc<Self>, claim: &Claim) -> Result<&Tenant, ApiError> {
        let admitted = self
            .tenants
            .get(&claim.tenant)
            .ok_or(KeyErrorKind::UnknownTenant)
            .and_then(|tenant| tenant.check(claim.node, claim.lease).map(|()| tenant));
        match admitted {
            Ok(tenant) => Ok(tenant),
            Err(kind) => Err(self.refuse(claim, kind).await),
        }
    }

    /// Records what is about to leave, and asks once more whether it may: a fence may have come
    /// while the record was written (K5).
    async fn release(
        self: &Arc<Self>,
        claim: &Claim,
        tenant: &Tenant,
        given: usize,
    ) -> Result<(), ApiError> {
        self.record(claim.record(given, None)).await?;
        match tenant.check(claim.node, claim.lease) {
            Ok(()) => {
                metrics::gave(claim.what, given);
                Ok(())
            }
            Err(kind) => Err(self.refuse(claim, kind).await),
        }
    }

    async fn refuse(self: &Arc<Self>, claim: &Claim, kind: KeyErrorKind) -> ApiError {
        match self.record(claim.record(0, Some(kind))).await {
            Ok(()) => ApiError::new(kind.grade(), kind),
            Err(unrecorded) => unrecorded,
        }
    }
}

impl Claim {
    fn record(&self, given: usize, refused: Option<KeyErrorKind>) -> Batch {
        Batch {
            at: clock::unix_seconds(),
            what: self.what,
            node: self.node,
            tenant: self.tenant,
            lease: self.lease,
            asked: self.asked,
            given,
            refused,
        }
    }
}

async fn unwrap_all(tenant: &Tenant, slots: &[WrapSlot]) -> Vec<Result<DekBytes, KeyErrorKind>> {
    let mut keks: BTreeMap<KekVersion, Result<Arc<Opened>, KeyErrorKind>> = BTreeMap::new();
    for version in slots.iter().map(WrapSlot::kek_version) {
        if let Entry::Vacant(vacant) = keks.entry(version) {
            let kek = tenant.ring.get(tenant.id, version, tenant.lowest).await;
            vacant.insert(kek.map_err(|error| {
                tracing::warn!(tenant = %tenant.id, %error, "a KEK is not there");
                kind_of(&error)
            }));
        }
    }
    let open = |slot: &WrapSlot| {
        let kek = match keks.get(&slot.kek_version()) {
            Some(Ok(kek)) if kek.id == slot.kek_id() => kek,
            Some(Err(kind)) => return Err(*kind),
            _ => return Err(KeyErrorKind::UnknownKek),
        };
        wrap::unwrap(&kek.kek, tenant.id, slot)
            .map(|dek| DekBytes::new(*dek.expose()))
            .map_err(|_| KeyErrorKind::BrokenSlot)
    };
    slots.iter().map(open).collect()
}

fn fresh(tenant: TenantId, active: &Opened) -> (DekBytes, WrapSlot) {
    let dek = Dek::generate(&mut OsEntropy);
    let Opened { id, version, kek } = active;
    let slot = wrap::wrap(kek, tenant, *id, *version, &dek, &mut OsEntropy);
    (DekBytes::new(*dek.expose()), slot)
}

const fn kind_of(error: &KekError) -> KeyErrorKind {
    match error {
        KekError::Missing { .. }
        | KekError::TooLow { .. }
        | KekError::UsedUp(_)
        | KekError::Damaged { .. }
        | KekError::DoesNotOpen { .. } => KeyErrorKind::UnknownKek,
        // Whether the KMS withholds the key is for the probes to say.
        KekError::Kms { .. } | KekError::Bucket { .. } | KekError::NoMemory(_) => {
            KeyErrorKind::Outage
        }
        KekError::Fenced(_) => KeyErrorKind::LeaseEnded,
    }
}

fn limit(asked: usize, most: usize) -> Result<(), ApiError> {
    if asked <= most {
        return Ok(());
    }
    let why = format!("{asked} keys in one batch: at most {most} are taken");
    Err(ApiError::new(Grade::FixRequest, why))
}

fn binary(body: Bytes) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, "application/octet-stream"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, body)
}
