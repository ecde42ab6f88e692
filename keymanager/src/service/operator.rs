//! The operators' endpoints: look, revoke, restore (K7). The contract is `api::keys`' own.

use std::sync::Arc;

use api::Grade;
use api::keys::{KeyErrorKind, LedgerTail, PATH_LEDGER, PATH_TENANTS, Request, TenantStatus};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use ids::TenantId;
use serde::Deserialize;
use serde_json::Value;
use service::http::ApiError;
use service::token::Scope;

use super::{Keymanager, Tenant};

type Shared = State<Arc<Keymanager>>;

/// The most records in one answer.
const MAX_RECORDS: usize = 1000;

pub(super) fn router() -> Router<Arc<Keymanager>> {
    Router::new()
        .route(PATH_TENANTS, get(list))
        .route(&format!("{PATH_TENANTS}/{{tenant}}"), get(show))
        .route(&format!("{PATH_TENANTS}/{{tenant}}/revoke"), post(revoke))
        .route(&format!("{PATH_TENANTS}/{{tenant}}/restore"), post(restore))
        .route(PATH_LEDGER, get(ledger))
}

async fn list(
    State(keymanager): Shared,
    headers: HeaderMap,
) -> Result<Json<Vec<TenantStatus>>, ApiError> {
    keymanager.authorize(&headers, Scope::Node, None)?;
    Ok(Json(
        keymanager.tenants.values().map(Tenant::status).collect(),
    ))
}

async fn show(
    State(keymanager): Shared,
    headers: HeaderMap,
    Path(tenant): Path<TenantId>,
) -> Result<Json<TenantStatus>, ApiError> {
    keymanager.authorize(&headers, Scope::Node, Some(tenant))?;
    Ok(Json(keymanager.find(tenant)?.status()))
}

async fn revoke(
    State(keymanager): Shared,
    headers: HeaderMap,
    Path(tenant): Path<TenantId>,
    Json(request): Json<Request>,
) -> Result<Json<TenantStatus>, ApiError> {
    keymanager.obey(&headers, tenant, true, &request).await
}

async fn restore(
    State(keymanager): Shared,
    headers: HeaderMap,
    Path(tenant): Path<TenantId>,
    Json(request): Json<Request>,
) -> Result<Json<TenantStatus>, ApiError> {
    keymanager.obey(&headers, tenant, false, &request).await
}

/// Which records are wanted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    tenant: Option<TenantId>,
    #[serde(default = "usual")]
    limit: usize,
    /// With the records of leases, which are many.
    #[serde(default)]
    leases: bool,
}

const fn usual() -> usize {
    100
}

async fn ledger(
    State(keymanager): Shared,
    headers: HeaderMap,
    Query(tail): Query<Tail>,
) -> Result<Json<LedgerTail>, ApiError> {
    keymanager.authorize(&headers, Scope::Node, tail.tenant)?;
    let failed = |e: String| ApiError::new(Grade::Retry, e);
    let reader = keymanager
        .lock_ledger()
        .reader()
        .map_err(|e| failed(e.to_string()))?;
    let head = hex::encode(reader.head);
    let read = move || reader.tail(tail.limit.min(MAX_RECORDS), |record| tail.wants(record));
    let records = tokio::task::spawn_blocking(read)
        .await
        .map_err(|e| failed(e.to_string()))?
        .map_err(|e| failed(e.to_string()))?;
    Ok(Json(LedgerTail { head, records }))
}

impl Tail {
    fn wants(&self, record: &Value) -> bool {
        if record["what"] == "lease" && !self.leases {
            return false;
        }
        let Some(tenant) = self.tenant.map(|tenant| tenant.to_string()) else {
            return true;
        };
        let named = |list: &str| {
            let tenants = record[list].as_array();
            tenants.is_some_and(|all| all.iter().any(|one| *one == tenant.as_str()))
        };
        record["tenant"] == tenant.as_str() || named("granted") || named("withheld")
    }
}

impl Keymanager {
    async fn obey(
        self: &Arc<Self>,
        headers: &HeaderMap,
        tenant: TenantId,
        revoked: bool,
        request: &Request,
    ) -> Result<Json<TenantStatus>, ApiError> {
        self.authorize(headers, Scope::Admin, Some(tenant))?;
        let tenant = self.find(tenant)?;
        if request.reason.trim().is_empty() {
            return Err(ApiError::new(Grade::FixRequest, "say why: reason is empty"));
        }
        let written = tenant.request(revoked, request).await;
        self.announce(tenant).await;
        written.map_err(|e| {
            ApiError::new(Grade::Retry, e).hint("it may be in force: ask again until it is")
        })?;
        Ok(Json(tenant.status()))
    }

    fn find(&self, tenant: TenantId) -> Result<&Tenant, ApiError> {
        let found = self.tenants.get(&tenant);
        found.ok_or_else(|| ApiError::new(Grade::FixRequest, KeyErrorKind::UnknownTenant))
    }
}
