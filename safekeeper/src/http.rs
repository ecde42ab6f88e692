//! The HTTP side: how far timelines are.

use std::sync::Arc;

use api::Grade;
use api::timeline::SafekeeperStatus;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use ids::{TenantId, TimelineId};
use serde::{Deserialize, Serialize};
use service::http::{ApiError, authorize};
use service::token::Scope;

use crate::access::Gate;
use crate::timeline::TimelineError;
use crate::timelines::{AccessError, Timelines};

#[derive(Clone)]
struct Served {
    timelines: Arc<Timelines>,
    gate: Gate,
}

/// One of the timelines of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The timeline.
    pub timeline: TimelineId,
    /// How far it is; none where it cannot be opened.
    pub status: Option<SafekeeperStatus>,
}

/// The routes.
pub fn router(timelines: Arc<Timelines>, gate: Gate) -> Router {
    Router::new()
        .route("/v1/tenants/{tenant}/timelines", get(list))
        .route("/v1/tenants/{tenant}/timelines/{timeline}", get(status))
        .route(
            "/v1/tenants/{tenant}/timelines/{timeline}/refill",
            post(refill),
        )
        .with_state(Served { timelines, gate })
}

async fn status(
    State(served): State<Served>,
    Path((tenant, timeline)): Path<(TenantId, TimelineId)>,
    headers: HeaderMap,
) -> Result<Json<SafekeeperStatus>, ApiError> {
    served.allow(&headers, Scope::Tenant, tenant)?;
    let status = served.timelines.status(tenant, timeline).await;
    status.map(Json).map_err(refused)
}

/// An operator's: who has looked at the disk says that it may hold WAL again.
async fn refill(
    State(served): State<Served>,
    Path((tenant, timeline)): Path<(TenantId, TimelineId)>,
    headers: HeaderMap,
) -> Result<Json<SafekeeperStatus>, ApiError> {
    served.allow(&headers, Scope::Admin, tenant)?;
    let status = served.timelines.refill(tenant, timeline).await;
    status.map(Json).map_err(refused)
}

async fn list(
    State(served): State<Served>,
    Path(tenant): Path<TenantId>,
    headers: HeaderMap,
) -> Result<Json<Vec<Listed>>, ApiError> {
    served.allow(&headers, Scope::Tenant, tenant)?;
    let known = served.timelines.list(tenant);
    let known = known.map_err(|error| ApiError::new(Grade::Bug, error))?;
    let mut listed = Vec::with_capacity(known.len());
    for timeline in known {
        let status = served.timelines.status(tenant, timeline).await;
        listed.push(Listed {
            timeline,
            status: status.ok(),
        });
    }
    Ok(Json(listed))
}

impl Served {
    fn allow(&self, headers: &HeaderMap, scope: Scope, tenant: TenantId) -> Result<(), ApiError> {
        match &self.gate.0 {
            None => Ok(()),
            Some(verifier) => authorize(headers, verifier, scope, Some(tenant)).map(drop),
        }
    }
}

fn refused(error: AccessError) -> ApiError {
    let grade = match (&error, error.key()) {
        (_, Some(key)) => key.grade(),
        (AccessError::Broken { .. } | AccessError::Damaged(_), _) => Grade::DataDamaged,
        (AccessError::Timeline(e), _) if e.is_damage() => Grade::DataDamaged,
        (AccessError::Timeline(TimelineError::NotInDoubt | TimelineError::PromisesLost), _) => {
            Grade::FixRequest
        }
        (AccessError::Timeline(_) | AccessError::State(_), _) => Grade::Retry,
        _ => Grade::FixRequest,
    };
    let refused = ApiError::new(grade, &error);
    match grade {
        Grade::KeyUnavailable => refused.hint("enable the tenant's key; the timeline then opens"),
        Grade::DataDamaged => refused.hint("the other safekeepers have the WAL; see the log"),
        _ => refused,
    }
}
