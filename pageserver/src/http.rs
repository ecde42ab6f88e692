//! The HTTP side: attaching, importing, branching, and how far timelines are.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use api::timeline::{
    AttachTimeline, CreateBranch, Imported, LsnAtTime, PageserverStatus, SafekeeperSet,
    TimelineInfo,
};
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use ids::{TenantId, TimelineId};
use keyring::TenantKeys;
use serde::{Deserialize, Serialize};
use service::http::{ApiError, authorize};
use service::token::{Scope, Verifier};
use tokio::time::timeout;
use tokio_util::io::StreamReader;

use crate::refusal::Refusal;
use crate::tenants::Tenants;

/// An upload that stands still for so long is given up: what came of it is on the disk.
const UPLOAD_SILENCE: Duration = Duration::from_secs(60);

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
        self.allow_scope(headers, tenant, Scope::Tenant)
    }

    fn allow_scope(
        &self,
        headers: &HeaderMap,
        tenant: TenantId,
        scope: Scope,
    ) -> Result<(), ApiError> {
        if let Some(verifier) = &self.verifier {
            authorize(headers, verifier, scope, Some(tenant))?;
        }
        Ok(())
    }
}

/// Who may say where the WAL of a timeline is: this node shows the token that opens every tenant
/// to those who are named, so a tenant's compute does not name them.
const fn scope_to_name(safekeepers: &SafekeeperSet) -> Scope {
    if safekeepers.members.is_empty() {
        Scope::Tenant
    } else {
        Scope::Node
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
    routes.allow_scope(&headers, at.tenant, scope_to_name(&asked.safekeepers))?;
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
    routes.allow_scope(&headers, tenant, scope_to_name(&asked.safekeepers))?;
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
    let keys = tenants.node.keyring.tenant(at.tenant).await;
    let keys = keys.map_err(Refusal::from)?;
    let left = tenants.node.settings.import_bytes_max;
    let archive = StreamReader::new(Box::pin(upload(body, left, keys)));
    let imported = tenants.import(at.tenant, at.timeline, version.pg_major, archive);
    Ok(Json(imported.await?))
}

/// The bytes of a body, up to `left` of them, from a client that goes on sending, to a tenant that
/// goes on having keys (K6).
fn upload(body: Body, left: u64, keys: TenantKeys) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let begun = (body.into_data_stream(), left, keys);
    stream::try_unfold(begun, async |(mut body, left, keys)| {
        let next = timeout(UPLOAD_SILENCE, body.next());
        let next = tokio::select! {
            why = keys.closed() => return Err(io::Error::other(why)),
            next = next => next,
        };
        let next = next.map_err(|_| io::Error::other("the upload stands still"))?;
        let Some(chunk) = next.transpose().map_err(io::Error::other)? else {
            return Ok(None);
        };
        match left.checked_sub(chunk.len() as u64) {
            Some(left) => Ok(Some((chunk, (body, left, keys)))),
            None => Err(io::Error::other("the archive is longer than the limit")),
        }
    })
}

#[cfg(test)]
mod tests {
    use api::keys::RevokeReason;
    use api::timeline::NodeAddress;
    use ids::{Generation, NodeId};
    use keyring::Keyring;

    use super::*;

    #[test]
    fn a_token_of_a_tenant_names_nobody_to_whom_ours_is_shown() {
        let mut safekeepers = SafekeeperSet {
            generation: Generation(1),
            members: Vec::new(),
        };
        assert_eq!(scope_to_name(&safekeepers), Scope::Tenant);
        safekeepers.members.push(NodeAddress {
            node: NodeId(1),
            libpq: "10.0.0.1:1".to_owned(),
            http: "10.0.0.1:2".to_owned(),
        });
        assert_eq!(scope_to_name(&safekeepers), Scope::Node);
    }

    #[tokio::test]
    async fn an_upload_ends_at_its_limit_and_at_a_fence() {
        let (keyring, tenant) = (Keyring::fixed([7; 32]), TenantId([1; 16]));
        let keys = keyring.tenant(tenant).await.unwrap();
        let mut whole = Box::pin(upload(Body::from("four"), 4, keys.clone()));
        assert_eq!(whole.next().await.unwrap().unwrap(), "four");
        assert!(whole.next().await.is_none());
        let mut longer = Box::pin(upload(Body::from("five!"), 4, keys.clone()));
        assert!(longer.next().await.unwrap().is_err());

        let silent = Body::from_stream(stream::pending::<io::Result<Bytes>>());
        let mut stands = Box::pin(upload(silent, 4, keys));
        let fence = keyring.fence(tenant, RevokeReason::Disabled);
        let (ended, ()) = tokio::join!(stands.next(), fence);
        assert!(ended.unwrap().is_err(), "K6");
    }
}
