//! A KMS in a directory, for development and drills: `<version>.key` files, one `state`, and a
//! `fault` where a drill wants one. docs/operations.md has the format.
//!
//! Everything is read anew at each call, so what is set there counts at once.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::keys::RevokeReason;
use async_trait::async_trait;
use sealed::{Dek, Kek};
use service::entropy::OsEntropy;
use zeroize::Zeroizing;

use super::{Context, Kms, KmsError};
use crate::class::ErrorClass;

/// The state of a local key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Serves.
    Enabled,
    /// Refuses, until it is enabled.
    Disabled,
    /// Refuses, and is to be destroyed.
    PendingDeletion,
}

impl KeyState {
    const fn word(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::PendingDeletion => "pending-deletion",
        }
    }
}

/// How long a KMS with the fault `timeout` is silent: longer than anybody waits.
const SILENCE: Duration = Duration::from_secs(600);

/// A fault for drills: the KMS cannot be asked, which is no refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// None.
    None,
    /// Every call fails.
    Error,
    /// No call is answered.
    Timeout,
}

/// A key in a directory.
#[derive(Debug, Clone)]
pub struct LocalKms {
    directory: PathBuf,
}

impl LocalKms {
    /// The key in `directory`, which need not exist yet.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Makes the next version of the key, the first one included; it wraps from now on.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn rotate(&self) -> std::io::Result<u32> {
        std::fs::create_dir_all(&self.directory)?;
        let version = self.newest()?.unwrap_or(0) + 1;
        let mut key = Zeroizing::new([0; 32]);
        OsEntropy::fill_bytes(key.as_mut());
        let path = self.key_path(version);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(key.as_ref())?;
        file.sync_all()?;
        if version == 1 {
            self.set_state(KeyState::Enabled)?;
        }
        std::fs::File::open(&self.directory)?.sync_all()?;
        Ok(version)
    }

    /// Sets the state of the key.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set_state(&self, state: KeyState) -> std::io::Result<()> {
        let next = self.directory.join("state.next");
        std::fs::write(&next, state.word())?;
        std::fs::rename(next, self.directory.join("state"))
    }

    /// Sets or ends a fault.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set_fault(&self, fault: Fault) -> std::io::Result<()> {
        let word = match fault {
            Fault::None => "none",
            Fault::Error => "error",
            Fault::Timeout => "timeout",
        };
        let next = self.directory.join("fault.next");
        std::fs::write(&next, word)?;
        std::fs::rename(next, self.directory.join("fault"))
    }

    async fn suffer_fault(&self) -> Result<(), KmsError> {
        let word = match std::fs::read_to_string(self.directory.join("fault")) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            read => read.map_err(outage)?,
        };
        match word.trim() {
            "none" => Ok(()),
            "timeout" => {
                tokio::time::sleep(SILENCE).await;
                Err(outage("no answer: a fault that a drill has set"))
            }
            "error" => Err(outage("a fault that a drill has set")),
            other => Err(outage(format!("unknown fault {other:?}"))),
        }
    }

    fn key_path(&self, version: u32) -> PathBuf {
        self.directory.join(format!("{version}.key"))
    }

    fn newest(&self) -> std::io::Result<Option<u32>> {
        let mut newest = None;
        for entry in std::fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let version = name.to_str().and_then(|name| name.strip_suffix(".key"));
            newest = newest.max(version.and_then(|version| version.parse().ok()));
        }
        Ok(newest)
    }

    /// A directory that cannot be read is a KMS that cannot be asked, never a refusal.
    fn require_enabled(&self) -> Result<(), KmsError> {
        let word = std::fs::read_to_string(self.directory.join("state")).map_err(outage)?;
        let (reason, at_once) = match word.trim() {
            "enabled" => return Ok(()),
            "disabled" => (RevokeReason::Disabled, true),
            "pending-deletion" | "pending_deletion" => (RevokeReason::PendingDeletion, false),
            other => return Err(outage(format!("unknown state {other:?}"))),
        };
        let class = ErrorClass::Refused { reason, at_once };
        Err(KmsError {
            class,
            detail: format!("the local key is {}", word.trim()),
        })
    }

    fn cmk(&self, version: u32) -> Result<Kek, KmsError> {
        let bytes = Zeroizing::new(std::fs::read(self.key_path(version)).map_err(outage)?);
        let key = bytes
            .as_slice()
            .try_into()
            .map_err(|_| outage("the key file is not 32 bytes"))?;
        Ok(Kek::from_bytes(key))
    }
}

fn outage(detail: impl ToString) -> KmsError {
    KmsError {
        class: ErrorClass::Outage,
        detail: detail.to_string(),
    }
}

fn broken(detail: impl ToString) -> KmsError {
    KmsError {
        class: ErrorClass::BrokenBlob,
        detail: detail.to_string(),
    }
}

impl LocalKms {
    fn wrap(&self, context: &Context, kek: &Zeroizing<[u8; 32]>) -> Result<Vec<u8>, KmsError> {
        self.require_enabled()?;
        let version = self
            .newest()
            .map_err(outage)?
            .ok_or_else(|| outage("the key has no version"))?;
        let cmk = self.cmk(version)?;
        let inner = Dek::from_bytes(**kek);
        let Context {
            tenant,
            kek,
            version: kek_version,
        } = *context;
        let slot = sealed::wrap::wrap(&cmk, tenant, kek, kek_version, &inner, &mut OsEntropy);
        let mut wrapped = version.to_le_bytes().to_vec();
        wrapped.extend_from_slice(&slot.0);
        Ok(wrapped)
    }
}

#[async_trait]
impl Kms for LocalKms {
    async fn generate(&self, context: &Context) -> Result<Vec<u8>, KmsError> {
        self.suffer_fault().await?;
        let mut fresh = Zeroizing::new([0; 32]);
        OsEntropy::fill_bytes(fresh.as_mut());
        self.wrap(context, &fresh)
    }

    async fn unwrap(&self, context: &Context, wrapped: &[u8]) -> Result<Kek, KmsError> {
        self.suffer_fault().await?;
        self.require_enabled()?;
        let (version, slot) = wrapped
            .split_first_chunk()
            .ok_or_else(|| broken("the wrapped KEK is too short"))?;
        let slot = slot
            .try_into()
            .map_err(|_| broken("the wrapped KEK has a wrong length"))?;
        let slot = ids::WrapSlot(slot);
        if slot.kek_id() != context.kek || slot.kek_version() != context.version {
            return Err(broken("the wrapped KEK is of another context"));
        }
        let cmk = self.cmk(u32::from_le_bytes(*version))?;
        let inner = sealed::wrap::unwrap(&cmk, context.tenant, &slot).map_err(broken)?;
        Ok(Kek::from_bytes(*inner.expose()))
    }

    async fn describe(&self) -> Result<String, KmsError> {
        self.suffer_fault().await?;
        let word = std::fs::read_to_string(self.directory.join("state")).map_err(outage)?;
        Ok(word.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ids::{KekId, KekVersion, TenantId};

    const CONTEXT: Context = Context {
        tenant: TenantId([1; 16]),
        kek: KekId([2; 16]),
        version: KekVersion(3),
    };

    fn class(result: Result<Kek, KmsError>) -> Option<ErrorClass> {
        result.err().map(|error| error.class)
    }

    #[tokio::test]
    async fn a_wrapped_kek_opens_in_its_context_alone_and_after_a_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let kms = LocalKms::new(directory.path());
        kms.rotate().unwrap();
        let wrapped = kms.wrap(&CONTEXT, &Zeroizing::new([9; 32])).unwrap();
        assert_eq!(kms.rotate().unwrap(), 2);
        let kek = kms.unwrap(&CONTEXT, &wrapped).await.unwrap();
        // A KEK cannot be looked at: what the original wraps, the opened one must unwrap.
        let (original, dek) = (Kek::from_bytes([9; 32]), Dek::from_bytes([5; 32]));
        let Context {
            tenant,
            kek: id,
            version,
        } = CONTEXT;
        let slot = sealed::wrap::wrap(&original, tenant, id, version, &dek, &mut OsEntropy);
        let opened = sealed::wrap::unwrap(&kek, tenant, &slot).unwrap();
        assert_eq!(opened.expose(), dek.expose());
        for other in [
            Context {
                tenant: TenantId([8; 16]),
                ..CONTEXT
            },
            Context {
                kek: KekId([8; 16]),
                ..CONTEXT
            },
            Context {
                version: KekVersion(8),
                ..CONTEXT
            },
        ] {
            let got = class(kms.unwrap(&other, &wrapped).await);
            assert_eq!(got, Some(ErrorClass::BrokenBlob), "{other:?}");
        }
    }

    #[tokio::test]
    async fn states_refuse_and_a_lost_directory_is_an_outage() {
        let directory = tempfile::tempdir().unwrap();
        let kms = LocalKms::new(directory.path());
        kms.rotate().unwrap();
        let wrapped = kms.wrap(&CONTEXT, &Zeroizing::new([9; 32])).unwrap();
        for (state, reason, at_once) in [
            (KeyState::Disabled, RevokeReason::Disabled, true),
            (
                KeyState::PendingDeletion,
                RevokeReason::PendingDeletion,
                false,
            ),
        ] {
            kms.set_state(state).unwrap();
            let refused = ErrorClass::Refused { reason, at_once };
            assert_eq!(class(kms.unwrap(&CONTEXT, &wrapped).await), Some(refused));
            assert!(kms.generate(&CONTEXT).await.is_err());
        }
        kms.set_state(KeyState::Enabled).unwrap();
        assert_eq!(class(kms.unwrap(&CONTEXT, &wrapped).await), None);
        kms.set_fault(Fault::Error).unwrap();
        let outage = Some(ErrorClass::Outage);
        assert_eq!(class(kms.unwrap(&CONTEXT, &wrapped).await), outage);
        kms.set_fault(Fault::Timeout).unwrap();
        let asked = kms.unwrap(&CONTEXT, &wrapped);
        let waited = tokio::time::timeout(Duration::from_millis(50), asked).await;
        assert!(waited.is_err(), "it is silent");
        kms.set_fault(Fault::None).unwrap();
        assert_eq!(class(kms.unwrap(&CONTEXT, &wrapped).await), None);
        drop(directory);
        assert_eq!(
            class(kms.unwrap(&CONTEXT, &wrapped).await),
            Some(ErrorClass::Outage)
        );
    }
}
