//! The KEK documents of all tenants in the bucket, and the KMS that opens them.

use std::sync::Arc;

use bytes::Bytes;
use ids::{KekId, KekVersion, TenantId};
use sealed::Kek;
use service::clock;
use service::entropy::OsEntropy;
use store::Bucket;
use store::documents::{PutNextError, latest, put_next};
use store::names::Cell;

use super::document::Document;
use super::{BadDocument, KekError};
use crate::class::ErrorClass;
use crate::kms::{Context, Kms};

/// The number of the first wrap of a version.
const FIRST_WRAP: u64 = 1;
/// How often a put is repeated whose answer was lost.
const PUT_TRIES: u32 = 3;

/// Whom a recovery has to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// The kind of KMS.
    pub kind: String,
    /// The key there.
    pub key: String,
}

/// The KEK documents that one key of one KMS opens.
#[derive(Clone)]
pub struct KekDocuments {
    bucket: Bucket,
    cell: Cell,
    kms: Arc<dyn Kms>,
    provider: Provider,
}

impl KekDocuments {
    /// The documents of `cell` in `bucket`.
    #[must_use]
    pub fn new(bucket: Bucket, cell: Cell, kms: Arc<dyn Kms>, provider: Provider) -> Self {
        Self {
            bucket,
            cell,
            kms,
            provider,
        }
    }

    /// The highest version that has a document.
    ///
    /// # Errors
    /// [`KekError::Bucket`].
    pub async fn newest(&self, tenant: TenantId) -> Result<Option<KekVersion>, KekError> {
        let directory = self.cell.keys(tenant);
        let found = self
            .bucket
            .list_directory(&directory)
            .await
            .map_err(|e| bucket_error(tenant, e))?;
        let version = |name: &str| {
            let rest = name.strip_prefix(&directory)?.strip_prefix("/kek-")?;
            let version = KekVersion(rest.split_once('-')?.0.parse().ok()?);
            // Another text of the same number is not ours.
            self.cell.kek(tenant, version).number(name).map(|_| version)
        };
        Ok(found.iter().filter_map(|o| version(&o.name)).max())
    }

    /// Reads the newest document of a version.
    ///
    /// # Errors
    /// [`KekError::Missing`], [`KekError::Damaged`], [`KekError::Bucket`].
    pub async fn read(
        &self,
        tenant: TenantId,
        version: KekVersion,
    ) -> Result<(String, Document), KekError> {
        let series = self.cell.kek(tenant, version);
        let (number, bytes) = latest(&self.bucket, &series)
            .await
            .map_err(|e| bucket_error(tenant, e))?
            .ok_or(KekError::Missing { tenant, version })?;
        let name = series.name(number);
        match Document::decode(&bytes, tenant, version) {
            Ok(document) => Ok((name, document)),
            Err(source) => Err(KekError::Damaged { name, source }),
        }
    }

    /// Has the KMS open a document.
    ///
    /// # Errors
    /// [`KekError::DoesNotOpen`] where it is the document's fault, else [`KekError::Kms`].
    pub async fn open(&self, name: &str, document: &Document) -> Result<Kek, KekError> {
        let wrapped = document.wrapped().map_err(|e| KekError::Damaged {
            name: name.to_owned(),
            source: BadDocument::Hex(e),
        })?;
        let context = document.context();
        match self.kms.unwrap(&context, &wrapped).await {
            Ok(kek) => Ok(kek),
            Err(source) if source.class == ErrorClass::BrokenBlob => Err(KekError::DoesNotOpen {
                name: name.to_owned(),
                source,
            }),
            Err(source) => Err(KekError::Kms {
                tenant: context.tenant,
                version: context.version,
                source,
            }),
        }
    }

    /// Puts a document of a fresh KEK as `version`. Whether it is ours or that of another
    /// keymanager which was faster shows when it is read back.
    ///
    /// # Errors
    /// [`KekError::Kms`]; [`KekError::Bucket`] where nobody knows whether it was put.
    pub async fn mint(
        &self,
        tenant: TenantId,
        kek: KekId,
        version: KekVersion,
    ) -> Result<(), KekError> {
        let context = Context {
            tenant,
            kek,
            version,
        };
        let wrapped = self
            .kms
            .generate(&context)
            .await
            .map_err(|source| KekError::Kms {
                tenant,
                version,
                source,
            })?;
        let now = clock::unix_seconds();
        let document = Document::new(&context, &self.provider, &wrapped, OsEntropy::bytes(), now);
        let bytes = serde_json::to_vec_pretty(&document).map_err(|e| bucket_error(tenant, e))?;
        self.put(&context, bytes.into()).await
    }

    async fn put(&self, context: &Context, bytes: Bytes) -> Result<(), KekError> {
        let series = self.cell.kek(context.tenant, context.version);
        let mut tries = 0;
        loop {
            tries += 1;
            match put_next(&self.bucket, &series, FIRST_WRAP, bytes.clone()).await {
                // A lost race is as good as a won one: there is one document, and all use it.
                Ok(()) | Err(PutNextError::Lost { .. }) => return Ok(()),
                Err(PutNextError::Unknown(_)) if tries < PUT_TRIES => {}
                Err(e) => return Err(bucket_error(context.tenant, e)),
            }
        }
    }
}

fn bucket_error(tenant: TenantId, reason: impl ToString) -> KekError {
    KekError::Bucket {
        tenant,
        reason: reason.to_string(),
    }
}
