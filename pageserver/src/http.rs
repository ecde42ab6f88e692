//! The HTTP side: attaching, importing, branching, and how far timelines are.

use std::io;
use std::sync::Arc;

use api::timeline::{
    AttachTimeline, CreateBranch, Imported, LsnAtTime, PageserverStatus, TimelineInfo,
};
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt;
use ids::{TenantId, TimelineId};
use serde::{Deserialize, Serialize};
use service::http::{ApiError, authorize};
use service::token::{Scope, Verifier};
use tokio_util::io::StreamReader;

use crate::refusal::Refusal;
use crate::tenants::Tenants;

/// Everything that requests need.
pub(crate) struct Routes {
    pub(crate) tenants: Arc<Tenants>,
    /// Who checks tokens; `None` where everybody is believed.
    pub(crate) verifier: Option<Verifier>,
}

type Shared = State<Arc<Routes>>;
type Answered<T> = Result<Json<T>, ApiError>;

/// The routes of the contract in `api::timeline`.
pub(crate) fn router(routes: Routes) -> Router {
    let timeline = "/v1/tenants/{tenant}/timelines/{timeline}";
    Router::new()
        .route("/v1/tenants/{tenant}/timelines", get(list).post(branch))
        .route(timeline, get(status).put(attach))
        .route(&format!("{timeline}/lsn_at"), get(lsn_at))
        .route(&format!("{timeline}/flush"), post(flush))
        .route(
            &format!("{timeline}/import"),
            // It has a limit of its own, and streams.
            post(import).layer(DefaultBodyLimit::disable()),
        )
        .with_state(Arc::new(routes))
}

impl Routes {
    fn allow(&self, headers: &HeaderMap, tenant: TenantId) -> Result<(), ApiError> {
        if let Some(verifier) = &self.verifier {
            authorize(headers, verifier, Scope::Tenant, Some(tenant))?;
        }
        Ok(())
    }
}

/// A timeline in a path.
#[derive(Clone, Copy, Deserialize)]
struct Place {
    tenant: TenantId,
    timeline: TimelineId,
}

/// A tenant in a path.
#[derive(Clone, Copy, Deserialize)]
struct Whose {
    tenant: TenantId,
}

/// One line of a list. What is not up yet has no position, and says why in `stopped`.
#[derive(Serialize)]
struct Listed {
    tenant: TenantId,
    timeline: TimelineId,
    #[serde(flatten)]
    status: PageserverStatus,
}

async fn list(
    State(routes): Shared,
    headers: HeaderMap,
    Path(Whose { tenant }): Path<Whose>,
) -> Answered<Vec<Listed>> {
    routes.allow(&headers, tenant)?;
    let listed = routes.tenants.list(tenant);
    let line = |(timeline, status)| Listed {
        tenant,
        timeline,
        status,
    };
    Ok(Json(listed.into_iter().map(line).collect()))
}

async fn status(
    State(routes): Shared,
    headers: HeaderMap,
    Path(at): Path<Place>,
) -> Answered<PageserverStatus> {
    routes.allow(&headers, at.tenant)?;
    Ok(Json(routes.tenants.status(at.tenant, at.timeline)?))
}

async fn attach(
    State(routes): Shared,
    headers: HeaderMap,
    Path(at): Path<Place>,
    Json(asked): Json<AttachTimeline>,
) -> Answered<PageserverStatus> {
    routes.allow(&headers, at.tenant)?;
    let tenants = &routes.tenants;
    let attached = tenants.attach(at.tenant, at.timeline, &asked.safekeepers);
    Ok(Json(attached.await?))
}

async fn branch(
    State(routes): Shared,
    headers: HeaderMap,
    Path(Whose { tenant }): Path<Whose>,
    Json(asked): Json<CreateBranch>,
) -> Answered<TimelineInfo> {
    routes.allow(&headers, tenant)?;
    Ok(Json(routes.tenants.branch(tenant, &asked).await?))
}

async fn flush(
    State(routes): Shared,
    headers: HeaderMap,
    Path(at): Path<Place>,
) -> Answered<PageserverStatus> {
    routes.allow(&headers, at.tenant)?;
    Ok(Json(routes.tenants.flush(at.tenant, at.timeline).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    unix: f64,
}

async fn lsn_at(
    State(routes): Shared,
    headers: HeaderMap,
    Path(at): Path<Place>,
    Query(when): Query<When>,
) -> Answered<LsnAtTime> {
    routes.allow(&headers, at.tenant)?;
    let (owner, attached) = routes.tenants.get(at.tenant, at.timeline)?;
    let found = attached.timeline.lsn_at(when.unix).await;
    let found = found.map_err(Refusal::from)?;
    owner.check().map_err(Refusal::from)?;
    Ok(Json(found))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Version {
    pg_major: u32,
}

async fn import(
    State(routes): Shared,
    headers: HeaderMap,
    Path(at): Path<Place>,
    Query(version): Query<Version>,
    body: Body,
) -> Answered<Imported> {
    routes.allow(&headers, at.tenant)?;
    let tenants = &routes.tenants;
    let mut left = tenants.node.settings.import_bytes_max;
    let archive = body.into_data_stream().map(move |chunk| {
        let chunk = chunk.map_err(io::Error::other)?;
        let rest = left.checked_sub(chunk.len() as u64);
        left = rest.ok_or_else(|| io::Error::other("the archive is longer than the limit"))?;
        Ok::<_, io::Error>(chunk)
    });
    let archive = StreamReader::new(archive);
    let imported = tenants.import(at.tenant, at.timeline, version.pg_major, archive);
    Ok(Json(imported.await?))
}
