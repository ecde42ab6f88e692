//! The lease (K2): without data keys, and PostgreSQL lives no longer than it.

use std::time::Duration;

use ids::TenantId;
use keyring::{ConnectError, KeyError, Keyring, KeyringConfig, TenantKeys};
use service::clock::boottime;

use crate::config::Config;
use crate::deadline;
use crate::door::first::Refusal;

/// Who grants leases; nobody, for a compute that says that it is insecure.
pub struct Leases {
    ring: Option<Keyring>,
    tenant: TenantId,
}

/// A lease that runs, or the lack of one.
pub struct Lease(Option<TenantKeys>);

impl Leases {
    /// Those of the keymanagers in `config`. None of them is asked yet.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn new(config: &Config, token: &str) -> Result<Self, ConnectError> {
        let remote = KeyringConfig {
            keymanagers: config.keymanagers.clone(),
            identity_dir: config.identity.clone(),
            node: config.node(),
            renew: Duration::from_millis(config.lease_renew_ms),
            // No key is held, so no operation is waited for: PostgreSQL is killed at once.
            drain: Duration::ZERO,
            token: (!token.is_empty()).then(|| token.to_owned()),
        };
        let ring = (!config.development).then(|| Keyring::connect(remote));
        Ok(Self {
            ring: ring.transpose()?,
            tenant: config.tenant,
        })
    }

    /// The lease that runs, or a new one.
    ///
    /// # Errors
    /// As [`Keyring::tenant`].
    pub async fn take(&self) -> Result<Lease, KeyError> {
        match &self.ring {
            Some(ring) => Ok(Lease(Some(ring.tenant(self.tenant).await?))),
            None => Ok(Lease(None)),
        }
    }
}

impl Lease {
    /// Until when the watchdog lets PostgreSQL live; none where the lease is over.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let now = boottime();
        match &self.0 {
            None => Some(now + deadline::WITHOUT_LEASE),
            Some(keys) => {
                keys.check().ok()?;
                Some(deadline::for_lease(now, *keys.deadline().borrow()))
            }
        }
    }

    /// Returns with the reason when the lease is over.
    pub async fn closed(&self) -> KeyError {
        match &self.0 {
            Some(keys) => keys.closed().await,
            None => std::future::pending().await,
        }
    }
}

/// What clients hear while there is no lease.
#[must_use]
pub fn refusal(error: &KeyError) -> Refusal {
    let (sqlstate, hint) = match error {
        KeyError::Revoked { .. } => (
            "58R01",
            "Nothing is lost. Whoever owns the key has to allow its use again; the database then \
             starts by itself.",
        ),
        _ => (
            "58R02",
            "Nothing is lost. Check that keymanagers and the KMS can be reached; the database \
             then starts by itself.",
        ),
    };
    Refusal {
        sqlstate,
        message: error.to_string(),
        hint: hint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use api::keys::RevokeReason;

    use super::*;

    #[test]
    fn clients_hear_of_a_revocation_by_its_own_state() {
        let tenant = TenantId([7; 16]);
        let reason = RevokeReason::Disabled;
        let revoked = refusal(&KeyError::Revoked { tenant, reason });
        assert_eq!(revoked.sqlstate, "58R01");
        assert!(revoked.message.contains(&tenant.to_string()));
        assert_eq!(refusal(&KeyError::LeaseEnded { tenant }).sqlstate, "58R02");
    }
}
