//! Leases: one tenant at a time when a node begins to serve it, all of a node at once when it
//! renews (K2, K4).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::keys::{
    Acquire, Lease, LeaseAnswer, PATH_ACQUIRE, PATH_RENEW, Renew, RenewAnswer, Round, TenantState,
};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use ids::{KekVersion, NodeId, TenantId};
use serde::Serialize;
use service::clock;
use service::entropy::OsEntropy;
use service::http::ApiError;
use service::token::Scope;

use super::placement::Placed;
use super::tenant::Reading;
use super::{Keymanager, Tenant};

type Shared = State<Arc<Keymanager>>;

/// What a node was told is kept this long after its last renewal; whoever comes later names all
/// its tenants again.
const ROUND_KEPT: Duration = Duration::from_secs(120);

pub(super) fn router() -> Router<Arc<Keymanager>> {
    Router::new()
        .route(PATH_ACQUIRE, post(acquire))
        .route(PATH_RENEW, post(renew))
}

/// One audit record per request (K4). A renewal names the tenants whose lease changed in more than
/// its time, and counts the others.
#[derive(Serialize)]
struct Leased {
    at: u64,
    what: &'static str,
    node: NodeId,
    seqno: u64,
    granted: Vec<TenantId>,
    withheld: Vec<TenantId>,
    renewed: usize,
}

impl Leased {
    fn new(node: NodeId, seqno: u64, told: &[Lease], renewed: usize) -> Self {
        let (granted, withheld): (Vec<_>, Vec<_>) = told.iter().partition(|l| l.lease.is_some());
        let tenants = |leases: Vec<&Lease>| leases.iter().map(|l| l.tenant).collect();
        Self {
            at: clock::unix_seconds(),
            what: "lease",
            node,
            seqno,
            granted: tenants(granted),
            withheld: tenants(withheld),
            renewed,
        }
    }
}

/// What nodes were told last.
#[derive(Default)]
pub(super) struct Rounds(Mutex<BTreeMap<NodeId, (Round, Duration)>>);

impl Rounds {
    fn last(&self, node: NodeId) -> Option<Round> {
        self.lock().get(&node).map(|(round, _)| round.clone())
    }

    fn keep(&self, node: NodeId, round: Round, now: Duration) {
        let mut rounds = self.lock();
        rounds.retain(|_, (_, at)| now.saturating_sub(*at) < ROUND_KEPT);
        rounds.insert(node, (round, now));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, (Round, Duration)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn acquire(
    State(keymanager): Shared,
    headers: HeaderMap,
    Json(request): Json<Acquire>,
) -> Result<Json<LeaseAnswer>, ApiError> {
    let (node, seqno) = (request.node, request.seqno);
    let placed = keymanager.place(&headers, node)?;
    for tenant in &request.tenants {
        placed.allow(Scope::Tenant, *tenant)?;
    }
    let leases = keymanager
        .grant_all(&placed, &request.tenants, Reading::Anew)
        .await;
    let record = Leased::new(node, seqno, &leases, 0);
    keymanager.record(record).await?;
    Ok(Json(LeaseAnswer { seqno, leases }))
}

/// Any keymanager renews what another one granted (K3).
async fn renew(
    State(keymanager): Shared,
    headers: HeaderMap,
    Json(request): Json<Renew>,
) -> Result<Json<RenewAnswer>, ApiError> {
    let (node, seqno) = (request.node, request.seqno);
    let placed = keymanager.place(&headers, node)?;
    let before = keymanager.rounds.last(node);
    let Some(tenants) = Round::tenants(before.as_ref(), &request) else {
        return Ok(Json(RenewAnswer::of_unknown_round(seqno)));
    };
    for tenant in &tenants {
        placed.allow(Scope::Tenant, *tenant)?;
    }
    let leases = keymanager
        .grant_all(&placed, &tenants, Reading::MayBeOld)
        .await;
    let granted = |leases: &[Lease]| leases.iter().filter(|l| l.lease.is_some()).count();
    let all = granted(&leases);
    let id = u64::from_le_bytes(OsEntropy::bytes());
    let (round, answer) = Round::answer(before.as_ref(), &request, id, leases);
    let renewed = all - granted(&answer.changed);
    let record = Leased::new(node, seqno, &answer.changed, renewed);
    keymanager.record(record).await?;
    keymanager.rounds.keep(node, round, clock::boottime());
    Ok(Json(answer))
}

impl Keymanager {
    async fn grant_all(
        self: &Arc<Self>,
        placed: &Placed,
        wanted: impl IntoIterator<Item = &TenantId>,
        reading: Reading,
    ) -> Vec<Lease> {
        let grants = wanted
            .into_iter()
            .map(async |id| match self.tenants.get(id) {
                Some(tenant) => self.grant(tenant, placed, reading).await,
                None => unknown(*id),
            });
        futures_util::future::join_all(grants).await
    }

    /// One lease, on the strength of the newest request about the tenant (K7): who acquires, or
    /// holds none here, has it read anew; a renewal takes a reading that is a little old.
    async fn grant(self: &Arc<Self>, tenant: &Tenant, placed: &Placed, reading: Reading) -> Lease {
        let now = clock::boottime();
        let reading = match reading {
            Reading::MayBeOld if tenant.runs(placed.node) => Reading::MayBeOld,
            _ => Reading::Anew,
        };
        let since = match reading {
            Reading::MayBeOld => now.saturating_sub(tenant.readings()),
            Reading::Anew => now,
        };
        tenant.read_requests(since).await;
        self.announce(tenant).await;
        tenant.lease(placed.node, placed.generation, since, reading)
    }
}

const fn unknown(tenant: TenantId) -> Lease {
    Lease {
        tenant,
        lease: None,
        remaining_ms: 0,
        epoch: 0,
        kek_id: None,
        active_kek: KekVersion(0),
        lowest_kek: KekVersion(0),
        state: TenantState::Unknown,
    }
}
