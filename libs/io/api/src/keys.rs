//! The keymanager's contract (rule K4): leases, batched unwraps and mints, fences.
//!
//! Requests and lease answers are JSON. Answers that carry data keys are binary
//! ([`encode_unwrapped`], [`encode_minted`]): a secret has no serializer.

use bytes::{BufMut, Bytes, BytesMut};
use ids::{KekId, KekVersion, NodeId, TenantId, WRAP_SLOT_BYTES, WrapSlot};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::Grade;

/// The most wrap slots in one [`UnwrapBatch`] (K4).
pub const MAX_UNWRAP: usize = 1024;
/// The most keys in one [`MintBatch`].
pub const MAX_MINT: u32 = 256;

/// `POST`, JSON to JSON: [`Acquire`] to [`LeaseAnswer`].
pub const PATH_ACQUIRE: &str = "/v1/lease/acquire";
/// `POST`, JSON to JSON: [`Renew`] to [`RenewAnswer`].
pub const PATH_RENEW: &str = "/v1/lease/renew";
/// `POST`, JSON to binary: [`UnwrapBatch`] to [`decode_unwrapped`].
pub const PATH_UNWRAP: &str = "/v1/keys/unwrap";
/// `POST`, JSON to binary: [`MintBatch`] to [`decode_minted`].
pub const PATH_MINT: &str = "/v1/keys/mint";
/// `POST`, long poll, JSON to JSON: [`Watch`] to [`WatchAnswer`].
pub const PATH_WATCH: &str = "/v1/fences/watch";
/// `POST`, JSON, no answer body: [`FenceDone`].
pub const PATH_FENCE_DONE: &str = "/v1/fences/done";

/// One lease of one node for one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub u64);

/// Why the keys of a tenant are withheld.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeReason {
    /// The CMK is disabled.
    Disabled,
    /// The CMK is to be deleted, or is not usable in its present state.
    PendingDeletion,
    /// The CMK does not exist.
    NotFound,
    /// Policy, grant or role no longer allows the use.
    AccessDenied,
    /// Revoked by request through the API (K7).
    Requested,
    /// The KMS could not be asked for longer than the grace: nobody refused (K3).
    GraceEnded,
}

/// What the keymanager knows about a tenant's keys (K3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "reason")]
pub enum TenantState {
    /// The KMS answered within the probe period.
    Active,
    /// The KMS cannot be asked; serving goes on inside the grace period.
    Unverified,
    /// The KMS, or the customer through the API, said no.
    Revoked(RevokeReason),
    /// No key configuration, or nothing known yet.
    Unknown,
}

impl TenantState {
    /// Whether leases are granted in this state.
    #[must_use]
    pub const fn grants(self) -> bool {
        matches!(self, Self::Active | Self::Unverified)
    }
}

/// The kinds of key errors that cross processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum KeyErrorKind {
    /// Keys are revoked.
    #[error("the keys of the tenant are revoked")]
    Revoked,
    /// The lease ended, or is not known here.
    #[error("the lease on the keys ended")]
    LeaseEnded,
    /// The KMS cannot be asked and there is no grace left.
    #[error("the key service cannot be asked")]
    Outage,
    /// The tenant has no keys here.
    #[error("the tenant is not known")]
    UnknownTenant,
    /// The keymanager has not heard from the KMS since it started, or since a revocation ended.
    #[error("nothing is known of the tenant's key yet")]
    NotKnownYet,
    /// The wrap slot does not open: damaged, or of another tenant.
    #[error("the wrapped key does not open")]
    BrokenSlot,
    /// The KEK version is not known, or is below the lowest that is accepted (K10).
    #[error("the KEK version is not accepted")]
    UnknownKek,
    /// The placement of the node is older than the one in force (K4).
    #[error("a newer placement of the tenant is in force")]
    StalePlacement,
}

impl KeyErrorKind {
    /// How a caller should take it.
    #[must_use]
    pub const fn grade(self) -> Grade {
        match self {
            Self::Revoked | Self::Outage | Self::NotKnownYet => Grade::KeyUnavailable,
            Self::LeaseEnded => Grade::Retry,
            Self::UnknownTenant => Grade::FixRequest,
            Self::BrokenSlot | Self::UnknownKek => Grade::DataDamaged,
            Self::StalePlacement => Grade::RetryElsewhere,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Revoked => 1,
            Self::LeaseEnded => 2,
            Self::Outage => 3,
            Self::UnknownTenant => 4,
            Self::BrokenSlot => 5,
            Self::UnknownKek => 6,
            Self::StalePlacement => 7,
            Self::NotKnownYet => 8,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Revoked,
            2 => Self::LeaseEnded,
            3 => Self::Outage,
            4 => Self::UnknownTenant,
            5 => Self::BrokenSlot,
            6 => Self::UnknownKek,
            7 => Self::StalePlacement,
            8 => Self::NotKnownYet,
            _ => return None,
        })
    }
}

/// Asks for leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquire {
    /// The node that asks.
    pub node: NodeId,
    /// The tenants that it begins to serve.
    pub tenants: Vec<TenantId>,
    /// Grows with every request of a node; an answer repeats it.
    pub seqno: u64,
}

/// The answer for one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The tenant.
    pub tenant: TenantId,
    /// The lease; present where [`TenantState::grants`].
    pub lease: Option<LeaseId>,
    /// Milliseconds left, counted from the moment the node sent its request (K2).
    pub remaining_ms: u64,
    /// Grows with every fence of the tenant.
    pub epoch: u64,
    /// The KEK under which new keys are minted.
    pub kek_id: Option<KekId>,
    /// Its version.
    pub active_kek: KekVersion,
    /// The lowest version that is still accepted (K10).
    pub lowest_kek: KekVersion,
    /// What the keymanager knows.
    pub state: TenantState,
}

/// The answer to [`Acquire`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAnswer {
    /// The `seqno` of the request.
    pub seqno: u64,
    /// One per tenant asked for.
    pub leases: Vec<Lease>,
}

/// Asks to open wrap slots under a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnwrapBatch {
    /// The node that asks.
    pub node: NodeId,
    /// The tenant of all slots.
    pub tenant: TenantId,
    /// Its lease.
    pub lease: LeaseId,
    /// At most [`MAX_UNWRAP`].
    pub slots: Vec<WrapSlot>,
}

/// Asks for fresh data keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MintBatch {
    /// The node that asks.
    pub node: NodeId,
    /// The tenant.
    pub tenant: TenantId,
    /// Its lease.
    pub lease: LeaseId,
    /// At most [`MAX_MINT`].
    pub count: u32,
}

/// Waits for fences newer than `after`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The node that waits.
    pub node: NodeId,
    /// The [`WatchAnswer::cursor`] that it saw last; 0 for none.
    pub after: u64,
}

/// A tenant is to be fenced at once (K6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The tenant.
    pub tenant: TenantId,
    /// Why.
    pub reason: RevokeReason,
    /// The epoch that the fence begins: leases of a lower epoch are over.
    pub epoch: u64,
}

/// The answer to [`Watch`]; empty when nothing happened for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchAnswer {
    /// To be given as [`Watch::after`] next time.
    pub cursor: u64,
    /// The fences.
    pub fences: Vec<Fence>,
}

/// The node has drained and zeroized a tenant: the measured end of a revocation (K4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceDone {
    /// The node.
    pub node: NodeId,
    /// The tenant.
    pub tenant: TenantId,
    /// The epoch of the fence.
    pub epoch: u64,
    /// From the fence's arrival to the last zeroized byte.
    pub took_ms: u64,
}

/// Answers of the operator API, and how its paths are made, stand in a module of their own.
pub use crate::operator::{
    LeaseStatus, LedgerTail, PATH_LEDGER, PATH_TENANTS, Request, Requested, TenantStatus,
    ledger_path, restore_path, revoke_path, tenant_path,
};

/// Renewals stand in a module of their own, too.
pub use crate::renewal::{Renew, RenewAnswer, Round};

/// A data key on its way from the keymanager to a node: zeroized when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct DekBytes([u8; 32]);

impl DekBytes {
    /// Takes over a key.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The bytes are not an answer of this contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the keymanager's answer is malformed")]
pub struct MalformedAnswer;

const TAG_KEY: u8 = 0;

/// The body of the answer to [`UnwrapBatch`]: one result per slot, in order.
#[must_use]
pub fn encode_unwrapped(results: &[Result<DekBytes, KeyErrorKind>]) -> Bytes {
    // Room for all of it: a growing buffer would leave copies of keys behind.
    let mut out = BytesMut::with_capacity(results.len() * 33);
    for result in results {
        match result {
            Ok(dek) => {
                out.put_u8(TAG_KEY);
                out.put_slice(dek.expose());
            }
            Err(kind) => out.put_u8(kind.code()),
        }
    }
    out.freeze()
}

/// Reads what [`encode_unwrapped`] wrote.
///
/// # Errors
/// [`MalformedAnswer`] for anything else.
pub fn decode_unwrapped(
    mut body: &[u8],
) -> Result<Vec<Result<DekBytes, KeyErrorKind>>, MalformedAnswer> {
    let mut results = Vec::new();
    while let Some((&tag, rest)) = body.split_first() {
        if results.len() == MAX_UNWRAP {
            return Err(MalformedAnswer);
        }
        if tag == TAG_KEY {
            let (dek, rest) = rest.split_first_chunk().ok_or(MalformedAnswer)?;
            results.push(Ok(DekBytes(*dek)));
            body = rest;
        } else {
            results.push(Err(KeyErrorKind::from_code(tag).ok_or(MalformedAnswer)?));
            body = rest;
        }
    }
    Ok(results)
}

/// The body of the answer to [`MintBatch`].
#[must_use]
pub fn encode_minted(keys: &[(DekBytes, WrapSlot)]) -> Bytes {
    let mut out = BytesMut::with_capacity(keys.len() * (32 + WRAP_SLOT_BYTES));
    for (dek, slot) in keys {
        out.put_slice(dek.expose());
        out.put_slice(&slot.0);
    }
    out.freeze()
}

/// Reads what [`encode_minted`] wrote.
///
/// # Errors
/// [`MalformedAnswer`] for anything else.
pub fn decode_minted(mut body: &[u8]) -> Result<Vec<(DekBytes, WrapSlot)>, MalformedAnswer> {
    let mut keys = Vec::new();
    while !body.is_empty() {
        let (dek, rest) = body.split_first_chunk().ok_or(MalformedAnswer)?;
        let (slot, rest) = rest.split_first_chunk().ok_or(MalformedAnswer)?;
        keys.push((DekBytes(*dek), WrapSlot(*slot)));
        body = rest;
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_errors_come_back_in_order() {
        let sent = [Ok(DekBytes::new([7; 32])), Err(KeyErrorKind::BrokenSlot)];
        let body = encode_unwrapped(&sent);
        let got = decode_unwrapped(&body).unwrap();
        assert_eq!(got.len(), 2);
        assert!(matches!(&got[0], Ok(dek) if dek.expose() == &[7; 32]));
        assert!(matches!(got[1], Err(KeyErrorKind::BrokenSlot)));
        assert!(decode_unwrapped(&body[..20]).is_err());
        assert!(decode_unwrapped(&[99]).is_err());
    }

    #[test]
    fn minted_keys_come_back_with_their_slots() {
        let body = encode_minted(&[(DekBytes::new([1; 32]), WrapSlot([2; WRAP_SLOT_BYTES]))]);
        let got = decode_minted(&body).unwrap();
        assert!(got[0].0.expose() == &[1; 32] && got[0].1 == WrapSlot([2; WRAP_SLOT_BYTES]));
        assert!(decode_minted(&body[..body.len() - 1]).is_err());
    }
}
