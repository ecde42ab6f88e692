//! WAL in the bucket, sealed: finished segments, and the beginning of the one that is not (D8).
//!
//! A segment is one object whose plaintext ends at the segment's border, or at the position that a
//! beginning's name says; it is shorter than that only where the timeline begins inside the
//! segment. Committed bytes are unique, so any copy will do (D5), whichever safekeeper has put it
//! there, and of two beginnings the longer one has all of the other.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ids::{Generation, Lsn, TenantId, TimelineId};
use keyring::TenantKeys;
use sealed::ObjectKind;
use sealed::object::{Expected, ObjectSpec};
use service::entropy::OsEntropy;
use store::names::{Cell, parse_partial_segment, parse_segment};
use store::{
    Bucket, GetError, ProbeError, PutError, SealedGetError, SealedObject, SealedPutError,
    SealedStore,
};

use tokio::sync::watch;

use crate::metrics::metrics;
use crate::wal_store::SEGMENT_BYTES;

/// The most that is read at once.
const READ_BYTES: u64 = 1 << 20;

/// The WAL part of the bucket. Clones are the same.
#[derive(Clone)]
pub struct Archive {
    bucket: Bucket,
    cell: Cell,
    reached: Arc<watch::Sender<Reached>>,
}

/// What is known of the bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Reached {
    /// Whether it has passed the probe (D4).
    admitted: bool,
    /// Since when it does not answer, in unix seconds.
    unreachable_since: Option<u64>,
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

/// Sealed WAL on its way: a put that is tried again puts the same bytes (D3).
pub struct Upload {
    range: Range<Lsn>,
    name: String,
    sealed: Bytes,
}

impl Upload {
    /// What it holds.
    #[must_use]
    pub fn range(&self) -> Range<Lsn> {
        self.range.clone()
    }
}

/// An object of WAL, by its name.
struct Stored {
    name: String,
    kind: ObjectKind,
    end: Lsn,
}

/// A segment that is read.
pub struct Archived {
    object: SealedObject,
    range: Range<Lsn>,
}

impl Archive {
    /// The WAL of `cell` in `bucket`.
    #[must_use]
    pub fn new(bucket: Bucket, cell: Cell) -> Self {
        let reached = Arc::new(watch::Sender::new(Reached::default()));
        Self {
            bucket,
            cell,
            reached,
        }
    }

    /// Whether the bucket keeps what it has to promise; once it has, it may be written to (D4).
    ///
    /// # Errors
    /// [`ProbeError`].
    pub async fn probe(&self) -> Result<(), ProbeError> {
        let answered = self.bucket.probe().await;
        self.heard(!matches!(answered, Err(ProbeError::Unavailable(_))));
        if answered.is_ok() {
            self.reached.send_modify(|reached| reached.admitted = true);
        }
        answered
    }

    /// Whether it has passed the probe.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.reached.borrow().admitted
    }

    /// Returns once it has passed the probe.
    pub async fn admitted(&self) {
        let mut reached = self.reached.subscribe();
        // The sender lives in here.
        drop(reached.wait_for(|reached| reached.admitted).await);
    }

    /// Remembers whether the bucket has just answered.
    pub fn heard(&self, answered: bool) {
        let since = (!answered).then(service::clock::unix_seconds);
        self.reached.send_if_modified(|reached| {
            let changed = reached.unreachable_since.is_some() == answered;
            if changed {
                reached.unreachable_since = since;
                let seconds = i64::try_from(since.unwrap_or_default()).unwrap_or(i64::MAX);
                metrics().bucket_unreachable_since.set(seconds);
            }
            changed
        });
    }

    /// Since when the bucket does not answer, in unix seconds.
    #[must_use]
    pub fn unreachable_since(&self) -> Option<u64> {
        self.reached.borrow().unreachable_since
    }

    /// Up to where WAL from `start` on is there, sealed for this timeline, of the segment that
    /// `start` is in.
    ///
    /// # Errors
    /// [`ArchiveError::Get`].
    pub async fn end_of(
        &self,
        keys: &TenantKeys,
        timeline: TimelineId,
        start: Lsn,
    ) -> Result<Option<Lsn>, ArchiveError> {
        match self.open(keys, timeline, start).await {
            Ok(found) => Ok(Some(found.range.end)),
            Err(ArchiveError::Missing(_)) => Ok(None),
            // A bad copy is one more reason to put a good one.
            Err(ArchiveError::Get(SealedGetError::Damaged { name, source })) => {
                tracing::error!(%name, error = %source, "a segment in the bucket is damaged");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Seals a whole segment or its beginning, all of it committed (D5).
    ///
    /// # Errors
    /// The keys.
    pub async fn seal(
        &self,
        keys: &TenantKeys,
        timeline: TimelineId,
        generation: Generation,
        range: Range<Lsn>,
        wal: &[u8],
    ) -> Result<Upload, SealedPutError> {
        let (tenant, file_id) = (keys.tenant(), sealed::new_file_id(&mut OsEntropy));
        let segment = range.start.segment(SEGMENT_BYTES);
        let (kind, name) = if range.end == border(segment) {
            let name = self.cell.segment(tenant, timeline, segment, file_id);
            (ObjectKind::RemoteWal, name)
        } else {
            let cell = &self.cell;
            let name = cell.partial_segment(tenant, timeline, segment, range.end, file_id);
            (ObjectKind::RemotePartialWal, name)
        };
        assert_eq!(range.end - range.start, wal.len() as u64, "D5");
        let spec = ObjectSpec {
            kind,
            tenant,
            timeline,
            generation,
            name: name.clone(),
            aux: segment,
            created_unix: service::clock::unix_seconds(),
            file_id,
        };
        let store = SealedStore::new(self.bucket.clone(), keys.clone());
        let sealed = store.seal(&spec, wal).await?;
        Ok(Upload {
            range,
            name,
            sealed,
        })
    }

    /// Puts what was sealed.
    ///
    /// # Errors
    /// The bucket; [`PutError::Unknown`] is to be tried again with the same upload.
    pub async fn put(&self, upload: &Upload) -> Result<(), PutError> {
        let bytes = upload.sealed.clone();
        self.bucket.put_if_absent(&upload.name, bytes).await
    }

    /// Removes beginnings of segments that are in the bucket up to `whole`, and those that the
    /// beginning up to `end` has replaced, which is there (D5, D8).
    ///
    /// # Errors
    /// The bucket; what was not removed is asked for again with the next one.
    pub async fn remove_replaced(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
        whole: Lsn,
        end: Lsn,
    ) -> Result<(), GetError> {
        for stored in self.stored(tenant, timeline).await? {
            let same = stored.end.segment(SEGMENT_BYTES) == end.segment(SEGMENT_BYTES);
            let replaced = stored.end <= whole || (same && stored.end < end);
            if stored.kind == ObjectKind::RemotePartialWal && replaced {
                // Where another safekeeper was first there is nothing to remove.
                self.bucket.delete(&stored.name).await?;
            }
        }
        Ok(())
    }

    /// Opens a copy of WAL at `at`: of the segment, or of its longest beginning. One that is
    /// damaged does not hide another.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn open(
        &self,
        keys: &TenantKeys,
        timeline: TimelineId,
        at: Lsn,
    ) -> Result<Archived, ArchiveError> {
        let tenant = keys.tenant();
        let store = SealedStore::new(self.bucket.clone(), keys.clone());
        let mut missing = ArchiveError::Missing(at);
        let segment_end = border(at.segment(SEGMENT_BYTES));
        let mut copies = self.stored(tenant, timeline).await?;
        copies.retain(|stored| at < stored.end && stored.end <= segment_end);
        copies.sort_by_key(|stored| std::cmp::Reverse(stored.end));
        for Stored { name, kind, end } in copies {
            let expected = Expected {
                kind,
                tenant,
                timeline,
                name,
            };
            match store.open(&expected).await {
                Ok(object) => match Archived::new(object, end) {
                    Some(archived) if archived.covers(at) => return Ok(archived),
                    // It begins later, or is not one of ours.
                    _ => {}
                },
                Err(error @ SealedGetError::Damaged { .. }) => missing = error.into(),
                Err(SealedGetError::Get(GetError::NotFound(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(missing)
    }

    async fn stored(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
    ) -> Result<Vec<Stored>, GetError> {
        let directory = self.cell.wal(tenant, timeline);
        let found = self.bucket.list_directory(&directory).await?;
        let known = found.into_iter().filter_map(|object| {
            let name = object.name;
            let (kind, end) = match (parse_segment(&name), parse_partial_segment(&name)) {
                (Some((segment, _)), _) => (ObjectKind::RemoteWal, border(segment)),
                // What does not end inside its segment is not one of ours.
                (None, Some(p)) if p.end.segment(SEGMENT_BYTES) == p.segment => {
                    (ObjectKind::RemotePartialWal, p.end)
                }
                _ => return None,
            };
            Some(Stored { name, kind, end })
        });
        Ok(known.collect())
    }
}

/// Where a segment ends.
fn border(segment: u64) -> Lsn {
    Lsn(segment.saturating_add(1).saturating_mul(SEGMENT_BYTES))
}

impl Archived {
    /// `None` where it is longer than a segment that ends there.
    fn new(object: SealedObject, end: Lsn) -> Option<Self> {
        let start = Lsn(end.0.checked_sub(object.plaintext_len())?);
        let last = Lsn(end.0.checked_sub(1)?);
        let range = start..end;
        let in_one = start.segment(SEGMENT_BYTES) == last.segment(SEGMENT_BYTES);
        in_one.then_some(Self { object, range })
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
