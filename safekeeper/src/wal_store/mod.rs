//! The WAL of one timeline on the local disk, sealed (FORMAT.md of `sealed`, part 3).
//!
//! A directory of segments of 16 MiB of WAL, each one log with its own data key.
//!
//!   S1  an append that returned is durable, and is one frame and one sync for each MiB and
//!       segment; the next frame is not begun before (W4);
//!   S2  after a write or sync that failed, or whose future was dropped, the store is dead:
//!       opening it again begins a new epoch;
//!   S3  frames do not cross the border of a segment, and a segment is not followed by another
//!       one before it is full, synced and declared complete;
//!   S4  a segment's first epoch has the number after the last one of the segment before it: so
//!       an epoch that was added to the former later voids the latter;
//!   S5  segments behind a truncation are removed when its epoch is durable, the last one first:
//!       what a crash leaves is a run without gaps, and the epoch tells that it is void;
//!   S6  a directory has one store, and no write of an earlier one still on its way;
//!   S7  nothing is sealed or handed out after the end of the tenant's lease (K5);
//!   S8  trimming takes the oldest segments first, never the one that is written.

mod disk;
mod error;
mod open;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ids::{Generation, Lsn, NodeId, TenantId, Term, TimelineId};
use keyring::TenantKeys;
use sealed::log::{Anchor, EpochStart, Log, LogWriter, PAYLOAD_BYTES_MAX, SegmentSpec};
use sealed::object::Expected;
use service::entropy::OsEntropy;

pub use error::{DiskError, OpenError, ReadError, WriteError};

/// The WAL in one segment.
pub const SEGMENT_BYTES: u64 = 16 << 20;

/// Whose WAL it is, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory of the timeline; nothing else lies in it.
    pub directory: PathBuf,
    /// The tenant.
    pub tenant: TenantId,
    /// The timeline.
    pub timeline: TimelineId,
    /// The generation of the membership that writes.
    pub generation: Generation,
    /// This node.
    pub node: NodeId,
}

/// What the acceptor's record keeps of the log, durable elsewhere (A5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreAnchor {
    /// The segment that was being written.
    pub segment: u64,
    /// Its last epoch, and what was committed of the whole timeline.
    pub log: Anchor,
}

/// A file of WAL that is only read.
struct Segment {
    path: PathBuf,
    file: Arc<File>,
    log: Log,
}

/// The file that is written.
struct Tail {
    number: u64,
    path: PathBuf,
    file: Arc<File>,
    writer: LogWriter,
}

/// The WAL of a timeline, open for writing: one at a time for a directory.
pub struct WalStore {
    place: Place,
    keys: TenantKeys,
    boot_nonce: u64,
    lock: disk::Lock,
    finished: BTreeMap<u64, Segment>,
    /// Not there while it is written, and after a write that failed (S2).
    tail: Option<Tail>,
}

impl WalStore {
    /// The first position that is kept; `None` when the store is dead.
    #[must_use]
    pub fn first_lsn(&self) -> Option<Lsn> {
        let tail = self.tail.as_ref()?;
        let first = self.finished.values().next().map(|s| &s.log);
        Some(first_of(first.unwrap_or(tail.writer.log())))
    }

    /// The end of the WAL, all of which is durable; `None` when the store is dead.
    #[must_use]
    pub fn end_lsn(&self) -> Option<Lsn> {
        Some(self.tail.as_ref()?.writer.log().end_lsn())
    }

    /// What the acceptor's record is to keep; `None` when the store is dead.
    #[must_use]
    pub fn anchor(&self, commit_lsn: Lsn) -> Option<StoreAnchor> {
        let tail = self.tail.as_ref()?;
        let epoch = tail.writer.log().epochs().next_back()?;
        Some(StoreAnchor {
            segment: tail.number,
            log: Anchor {
                epoch: epoch.number,
                epoch_salt: epoch.salt,
                term: epoch.term,
                commit_lsn,
            },
        })
    }

    /// Appends WAL that begins where the store ends, and syncs it (S1). No bytes make a mark,
    /// which proves that the frame before it had been synced.
    ///
    /// # Errors
    /// [`WriteError::Disk`] kills the store (S2); of several frames some may be durable.
    pub async fn append(&mut self, start_lsn: Lsn, wal: &[u8]) -> Result<(), WriteError> {
        let mut at = start_lsn;
        let mut rest = wal;
        loop {
            let full = self.tail.as_ref().is_some_and(Tail::is_full);
            if full && !rest.is_empty() && self.end_lsn() == Some(at) {
                self.roll_over().await?;
            }
            let space = SEGMENT_BYTES - at.segment_offset(SEGMENT_BYTES);
            let space = usize::try_from(space).unwrap_or(usize::MAX);
            let (frame, later) = rest.split_at(rest.len().min(space).min(PAYLOAD_BYTES_MAX));
            self.append_frame(at, frame).await?;
            at = at + frame.len() as u64;
            rest = later;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Voids everything from `to` on, for `term`, and writes on from there.
    ///
    /// # Errors
    /// [`WriteError::Disk`] kills the store (S2).
    pub async fn truncate(&mut self, to: Lsn, term: Term) -> Result<(), WriteError> {
        self.keys.check()?;
        let tail = self.tail.as_ref().ok_or(WriteError::Dead)?;
        let first = self.first_lsn().ok_or(WriteError::Dead)?;
        if to < first {
            return Err(WriteError::TooOld { first, at: to });
        }
        let start = self.epoch_start(to, term);
        let number = to.segment(SEGMENT_BYTES);
        if number >= tail.number || to > tail.writer.log().end_lsn() {
            return self.begin_epoch(&start).await;
        }
        let last = tail.writer.log().epochs().next_back().map(|e| e.term);
        if last.is_none_or(|last| term <= last) {
            return Err(WriteError::SameTerm(to));
        }
        self.truncate_to_segment(number, &start).await
    }

    /// Whether [`WalStore::trim`] would remove a segment.
    #[must_use]
    pub fn has_below(&self, below: Lsn) -> bool {
        let first = self.finished.first_key_value();
        first.is_some_and(|(number, _)| border(*number) <= below)
    }

    /// Removes the segments that end at or before `below` (S8).
    ///
    /// # Errors
    /// The disk; what a crash or an error leaves is a run without gaps.
    pub async fn trim(&mut self, below: Lsn) -> Result<(), DiskError> {
        while let Some(first) = self.finished.first_entry() {
            if border(*first.key()) > below {
                break;
            }
            disk::unlink(&self.lock, &first.get().path).await?;
            first.remove();
        }
        Ok(())
    }

    /// The WAL of `range`, which has to be within what is kept.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(&self, range: Range<Lsn>) -> Result<Bytes, ReadError> {
        self.keys.check()?;
        let (Some(first), Some(end)) = (self.first_lsn(), self.end_lsn()) else {
            return Err(ReadError::Dead);
        };
        if range.start < first || range.end > end || range.start > range.end {
            return Err(ReadError::OutOfRange { first, end });
        }
        let mut out = BytesMut::new();
        let mut at = range.start;
        while at < range.end {
            let piece = self.read_frame(at).await?;
            let wanted = range.end - at;
            let length = piece
                .len()
                .min(usize::try_from(wanted).unwrap_or(usize::MAX));
            out.extend_from_slice(&piece[..length]);
            at = at + length as u64;
        }
        // S7: the lease may have ended while the disk was read.
        self.keys.check()?;
        Ok(out.freeze())
    }

    /// What is valid from `at` to the end of its frame; never empty.
    async fn read_frame(&self, at: Lsn) -> Result<Bytes, ReadError> {
        let segment = at.segment(SEGMENT_BYTES);
        let tail = self.tail.as_ref().ok_or(ReadError::Dead)?;
        let (log, file, path) = match self.finished.get(&segment) {
            Some(s) => (&s.log, &s.file, &s.path),
            None => (tail.writer.log(), &tail.file, &tail.path),
        };
        let (first, end) = (first_of(log), log.end_lsn());
        let missing = ReadError::OutOfRange { first, end };
        let Some(frame) = log.frame_at(at) else {
            return Err(missing);
        };
        let range = frame.sealed_range();
        let Ok(length) = usize::try_from(range.end - range.start) else {
            return Err(missing);
        };
        let sealed = disk::read(file, path, range.start, length).await?;
        let payload = log
            .read(frame, &sealed)
            .map_err(|source| ReadError::Damaged { segment, source })?;
        let skip = usize::try_from(at - frame.start_lsn).unwrap_or(usize::MAX);
        Ok(payload.slice(skip.min(payload.len())..))
    }

    async fn append_frame(&mut self, at: Lsn, payload: &[u8]) -> Result<(), WriteError> {
        self.keys.check()?;
        let tail = self.tail.as_mut().ok_or(WriteError::Dead)?;
        let offset = tail.writer.log().end_offset();
        let bytes = tail.writer.append(at, payload)?;
        self.write_tail(offset, bytes).await
    }

    async fn begin_epoch(&mut self, start: &EpochStart) -> Result<(), WriteError> {
        let tail = self.tail.as_mut().ok_or(WriteError::Dead)?;
        let offset = tail.writer.log().end_offset();
        let bytes = tail.writer.begin_epoch(start, &mut OsEntropy)?;
        self.write_tail(offset, bytes).await
    }

    /// S2: the tail is out of the store until what was sealed is durable.
    async fn write_tail(&mut self, offset: u64, bytes: Bytes) -> Result<(), WriteError> {
        let tail = self.tail.take().ok_or(WriteError::Dead)?;
        disk::append(&self.lock, &tail.file, &tail.path, offset, bytes).await?;
        self.tail = Some(tail);
        Ok(())
    }

    /// S3: declares the full tail complete, and makes the next one.
    async fn roll_over(&mut self) -> Result<(), WriteError> {
        self.keys.check()?;
        let tail = self.tail.as_ref().ok_or(WriteError::Dead)?;
        let log = tail.writer.log();
        let (number, at) = (tail.number, log.end_lsn());
        let last = *log.epochs().next_back().ok_or(WriteError::Dead)?;
        // Before the old one ends: a key that is not to be had must not cost the store.
        let (dek, slot) = self.keys.mint().await?;
        let start = self.epoch_start(at, last.term);
        let spec = segment_spec(&self.place, number + 1);
        // S4
        let epoch = last
            .number
            .checked_add(1)
            .ok_or(sealed::log::AppendError::Full)?;
        let (writer, bytes) =
            dek.with(|dek| LogWriter::create(&spec, dek, &slot, epoch, &start, &mut OsEntropy))?;

        let tail = self.tail.take().ok_or(WriteError::Dead)?;
        let offset = tail.writer.log().end_offset();
        let (log, seal) = tail.writer.finish();
        disk::append(&self.lock, &tail.file, &tail.path, offset, seal).await?;
        let path = segment_path(&self.place, number + 1);
        let file = disk::create(&self.lock, &path, bytes).await?;
        let finished = Segment {
            path: tail.path,
            file: tail.file,
            log,
        };
        self.finished.insert(number, finished);
        self.tail = Some(Tail {
            number: number + 1,
            path,
            file,
            writer,
        });
        Ok(())
    }

    /// S5
    async fn truncate_to_segment(
        &mut self,
        number: u64,
        start: &EpochStart,
    ) -> Result<(), WriteError> {
        let mut void = vec![self.tail.take().ok_or(WriteError::Dead)?.path];
        let mut later = self.finished.split_off(&number);
        let kept = later.remove(&number).ok_or(WriteError::Dead)?;
        void.extend(later.into_values().rev().map(|s| s.path));
        let offset = kept.log.end_offset();
        let (writer, bytes) = LogWriter::resume(kept.log, start, &mut OsEntropy)?;
        disk::append(&self.lock, &kept.file, &kept.path, offset, bytes).await?;
        for path in void {
            disk::unlink(&self.lock, &path).await?;
        }
        self.tail = Some(Tail {
            number,
            path: kept.path,
            file: kept.file,
            writer,
        });
        Ok(())
    }

    fn epoch_start(&self, start_lsn: Lsn, term: Term) -> EpochStart {
        EpochStart {
            term,
            start_lsn,
            node: self.place.node,
            boot_nonce: self.boot_nonce,
        }
    }
}

impl Tail {
    fn is_full(&self) -> bool {
        self.writer.log().end_lsn() == border(self.number)
    }
}

/// The end of the WAL that segment `number` may hold.
fn border(number: u64) -> Lsn {
    Lsn(number.saturating_add(1).saturating_mul(SEGMENT_BYTES))
}

/// A log begins where its first epoch does.
fn first_of(log: &Log) -> Lsn {
    log.epochs().next().map_or(log.end_lsn(), |e| e.start_lsn)
}

fn segment_path(place: &Place, number: u64) -> PathBuf {
    place.directory.join(format!("{number:016x}.wal"))
}

fn segment_name(place: &Place, number: u64) -> String {
    let (tenant, timeline) = (place.tenant, place.timeline);
    format!("tenants/{tenant}/timelines/{timeline}/local-wal/{number:016x}")
}

fn segment_spec(place: &Place, segment: u64) -> SegmentSpec {
    SegmentSpec {
        tenant: place.tenant,
        timeline: place.timeline,
        generation: place.generation,
        name: segment_name(place, segment),
        segment,
        created_unix: service::clock::unix_seconds(),
        file_id: sealed::new_file_id(&mut OsEntropy),
    }
}

fn expected(place: &Place, segment: u64) -> Expected {
    Expected {
        kind: sealed::ObjectKind::LocalWal,
        tenant: place.tenant,
        timeline: place.timeline,
        name: segment_name(place, segment),
    }
}
