//! Where a timeline lives in the bucket, and the sequence of its manifests.

use std::sync::Arc;

use bytes::Bytes;
use ids::{Generation, TenantId, TimelineId};
use keyring::{KeyError, Keyring, TenantKeys};
use sealed::ObjectKind;
use sealed::object::{Expected, ObjectSpec};
use service::entropy::OsEntropy;
use store::documents::{self, PutNextError, Series};
use store::names::Cell;
use store::{Bucket, GetError, SealedGetError, SealedPutError, SealedStore};

use crate::layer::cache::LayerCache;
use crate::layer::sealed_file::{LayerStore, Place};
use crate::manifest::{Manifest, ManifestError};

/// The number of a timeline's first manifest.
pub(crate) const FIRST: u64 = 1;

/// The place of one timeline.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) bucket: Bucket,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) cell: Cell,
    pub(crate) tenant: TenantId,
    pub(crate) timeline: TimelineId,
    /// Layers and blocks at hand, of all timelines of this process.
    pub(crate) cache: Arc<LayerCache>,
}

/// The newest manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestReadError {
    /// There is no key to open it with.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The bucket cannot be asked.
    #[error("the manifests of timeline {timeline} cannot be read: {source}")]
    Bucket {
        timeline: TimelineId,
        #[source]
        source: GetError,
    },
    /// It is not what was written under this name.
    #[error("manifest {name} does not open: {source}")]
    Sealed {
        name: String,
        #[source]
        source: SealedGetError,
    },
    /// It opens, but it is not a manifest of this timeline.
    #[error("manifest {name} is refused: {source}")]
    Content {
        name: String,
        #[source]
        source: ManifestError,
    },
}

/// A manifest that was not put.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestPutError {
    /// There is no key to seal with.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It was not sealed.
    #[error("manifest {name} cannot be sealed: {source}")]
    Seal {
        name: String,
        #[source]
        source: SealedPutError,
    },
    /// It has no encoding.
    #[error(transparent)]
    Encode(#[from] ManifestError),
    /// The bucket did not accept it.
    #[error("manifest {name}: {source}")]
    Put {
        name: String,
        #[source]
        source: PutNextError,
    },
}

impl Home {
    /// The bucket through the keys that the tenant has now.
    pub(super) async fn store(&self) -> Result<SealedStore, KeyError> {
        let keys = self.keyring.tenant(self.tenant).await?;
        Ok(SealedStore::new(self.bucket.clone(), keys))
    }

    /// The layers through these keys.
    pub(super) fn layer_store(&self, keys: &TenantKeys) -> LayerStore {
        LayerStore {
            bucket: self.bucket.clone(),
            keys: keys.clone(),
            cache: Arc::clone(&self.cache),
        }
    }

    /// The newest manifest and its number; `None` where the timeline was never created.
    pub(super) async fn newest(&self) -> Result<Option<(u64, Manifest)>, ManifestReadError> {
        let store = self.store().await?;
        let newest = documents::latest(&self.bucket, &self.manifests()).await;
        let newest = newest.map_err(|source| ManifestReadError::Bucket {
            timeline: self.timeline,
            source,
        })?;
        let Some((number, sealed)) = newest else {
            return Ok(None);
        };
        let name = self.manifests().name(number);
        let expected = Expected {
            kind: ObjectKind::Manifest,
            tenant: self.tenant,
            timeline: self.timeline,
            name: name.clone(),
        };
        // The name is sealed with the content: an older manifest under a newer name is refused.
        let opened = store.open_bytes(&sealed, &expected).await;
        let plain = opened.map_err(|source| ManifestReadError::Sealed {
            name: name.clone(),
            source,
        })?;
        let manifest = Manifest::decode(&plain, self.tenant, self.timeline)
            .map_err(|source| ManifestReadError::Content { name, source })?;
        Ok(Some((number, manifest)))
    }

    /// The sealed bytes of manifest `number`. A put that is retried keeps them (D3).
    pub(super) async fn seal(
        &self,
        number: u64,
        generation: Generation,
        manifest: &Manifest,
    ) -> Result<Bytes, ManifestPutError> {
        let name = self.manifests().name(number);
        let spec = ObjectSpec {
            kind: ObjectKind::Manifest,
            tenant: self.tenant,
            timeline: self.timeline,
            generation,
            name: name.clone(),
            aux: number,
            created_unix: service::clock::unix_seconds(),
            file_id: sealed::new_file_id(&mut OsEntropy),
        };
        let plain = manifest.encode()?;
        let sealed = self.store().await?.seal(&spec, &plain).await;
        sealed.map_err(|source| ManifestPutError::Seal { name, source })
    }

    /// Puts manifest `number`.
    pub(super) async fn put(&self, number: u64, sealed: Bytes) -> Result<(), ManifestPutError> {
        // A fence stops the append too (K6).
        let keys = self.keyring.tenant(self.tenant).await?;
        let _operation = keys.begin()?;
        documents::put_next(&self.bucket, &self.manifests(), number, sealed)
            .await
            .map_err(|source| ManifestPutError::Put {
                name: self.manifests().name(number),
                source,
            })
    }

    /// The documents.
    pub(super) fn manifests(&self) -> Series {
        self.cell.manifest(self.tenant, self.timeline)
    }

    /// What the names of all layers begin with.
    pub(super) fn layers(&self) -> String {
        format!("{}/", self.cell.layers(self.tenant, self.timeline))
    }

    /// Where a layer belongs; `folder` is [`Home::layers`].
    pub(super) fn place<'a>(&self, generation: Generation, folder: &'a str) -> Place<'a> {
        Place {
            tenant: self.tenant,
            timeline: self.timeline,
            generation,
            created_unix: service::clock::unix_seconds(),
            folder,
        }
    }
}

/// What tells one writer's manifest from another's (D3).
pub(super) fn nonce() -> String {
    sealed::new_file_id(&mut OsEntropy).to_string()
}
