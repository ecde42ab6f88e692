//! Why a key cannot be used; every error names the tenant and the state, never just "I/O" (K6).

use api::keys::{KeyErrorKind, RevokeReason};
use api::{ClientError, Grade};
use ids::TenantId;
use locked::NoLockedMemory;

/// A key of a tenant cannot be had or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The tenant is fenced.
    #[error("the keys of tenant {tenant} are revoked: {reason:?}")]
    Revoked {
        /// The tenant.
        tenant: TenantId,
        /// Why.
        reason: RevokeReason,
    },
    /// The lease ran out, and no keymanager renewed it.
    #[error("the lease on the keys of tenant {tenant} ended: nobody renewed it")]
    LeaseEnded {
        /// The tenant.
        tenant: TenantId,
    },
    /// No keymanager answered. Nothing is known of a revocation.
    #[error("no keymanager can be reached for the keys of tenant {tenant}: {detail}")]
    Unreachable {
        /// The tenant.
        tenant: TenantId,
        /// What happened with the last one that was tried.
        detail: String,
    },
    /// There is no locked memory for one more key (K9).
    #[error("a key of tenant {tenant} has no place: {source}")]
    NoMemory {
        /// The tenant.
        tenant: TenantId,
        /// Why, and what to do.
        #[source]
        source: NoLockedMemory,
    },
    /// The request was refused.
    #[error("tenant {tenant}: {kind}")]
    Refused {
        /// The tenant.
        tenant: TenantId,
        /// Why.
        kind: KeyErrorKind,
    },
}

impl KeyError {
    /// How a caller should take it.
    #[must_use]
    pub const fn grade(&self) -> Grade {
        match self {
            Self::Revoked { .. } => Grade::KeyUnavailable,
            Self::LeaseEnded { .. } => KeyErrorKind::LeaseEnded.grade(),
            Self::Unreachable { .. } | Self::NoMemory { .. } => Grade::KeyUnavailable,
            Self::Refused { kind, .. } => kind.grade(),
        }
    }

    /// Whether a renewal that failed so leaves the lease to its end: nobody has refused it.
    pub(crate) const fn leaves_running(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Refused {
                    kind: KeyErrorKind::NotKnownYet,
                    ..
                }
        )
    }
}

/// A keyring cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// URLs or an identity that cannot be used.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Keys would have no place (K9).
    #[error(transparent)]
    Memory(#[from] NoLockedMemory),
}

impl ConnectError {
    /// How a caller should take it.
    #[must_use]
    pub const fn grade(&self) -> Grade {
        match self {
            Self::Client(error) => error.grade(),
            Self::Memory(_) => Grade::FixRequest,
        }
    }
}
