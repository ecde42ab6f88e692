//! Sealed objects of one tenant: nothing of a customer reaches the bucket in another shape.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use keyring::{KeyError, LeasedDek, TenantKeys};
use sealed::object::{self, Expected, ObjectSpec, OpenError, Reader};
use sealed::{HEADER_BYTES, header};

use crate::{Bucket, GetError, PutError};

/// A sealed object that was not put.
#[derive(Debug, thiserror::Error)]
pub enum SealedPutError {
    /// There is no key to seal with.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The spec is of another tenant than the keys.
    #[error("an object of another tenant than the keys")]
    OtherTenant,
    /// The bucket.
    #[error(transparent)]
    Put(#[from] PutError),
}

/// A sealed object that was not read.
#[derive(Debug, thiserror::Error)]
pub enum SealedGetError {
    /// The bucket.
    #[error(transparent)]
    Get(#[from] GetError),
    /// There is no key to open with: nothing is said about the object.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The object is not what was written under this name.
    #[error("{name} is damaged or was exchanged: {source}")]
    Damaged {
        /// The name.
        name: String,
        /// How.
        #[source]
        source: OpenError,
    },
}

/// The bucket through the keys of one tenant.
#[derive(Clone)]
pub struct SealedStore {
    bucket: Bucket,
    keys: TenantKeys,
}

impl SealedStore {
    /// The objects of the tenant of `keys` in `bucket`.
    #[must_use]
    pub const fn new(bucket: Bucket, keys: TenantKeys) -> Self {
        Self { bucket, keys }
    }

    /// The bucket beneath, for lists, deletions and documents.
    #[must_use]
    pub const fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Seals `plaintext` under a data key of its own. Who retries a put keeps these bytes:
    /// sealing again makes others, and a retried put would not meet itself (D3).
    ///
    /// # Errors
    /// [`SealedPutError::Key`], [`SealedPutError::OtherTenant`].
    pub async fn seal(&self, spec: &ObjectSpec, plaintext: &[u8]) -> Result<Bytes, SealedPutError> {
        if spec.tenant != self.keys.tenant() {
            return Err(SealedPutError::OtherTenant);
        }
        let (dek, slot) = self.keys.mint().await?;
        Ok(dek.with(|dek| object::seal(spec, dek, &slot, plaintext))?)
    }

    /// Seals `plaintext` and puts it under the name of `spec`.
    ///
    /// # Errors
    /// See [`SealedPutError`].
    pub async fn put(&self, spec: &ObjectSpec, plaintext: &[u8]) -> Result<(), SealedPutError> {
        let sealed = self.seal(spec, plaintext).await?;
        // A fence that came while sealing stops the append too (K6).
        self.keys.check()?;
        Ok(self.bucket.put_if_absent(&spec.name, sealed).await?)
    }

    /// Reads and opens the whole object.
    ///
    /// # Errors
    /// See [`SealedGetError`].
    pub async fn get(&self, expected: &Expected) -> Result<Bytes, SealedGetError> {
        let sealed = self.bucket.get(&expected.name).await?;
        self.open_bytes(&sealed, expected).await
    }

    /// Opens the bytes of a whole object, as [`crate::documents::latest`] reads them.
    ///
    /// # Errors
    /// [`SealedGetError::Key`], [`SealedGetError::Damaged`].
    pub async fn open_bytes(
        &self,
        sealed: &[u8],
        expected: &Expected,
    ) -> Result<Bytes, SealedGetError> {
        let dek = self.dek_of(sealed, expected).await?;
        let opened = dek
            .with(|dek| object::open_all(sealed, dek, expected))?
            .map_err(|source| damaged(expected, source))?;
        // The guard is asked when the answer leaves, not only when it is made (K5).
        dek.check()?;
        Ok(opened)
    }

    /// Opens an object to read ranges of it.
    ///
    /// # Errors
    /// See [`SealedGetError`].
    pub async fn open(&self, expected: &Expected) -> Result<SealedObject, SealedGetError> {
        let length = self.bucket.head(&expected.name).await?;
        let header_end = length.min(HEADER_BYTES as u64);
        let head = self.bucket.get_range(&expected.name, 0..header_end).await?;
        let dek = self.dek_of(&head, expected).await?;
        let reader = dek
            .with(|dek| Reader::open(&head, length, dek, expected))?
            .map_err(|source| damaged(expected, source))?;
        Ok(SealedObject {
            bucket: self.bucket.clone(),
            name: expected.name.clone(),
            reader,
            dek,
        })
    }

    async fn dek_of(
        &self,
        sealed: &[u8],
        expected: &Expected,
    ) -> Result<Arc<LeasedDek>, SealedGetError> {
        let header = header::Header::decode(sealed)
            .map_err(|source| damaged(expected, OpenError::Header(source)))?;
        Ok(self.keys.open(header.active_slot()).await?)
    }
}

fn damaged(expected: &Expected, source: OpenError) -> SealedGetError {
    SealedGetError::Damaged {
        name: expected.name.clone(),
        source,
    }
}

/// An object whose header is proven, to be read in ranges.
pub struct SealedObject {
    bucket: Bucket,
    name: String,
    reader: Reader,
    dek: Arc<LeasedDek>,
}

impl SealedObject {
    /// The length of the plaintext.
    #[must_use]
    pub fn plaintext_len(&self) -> u64 {
        self.reader.plaintext_len()
    }

    /// Its proven header.
    #[must_use]
    pub fn header(&self) -> &header::Header {
        self.reader.header()
    }

    /// Reads and opens `range` of the plaintext.
    ///
    /// # Errors
    /// See [`SealedGetError`].
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, SealedGetError> {
        let refused = |source| SealedGetError::Damaged {
            name: self.name.clone(),
            source,
        };
        if range.start > range.end || range.end > self.plaintext_len() {
            return Err(refused(OpenError::Range));
        }
        // The reader holds a key of its own: only this guard makes it stop at a fence (K5).
        self.dek.check()?;
        let sealed = self
            .bucket
            .get_range(&self.name, self.reader.sealed_range(range.clone()))
            .await?;
        let opened = self.reader.open_range(range, &sealed).map_err(refused)?;
        self.dek.check()?;
        Ok(opened)
    }
}
