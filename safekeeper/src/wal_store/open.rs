//! Creating the WAL of a timeline, and taking it up after a restart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ids::{Lsn, Term};
use keyring::TenantKeys;
use sealed::header::Header;
use sealed::log::{EpochStart, Log, LogWriter, ScanError, Verify, scan};
use service::entropy::OsEntropy;

use super::{
    OpenError, Place, Segment, StoreAnchor, Tail, WalStore, border, disk, expected, first_of,
    segment_path, segment_spec,
};

/// The number of the first epoch of a timeline.
const FIRST_EPOCH: u32 = 1;

impl WalStore {
    /// Makes the WAL of a timeline that begins at `start_lsn`, written first in `term`.
    ///
    /// # Errors
    /// [`OpenError::Exists`] where there is WAL already.
    pub async fn create(
        place: Place,
        keys: TenantKeys,
        start_lsn: Lsn,
        term: Term,
    ) -> Result<Self, OpenError> {
        disk::create_directory(&place.directory).await?;
        let lock = lock(&place).await?;
        if !disk::list(&place.directory).await?.is_empty() {
            return Err(OpenError::Exists(place.directory));
        }
        let boot_nonce = u64::from_le_bytes(OsEntropy::bytes());
        let number = start_lsn.segment(super::SEGMENT_BYTES);
        let start = EpochStart {
            term,
            start_lsn,
            node: place.node,
            boot_nonce,
        };
        let (dek, slot) = keys.mint().await?;
        let spec = segment_spec(&place, number);
        let (writer, bytes) = dek.with(|dek| {
            LogWriter::create(&spec, dek, &slot, FIRST_EPOCH, &start, &mut OsEntropy)
        })?;
        let path = segment_path(&place, number);
        let file = disk::create(&lock, &path, bytes).await?;
        Ok(Self {
            place,
            keys,
            boot_nonce,
            lock,
            finished: BTreeMap::new(),
            tail: Some(Tail {
                number,
                path,
                file,
                writer,
            }),
        })
    }

    /// Moves a log that is in doubt out of the way, for people, so that another can be begun.
    ///
    /// # Errors
    /// The disk, or a store that has the directory.
    pub async fn set_aside(place: &Place) -> Result<(), OpenError> {
        if disk::exists(&place.directory).await? {
            let lock = lock(place).await?;
            disk::set_aside(&lock, &place.directory).await?;
        }
        Ok(())
    }

    /// Takes the WAL up after a restart: proves it, finishes what a crash interrupted, and
    /// begins an epoch. `anchor` is what the acceptor's record keeps.
    ///
    /// # Errors
    /// Anything that a crash does not explain is refused (A5).
    pub async fn open(
        place: Place,
        keys: TenantKeys,
        anchor: Option<&StoreAnchor>,
    ) -> Result<Self, OpenError> {
        let lock = lock(&place).await?;
        let mut segments = scan_all(&place, &keys).await?;
        let void = void_from(&segments)?;
        let later = void.map(|number| segments.split_off(&number));
        let empty = || OpenError::Empty(place.directory.clone());
        check_anchor(&segments, anchor)?;

        for segment in later.into_iter().flat_map(BTreeMap::into_values).rev() {
            // S5
            disk::unlink(&lock, &segment.path).await?;
        }
        for segment in segments.values_mut().filter(|s| s.log.is_torn()) {
            disk::cut(
                &lock,
                &segment.file,
                &segment.path,
                segment.log.end_offset(),
            )
            .await?;
            segment.log.cut();
        }
        let (number, last) = segments.pop_last().ok_or_else(empty)?;
        let boot_nonce = u64::from_le_bytes(OsEntropy::bytes());
        let start = EpochStart {
            term: last_epoch(&last.log).1,
            start_lsn: last.log.end_lsn(),
            node: place.node,
            boot_nonce,
        };
        let offset = last.log.end_offset();
        let (writer, bytes) = LogWriter::resume(last.log, &start, &mut OsEntropy)?;
        disk::append(&lock, &last.file, &last.path, offset, bytes).await?;
        Ok(Self {
            place,
            keys,
            boot_nonce,
            lock,
            finished: segments,
            tail: Some(Tail {
                number,
                path: last.path,
                file: last.file,
                writer,
            }),
        })
    }
}

/// S6
async fn lock(place: &Place) -> Result<disk::Lock, OpenError> {
    let lock = disk::lock(&place.directory).await?;
    lock.ok_or_else(|| OpenError::InUse(place.directory.clone()))
}

async fn scan_all(place: &Place, keys: &TenantKeys) -> Result<BTreeMap<u64, Segment>, OpenError> {
    let mut segments = BTreeMap::new();
    for path in disk::list(&place.directory).await? {
        // A file of another name is not ours, and is left alone.
        if let Some(number) = number_of(&path) {
            segments.insert(number, scan_one(place, keys, number, path).await?);
        }
    }
    Ok(segments)
}

async fn scan_one(
    place: &Place,
    keys: &TenantKeys,
    number: u64,
    path: PathBuf,
) -> Result<Segment, OpenError> {
    let (file, bytes) = disk::open(&path).await?;
    let header = Header::decode(&bytes).map_err(|source| OpenError::Header {
        path: path.clone(),
        source,
    })?;
    let dek = keys.open(header.active_slot()).await?;
    let expected = expected(place, number);
    let log = dek
        .with(|dek| scan(&bytes, dek, &expected, None, Verify::LastEpoch))?
        .map_err(|source| OpenError::Damaged {
            segment: number,
            source,
        })?;
    Ok(Segment { path, file, log })
}

/// The first segment that a truncation voided before a crash (S4, S5).
fn void_from(segments: &BTreeMap<u64, Segment>) -> Result<Option<u64>, OpenError> {
    let pairs = segments.iter().zip(segments.iter().skip(1));
    for ((number, segment), (next_number, next)) in pairs {
        let end = segment.log.end_lsn();
        let full = end == border(*number);
        if *next_number != number + 1 {
            return Err(OpenError::Hole { at: end });
        }
        let last = last_epoch(&segment.log).0;
        let first = next.log.epochs().next().map_or(0, |e| e.number);
        match (full, last >= first) {
            (true, false) if first == last + 1 && first_of(&next.log) == end => {}
            (true, _) => {
                return Err(OpenError::Replaced {
                    segment: *next_number,
                });
            }
            (false, true) => return Ok(Some(*next_number)),
            (false, false) => return Err(OpenError::Hole { at: end }),
        }
    }
    Ok(None)
}

/// A5: the epoch that was durable is there, and so is everything committed. The epoch may have
/// been in a segment that a truncation removed: then a later term tells.
fn check_anchor(
    segments: &BTreeMap<u64, Segment>,
    anchor: Option<&StoreAnchor>,
) -> Result<(), OpenError> {
    let (Some(anchor), Some((number, last))) = (anchor, segments.last_key_value()) else {
        return Ok(());
    };
    let known = &anchor.log;
    let same = |log: &Log| {
        log.epochs()
            .any(|e| e.number == known.epoch && e.salt == known.epoch_salt && e.term == known.term)
    };
    let kept = match segments.get(&anchor.segment) {
        Some(segment) => same(&segment.log),
        None => anchor.segment > *number && last_epoch(&last.log).1 > known.term,
    };
    if !kept {
        return Err(OpenError::Lost(ScanError::EpochMissing {
            expected: known.epoch,
        }));
    }
    let end = last.log.end_lsn();
    if end < known.commit_lsn {
        return Err(OpenError::Lost(ScanError::Lost {
            end,
            committed: known.commit_lsn,
        }));
    }
    Ok(())
}

/// Number and term of the last epoch; a scan gives no log without one.
fn last_epoch(log: &Log) -> (u32, Term) {
    log.epochs()
        .next_back()
        .map_or((0, Term(0)), |e| (e.number, e.term))
}

fn number_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".wal")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}
