//! The keymanager's contract with operators (rule K7): revoke, restore, look.
//!
//! `{tenant}` stands for the tenant in 32 hexadecimal digits. Times of the wall clock are
//! milliseconds since 1970, as the keymanager saw them.

use ids::{KekVersion, NodeId, TenantId};
use serde::{Deserialize, Serialize};

use crate::keys::TenantState;

/// `GET`, JSON: all [`TenantStatus`]. `GET {this}/{tenant}`: one.
/// `POST {this}/{tenant}/revoke` and `/restore`, JSON: [`Request`] to [`TenantStatus`].
pub const PATH_TENANTS: &str = "/v1/tenants";
/// `GET`, JSON: [`LedgerTail`]; `?tenant=` and `?limit=` (100, at most 1,000) narrow it.
pub const PATH_LEDGER: &str = "/v1/ledger";

/// The path of one tenant.
#[must_use]
pub fn tenant_path(tenant: TenantId) -> String {
    format!("{PATH_TENANTS}/{tenant}")
}

/// Where a tenant's keys are revoked.
#[must_use]
pub fn revoke_path(tenant: TenantId) -> String {
    format!("{PATH_TENANTS}/{tenant}/revoke")
}

/// Where a revocation by request is lifted.
#[must_use]
pub fn restore_path(tenant: TenantId) -> String {
    format!("{PATH_TENANTS}/{tenant}/restore")
}

/// Where the last audit records of a tenant are.
#[must_use]
pub fn ledger_path(tenant: TenantId, limit: usize) -> String {
    format!("{PATH_LEDGER}?tenant={tenant}&limit={limit}")
}

/// Asks to revoke or to restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Why, in the words of who asks; stands in the document and in the ledger.
    pub reason: String,
    /// Who asks, in their words.
    #[serde(default)]
    pub by: Option<String>,
}

/// A revocation or a restoration by request, as it lies beside the KEKs (K7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// The number of the document.
    pub number: u64,
    /// Whether it revokes; else it restores.
    pub revoked: bool,
    /// Why.
    pub reason: String,
    /// Who asked.
    pub by: Option<String>,
    /// When it was written.
    pub at_ms: u64,
}

/// What a keymanager knows about one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantStatus {
    /// The tenant.
    pub tenant: TenantId,
    /// `state`, and `reason` where it is revoked. An outage that outlasted the grace is shown as
    /// revoked with the reason `grace_ended`.
    #[serde(flatten)]
    pub state: TenantState,
    /// Since when this keymanager sees this state.
    pub since_ms: u64,
    /// How long ago the last probe was sent that succeeded; absent where none has.
    pub t_ok_age_ms: Option<u64>,
    /// The KEK version that mints; 0 where none is open.
    pub active_kek_version: KekVersion,
    /// The lowest that is accepted.
    pub lowest: KekVersion,
    /// Grows with every fence.
    pub epoch: u64,
    /// The newest request of K7, if there was ever one.
    pub requested: Option<Requested>,
    /// The last lease of each node that this keymanager granted.
    pub leases: Vec<LeaseStatus>,
}

/// One lease, and how its fence went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// The node.
    pub node: NodeId,
    /// The tenant.
    pub tenant: TenantId,
    /// Milliseconds left; 0 once it is over.
    pub remaining_ms: u64,
    /// The tenant's epoch when it was granted.
    pub epoch: u64,
    /// When it was fenced.
    pub fenced_at_ms: Option<u64>,
    /// When the node said that it has drained and wiped.
    pub drained_at_ms: Option<u64>,
    /// How long that took the node, from the fence's arrival.
    pub drain_took_ms: Option<u64>,
}

/// The newest audit records, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerTail {
    /// The hash of the ledger's last record, in hexadecimal digits.
    pub head: String,
    /// The records: `at` (seconds) or `at_ms`, `what`, `tenant` and what belongs to it.
    pub records: Vec<serde_json::Value>,
}
