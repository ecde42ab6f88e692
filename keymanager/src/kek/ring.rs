//! The opened KEKs in locked memory (K9): which version mints, which are accepted, and how a fence drops them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ids::{KekId, KekVersion, TenantId};
use locked::LockedKey;
use sealed::Kek;
use service::entropy::OsEntropy;

use super::KekError;
use super::document::Document;
use super::documents::KekDocuments;

/// The first version of every KEK.
const FIRST: KekVersion = KekVersion(1);

/// An opened KEK; it is wiped when the last user drops it.
pub struct Opened {
    /// The KEK.
    pub id: KekId,
    /// Its version.
    pub version: KekVersion,
    /// The key, in locked memory.
    pub kek: Kek,
}

/// What is known of one tenant. A fence drops `opened` and `active`, never the bounds.
#[derive(Default)]
struct Known {
    active: Option<Arc<Opened>>,
    opened: BTreeMap<KekVersion, Arc<Opened>>,
    /// The document whose opening probes the KMS: ciphertext, so it may outlive a fence.
    canary: Option<(String, Document)>,
    /// The canary did not open: it may have been wrapped anew in the meantime (K11).
    canary_doubted: bool,
    /// The highest version that was ever active here: a bucket that shows less went back in time.
    reached: KekVersion,
    /// No version up to this one becomes active any more (K8).
    spent: KekVersion,
    /// Fenced before any version was known here, so whatever the bucket shows is spent (K8).
    fenced_blind: bool,
    /// Counts fences: what was opened before one must not be kept after it.
    fences: u64,
}

/// The opened KEKs of the tenants of one key configuration.
pub struct KekRing {
    documents: KekDocuments,
    known: Mutex<BTreeMap<TenantId, Known>>,
}

impl KekRing {
    /// Nothing is open yet.
    #[must_use]
    pub fn new(documents: KekDocuments) -> Self {
        Self {
            documents,
            known: Mutex::default(),
        }
    }

    /// The KEK that mints, where it is open.
    #[must_use]
    pub fn active(&self, tenant: TenantId) -> Option<Arc<Opened>> {
        self.lock().get(&tenant)?.active.clone()
    }

    /// Opens the newest version, having made it first where there is none, or where a fence has
    /// spent all that are there (K8), or where all are below `lowest` (K10): nothing is minted
    /// that is refused when it comes back.
    ///
    /// # Errors
    /// [`KekError`]; nothing becomes active then.
    pub async fn activate(
        &self,
        tenant: TenantId,
        lowest: KekVersion,
    ) -> Result<Arc<Opened>, KekError> {
        let (reached, fences) = self.bounds(tenant);
        let newest = self.documents.newest(tenant).await?;
        let spent = self.spent(tenant, newest);
        let version = match newest {
            Some(newest) if newest < reached => return Err(too_low(tenant, newest, reached)),
            None if reached >= FIRST => return Err(too_low(tenant, KekVersion(0), reached)),
            Some(newest) if newest > spent && newest >= lowest => newest,
            Some(newest) => {
                let next = newest.0.checked_add(1).ok_or(KekError::UsedUp(tenant))?;
                let (_, before) = self.documents.read(tenant, newest).await?;
                let next = KekVersion(next).max(lowest);
                self.documents.mint(tenant, before.kek, next).await?;
                next
            }
            None => {
                let id = KekId(OsEntropy::bytes());
                let first = FIRST.max(lowest);
                self.documents.mint(tenant, id, first).await?;
                first
            }
        };
        // K10: what mints is what was read back, whoever wrote it.
        let (name, document) = self.documents.read(tenant, version).await?;
        let opened = Arc::new(self.open(&name, &document).await?);
        let mut known = self.lock();
        let known = known.entry(tenant).or_default();
        if known.fences != fences {
            // It was minted before the fence, or may have been: K8 wants one from after it.
            known.spent = known.spent.max(version);
            return Err(KekError::Fenced(tenant));
        }
        if known.reached > version {
            return Err(too_low(tenant, version, known.reached));
        }
        known.reached = version;
        known.canary = Some((name, document));
        known.canary_doubted = false;
        known.opened.insert(version, opened.clone());
        known.active = Some(opened.clone());
        Ok(opened)
    }

    /// The KEK of a wrap slot, from memory or from the bucket.
    ///
    /// # Errors
    /// [`KekError::TooLow`] below `lowest`; see [`KekError`].
    pub async fn get(
        &self,
        tenant: TenantId,
        version: KekVersion,
        lowest: KekVersion,
    ) -> Result<Arc<Opened>, KekError> {
        if version < lowest {
            return Err(too_low(tenant, version, lowest));
        }
        let (_, fences) = self.bounds(tenant);
        let held = self
            .lock()
            .get(&tenant)
            .and_then(|known| known.opened.get(&version).cloned());
        if let Some(opened) = held {
            return Ok(opened);
        }
        let (name, document) = self.documents.read(tenant, version).await?;
        let opened = Arc::new(self.open(&name, &document).await?);
        let mut known = self.lock();
        let known = known.entry(tenant).or_default();
        if known.fences != fences {
            return Err(KekError::Fenced(tenant));
        }
        known.opened.insert(version, opened.clone());
        Ok(opened)
    }

    /// Asks the KMS whether the key still serves, by a real decrypt (K1). A tenant without a
    /// canary is activated, which ends in a decrypt, too.
    ///
    /// # Errors
    /// [`KekError`].
    pub async fn probe(&self, tenant: TenantId, lowest: KekVersion) -> Result<(), KekError> {
        let held = {
            let mut known = self.lock();
            let known = known.entry(tenant).or_default();
            known
                .canary
                .clone()
                .map(|held| (held, known.canary_doubted))
        };
        let (name, document) = match held {
            None => return self.activate(tenant, lowest).await.map(drop),
            Some((held, false)) => held,
            Some((held, true)) => self.read_again(tenant, held).await,
        };
        let opened = self.documents.open(&name, &document).await.map(drop);
        let mut known = self.lock();
        let known = known.entry(tenant).or_default();
        known.canary_doubted = opened.is_err();
        if opened.is_ok() {
            known.canary = Some((name, document));
        }
        opened
    }

    /// The newest wrap of the canary's version; the one that is held where the bucket is silent.
    async fn read_again(&self, tenant: TenantId, held: (String, Document)) -> (String, Document) {
        match self.documents.read(tenant, held.1.version).await {
            Ok(newest) => newest,
            Err(error) => {
                tracing::warn!(%tenant, %error, "the canary was not read again");
                held
            }
        }
    }

    /// Drops every opened KEK of a tenant. The next activation mints a new version (K8).
    pub fn fence(&self, tenant: TenantId) {
        let mut known = self.lock();
        let known = known.entry(tenant).or_default();
        known.active = None;
        known.opened.clear();
        known.spent = known.spent.max(known.reached);
        known.fenced_blind |= known.reached < FIRST;
        known.fences += 1;
    }

    async fn open(&self, name: &str, document: &Document) -> Result<Opened, KekError> {
        let kek = self.documents.open(name, document).await?;
        Ok(Opened {
            id: document.kek,
            version: document.version,
            kek: kek.kept(LockedKey::new).map_err(KekError::NoMemory)?,
        })
    }

    fn bounds(&self, tenant: TenantId) -> (KekVersion, u64) {
        self.lock()
            .get(&tenant)
            .map_or_else(Default::default, |known| (known.reached, known.fences))
    }

    /// The highest version that may no longer become active, given what the bucket shows.
    fn spent(&self, tenant: TenantId, newest: Option<KekVersion>) -> KekVersion {
        let mut known = self.lock();
        let known = known.entry(tenant).or_default();
        if std::mem::take(&mut known.fenced_blind) {
            known.spent = known.spent.max(newest.unwrap_or_default());
        }
        known.spent
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn too_low(tenant: TenantId, version: KekVersion, bound: KekVersion) -> KekError {
    KekError::TooLow {
        tenant,
        version,
        bound,
    }
}
