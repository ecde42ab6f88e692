//! Opening a log after a restart: which prefix is valid, and whether what follows is a write
//! that was cut short, or damage.

use ids::{Lsn, Term};

use super::index::{Frame, Log};
use super::outline;
use super::record::{self, Control, FRAME_OVERHEAD, FrameHeader, PAYLOAD_BYTES_MAX, Parsed};
use crate::Dek;
use crate::object::{self, Expected, OpenError};

/// What the acceptor's record remembers of the segment that it was writing: durable elsewhere,
/// so that a shorter or older log is seen to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The last epoch that was durable.
    pub epoch: u32,
    /// Its salt.
    pub epoch_salt: [u8; 32],
    /// Its term.
    pub term: Term,
    /// WAL up to here is known to be committed.
    pub commit_lsn: Lsn,
}

/// Which frames a scan opens; all headers, checksums and control records are checked anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// All of them.
    All,
    /// Those of the last epoch: the older ones are proven when they are read.
    LastEpoch,
}

/// Why a log must not be used as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// The header was refused.
    #[error("the header of the log was refused")]
    Open(#[from] OpenError),
    /// The header is sound, but no epoch follows it: the file was not finished being created.
    #[error("the log has no epoch")]
    Empty,
    /// Damage, with a later record that proves that what is damaged had been durable.
    #[error("the log is damaged at {at}, before a record at {later}")]
    Corrupt {
        /// Where the damage is.
        at: u64,
        /// The first record behind it.
        later: u64,
    },
    /// The log ends before what is known to be committed.
    #[error("the log ends at {end}, before the committed position {committed}")]
    Lost {
        /// Where it ends.
        end: Lsn,
        /// What was committed.
        committed: Lsn,
    },
    /// An epoch that is known to have been durable is not there, or is another one.
    #[error("the log does not have epoch {expected} as it was made durable")]
    EpochMissing {
        /// Its number.
        expected: u32,
    },
}

/// Reads a log, which is all of `bytes`; zeros that were allocated ahead may follow it.
/// `anchor` is given for the segment that the acceptor's record names.
///
/// # Errors
/// A log that is not provably a prefix, with everything committed, of what was written.
pub fn scan(
    bytes: &[u8],
    dek: &Dek,
    expected: &Expected,
    anchor: Option<&Anchor>,
    verify: Verify,
) -> Result<Log, ScanError> {
    let header = object::open_header(bytes, dek, expected)?;
    if header.kind.is_object() {
        return Err(OpenError::NotAnObject.into());
    }
    let mut log = Log::new(header.clone(), dek);
    let mut scanned = walk(&mut log, bytes, None);
    if let Some(bad) = first_forged(&log, bytes, &scanned, verify) {
        // The state behind a forged frame must not be kept: walk again up to it.
        log = Log::new(header, dek);
        scanned = walk(&mut log, bytes, Some(bad));
    }
    let at = log.end_offset;
    if scanned.damaged {
        // Its seeded checksum is enough: who forges one gets a refusal, whereas asking for its tag
        // would let damage to an EPOCH, or to a tag, hide the records behind it and pass for a
        // torn write.
        let damaged = usize::try_from(at).unwrap_or(bytes.len());
        if let Some(later) = outline::later_record(bytes, damaged, log.file()) {
            return Err(ScanError::Corrupt { at, later });
        }
        log.torn = true;
    }
    check_anchor(&log, anchor)?;
    if log.last_epoch().is_none() {
        return Err(ScanError::Empty);
    }
    Ok(log)
}

/// What a walk over the headers found.
struct Walk {
    /// Every frame, void or not.
    frames: Vec<Frame>,
    /// Whether it ended at something else than the end.
    damaged: bool,
}

/// Follows the chain of records until it ends, breaks, or reaches `stop`.
fn walk(log: &mut Log, bytes: &[u8], stop: Option<u64>) -> Walk {
    let mut frames = Vec::new();
    loop {
        if stop == Some(log.end_offset) {
            return Walk {
                frames,
                damaged: true,
            };
        }
        let rest = from(bytes, log.end_offset);
        if rest.iter().all(|b| *b == 0) {
            return Walk {
                frames,
                damaged: false,
            };
        }
        let taken = match record::parse(rest, log.file()) {
            Some(Parsed::Frame(header)) => {
                take_frame(log, rest, &header).map(|frame| frames.push(frame))
            }
            Some(Parsed::Control(control)) => take_control(log, rest, &control),
            None => None,
        };
        if taken.is_none() {
            return Walk {
                frames,
                damaged: true,
            };
        }
    }
}

/// Takes up a frame that stands where it should; its tag is not checked here.
fn take_frame(log: &mut Log, rest: &[u8], header: &FrameHeader) -> Option<Frame> {
    let length = usize::try_from(header.payload_len).ok()?;
    let record = rest.get(..length.checked_add(FRAME_OVERHEAD)?)?;
    let follows = header.sequence == log.next_sequence
        && header.start_lsn == log.end_lsn()
        && log.last_epoch().is_some_and(|e| e.number == header.epoch)
        && length <= PAYLOAD_BYTES_MAX
        && !log.sealed;
    if !follows {
        return None;
    }
    let frame = Frame {
        start_lsn: header.start_lsn,
        end_lsn: header
            .start_lsn
            .checked_add(u64::from(header.payload_len))?,
        epoch: header.epoch,
        offset: log.end_offset,
        payload_len: header.payload_len,
        sequence: header.sequence,
    };
    log.push_frame(frame, *record.last_chunk()?);
    Some(frame)
}

/// Takes up an EPOCH or SEAL that is genuine and stands where it should.
fn take_control(log: &mut Log, rest: &[u8], control: &Control) -> Option<()> {
    let tag = record::control_tag(rest, log.control_key())?;
    if control.offset != log.end_offset || control.previous_tag != log.last_tag {
        return None;
    }
    if control.is_seal {
        let last = log.last_epoch()?;
        let count = control.salt.first_chunk().map(|c| u64::from_le_bytes(*c));
        let follows = control.epoch == last.number
            && control.lsn == log.end_lsn()
            && count == Some(log.next_sequence)
            && !log.sealed;
        return follows.then(|| log.push_seal(tag));
    }
    let follows = log.last_epoch().is_none_or(|last| {
        last.number.checked_add(1) == Some(control.epoch)
            && control.lsn <= log.end_lsn()
            && control.term >= last.term
    });
    follows.then(|| log.push_epoch(control, tag))
}

/// The offset of the first frame whose tag does not hold.
fn first_forged(log: &Log, bytes: &[u8], walk: &Walk, verify: Verify) -> Option<u64> {
    let last = log.last_epoch().map_or(0, |e| e.number);
    let wanted = |f: &&Frame| verify == Verify::All || f.epoch == last;
    let genuine = |f: &Frame| {
        let range = f.sealed_range();
        let sealed =
            bytes.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)?;
        let (previous_tag, frame) = sealed.split_first_chunk()?;
        log.open(f, previous_tag, frame)
    };
    walk.frames
        .iter()
        .filter(wanted)
        .find(|f| genuine(f).is_none())
        .map(|f| f.offset)
}

fn check_anchor(log: &Log, anchor: Option<&Anchor>) -> Result<(), ScanError> {
    let Some(anchor) = anchor else { return Ok(()) };
    let kept = log
        .epochs()
        .any(|e| e.number == anchor.epoch && e.salt == anchor.epoch_salt && e.term == anchor.term);
    if !kept {
        return Err(ScanError::EpochMissing {
            expected: anchor.epoch,
        });
    }
    if log.end_lsn() < anchor.commit_lsn {
        return Err(ScanError::Lost {
            end: log.end_lsn(),
            committed: anchor.commit_lsn,
        });
    }
    Ok(())
}

fn from(bytes: &[u8], offset: u64) -> &[u8] {
    usize::try_from(offset)
        .ok()
        .and_then(|at| bytes.get(at..))
        .unwrap_or_default()
}
