//! Finished segments of WAL in the bucket, sealed.
//!
//! A segment is one object whose plaintext ends at the segment's border; it is shorter than a
//! segment only where the timeline begins inside it. Committed bytes are unique, so any copy of a
//! segment will do (D5), whichever safekeeper has put it there.

use std::ops::Range;

use bytes::Bytes;
use ids::{Generation, Lsn, TenantId, TimelineId};
use keyring::TenantKeys;
use sealed::ObjectKind;
use sealed::object::{Expected, ObjectSpec};
use service::entropy::OsEntropy;
use store::names::{Cell, parse_segment};
use store::{
    Bucket, GetError, ProbeError, PutError, SealedGetError, SealedObject, SealedPutError,
    SealedStore,
};

use crate::wal_store::SEGMENT_BYTES;

/// The most that is read at once.
const READ_BYTES: u64 = 1 << 20;

/// The WAL part of the bucket. Clones are the same.
#[derive(Clone)]
pub struct Archive {
    bucket: Bucket,
    cell: Cell,
}

/// WAL that cannot be read from the bucket.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The bucket or the object.
    #[error(transparent)]
    Get(#[from] SealedGetError),
    /// There is no object of the segment, or it begins later.
    #[error("WAL at {0} is neither here nor in the bucket")]
    Missing(Lsn),
}

impl From<GetError> for ArchiveError {
    fn from(error: GetError) -> Self {
        Self::Get(error.into())
    }
}

/// A sealed segment on its way: a put that is tried again puts the same bytes (D3).
pub struct Upload {
    name: String,
    sealed: Bytes,
}

/// A segment that is read.
pub struct Archived {
    object: SealedObject,
    range: Range<Lsn>,
}

impl Archive {
    /// The WAL of `cell` in `bucket`.
    #[must_use]
    pub const fn new(bucket: Bucket, cell: Cell) -> Self {
        Self { bucket, cell }
    }

    /// Whether the bucket keeps what it has to promise (D4).
    ///
    /// # Errors
    /// [`ProbeError`].
    pub async fn probe(&self) -> Result<(), ProbeError> {
        self.bucket.probe().await
    }

    /// Whether the segment is there and is sealed for this timeline.
    ///
    /// # Errors
    /// [`ArchiveError::Get`].
    pub async fn holds(
        &self,
        keys: &TenantKeys,
        timeline: TimelineId,
        segment: u64,
        start: Lsn,
    ) -> Result<bool, ArchiveError> {
        match self.open(keys, timeline, segment).await {
            Ok(found) => Ok(found.range.start <= start),
            Err(ArchiveError::Missing(_)) => Ok(false),
            // A bad copy is one more reason to put a good one.
            Err(ArchiveError::Get(SealedGetError::Damaged { name, source })) => {
                tracing::error!(%name, error = %source, "a segment in the bucket is damaged");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Seals a whole segment, all of it committed (D5).
    ///
    /// # Errors
    /// The keys.
    pub async fn seal(
        &self,
        keys: &TenantKeys,
        timeline: TimelineId,
        generation: Generation,
        segment: u64,
        wal: &[u8],
    ) -> Result<Upload, SealedPutError> {
        let file_id = sealed::new_file_id(&mut OsEntropy);
        let name = self.cell.segment(keys.tenant(), timeline, segment, file_id);
        let spec = ObjectSpec {
            kind: ObjectKind::RemoteWal,
            tenant: keys.tenant(),
            timeline,
            generation,
            name: name.clone(),
            aux: segment,
            created_unix: service::clock::unix_seconds(),
            file_id,
        };
        let store = SealedStore::new(self.bucket.clone(), keys.clone());
        let sealed = store.seal(&spec, wal).await?;
        Ok(Upload { name, sealed })
    }

    /// Puts what was sealed.
    ///
    /// # Errors
    /// The bucket; [`PutError::Unknown`] is to be tried again with the same upload.
    pub async fn put(&self, upload: &Upload) -> Result<(), PutError> {
        let bytes = upload.sealed.clone();
        self.bucket.put_if_absent(&upload.name, bytes).await
    }

    /// Opens a copy of the segment. One that is damaged does not hide another.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn open(
        &self,
        keys: &TenantKeys,
        timeline: TimelineId,
        segment: u64,
    ) -> Result<Archived, ArchiveError> {
        let tenant = keys.tenant();
        let store = SealedStore::new(self.bucket.clone(), keys.clone());
        let mut missing = ArchiveError::Missing(Lsn(segment.saturating_mul(SEGMENT_BYTES)));
        for name in self.copies(tenant, timeline, segment).await? {
            let expected = Expected {
                kind: ObjectKind::RemoteWal,
                tenant,
                timeline,
                name,
            };
            match store.open(&expected).await {
                Ok(object) if object.plaintext_len() <= SEGMENT_BYTES => {
                    return Ok(Archived::new(object, segment));
                }
                // Not one of ours: no segment is longer.
                Ok(_) => {}
                Err(error @ SealedGetError::Damaged { .. }) => missing = error.into(),
                Err(SealedGetError::Get(GetError::NotFound(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(missing)
    }

    async fn copies(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
        segment: u64,
    ) -> Result<Vec<String>, ArchiveError> {
        let directory = self.cell.wal(tenant, timeline);
        let found = self.bucket.list_directory(&directory).await?;
        let names = found.into_iter().map(|object| object.name);
        let of_segment = |name: &String| parse_segment(name).is_some_and(|(s, _)| s == segment);
        Ok(names.filter(of_segment).collect())
    }
}

impl Archived {
    fn new(object: SealedObject, segment: u64) -> Self {
        let end = Lsn(segment.saturating_add(1).saturating_mul(SEGMENT_BYTES));
        let start = Lsn(end.0.saturating_sub(object.plaintext_len()));
        Self {
            object,
            range: start..end,
        }
    }

    /// Whether it has the byte at `at`.
    #[must_use]
    pub fn covers(&self, at: Lsn) -> bool {
        self.range.contains(&at)
    }

    /// WAL from `at` on, at most to `end`.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn read(&self, at: Lsn, end: Lsn) -> Result<Bytes, ArchiveError> {
        if !self.covers(at) || end < at {
            return Err(ArchiveError::Missing(at));
        }
        let end = end.min(self.range.end).min(Lsn(at.0 + READ_BYTES));
        let within = at - self.range.start..end - self.range.start;
        Ok(self.object.read(within).await?)
    }
}
