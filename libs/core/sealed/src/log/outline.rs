//! The records of a log as anyone can see them: headers, checksums and their chain. What they
//! say is not proven without the key; with it, [`scan`](super::scan()) reads the log.

use ids::{FileId, Lsn, NodeId, Term};

use super::record::{self, CONTROL_BYTES, Control, FRAME_OVERHEAD, FrameHeader, PAYLOAD_BYTES_MAX};
use crate::cipher::TAG_BYTES;
use crate::header::{HEADER_BYTES, Header, HeaderError};

/// What the records of a log say.
#[derive(Debug, PartialEq, Eq)]
pub struct Outline {
    /// The epochs, oldest first.
    pub epochs: Vec<OutlinedEpoch>,
    /// How many frames there are, void ones included.
    pub frames: u64,
    /// How many bytes of WAL they hold.
    pub wal_bytes: u64,
    /// Where the WAL ends.
    pub end_lsn: Lsn,
    /// Whether the segment was declared complete.
    pub complete: bool,
    /// Where the chain of records ends in the file.
    pub end_offset: u64,
    /// What is behind it.
    pub tail: Tail,
}

/// An epoch: what one writer wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlinedEpoch {
    /// Its number.
    pub number: u32,
    /// The term that it was begun for.
    pub term: Term,
    /// The node that wrote it.
    pub node: NodeId,
    /// All older data at and after this position is void.
    pub start_lsn: Lsn,
    /// Where its record is in the file.
    pub offset: u64,
}

/// What follows the last record that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Nothing, or zeros allocated ahead.
    Clean,
    /// Bytes that are no record, with none behind them: a write that was cut short.
    Torn,
    /// Bytes that are no record, and a record behind them: what is between was durable.
    Damaged {
        /// Where the record is.
        later: u64,
    },
}

/// Follows the records of a log, which is all of `bytes`, without a key.
///
/// # Errors
/// Where no header of a sealed file stands at the beginning.
pub fn outline(bytes: &[u8]) -> Result<Outline, HeaderError> {
    let file = Header::decode(bytes)?.file_id;
    let mut walk = Walk {
        bytes,
        file,
        at: HEADER_BYTES,
        sequence: 0,
        outline: Outline {
            epochs: Vec::new(),
            frames: 0,
            wal_bytes: 0,
            end_lsn: Lsn::INVALID,
            complete: false,
            end_offset: HEADER_BYTES as u64,
            tail: Tail::Clean,
        },
    };
    while let Some(taken) = walk.step() {
        walk.at += taken;
    }
    walk.outline.end_offset = walk.at as u64;
    walk.outline.tail = tail(bytes, walk.at, file);
    Ok(walk.outline)
}

/// The first record behind `at`, whatever it says: its seeded checksum is enough (FORMAT.md, 3.1).
pub(super) fn later_record(bytes: &[u8], at: usize, file: FileId) -> Option<u64> {
    (at + 1..bytes.len())
        .find(|offset| record::parse(from(bytes, *offset), file).is_some())
        .map(|offset| offset as u64)
}

fn tail(bytes: &[u8], at: usize, file: FileId) -> Tail {
    if from(bytes, at).iter().all(|b| *b == 0) {
        return Tail::Clean;
    }
    later_record(bytes, at, file).map_or(Tail::Torn, |later| Tail::Damaged { later })
}

struct Walk<'a> {
    bytes: &'a [u8],
    file: FileId,
    at: usize,
    /// The number that the next frame of this epoch must have.
    sequence: u64,
    outline: Outline,
}

impl Walk<'_> {
    /// Takes up the record where the walk stands; `None` where there is none that follows.
    fn step(&mut self) -> Option<usize> {
        match record::parse(from(self.bytes, self.at), self.file)? {
            record::Parsed::Frame(header) => self.frame(&header),
            record::Parsed::Control(control) if control.is_seal => self.seal(&control),
            record::Parsed::Control(control) => self.epoch(&control),
        }
    }

    fn frame(&mut self, header: &FrameHeader) -> Option<usize> {
        let outline = &mut self.outline;
        let length = usize::try_from(header.payload_len).ok()?;
        let taken = length.checked_add(FRAME_OVERHEAD)?;
        let follows = length <= PAYLOAD_BYTES_MAX
            && from(self.bytes, self.at).len() >= taken
            && header.start_lsn == outline.end_lsn
            && header.sequence == self.sequence
            && header.epoch == outline.epochs.last()?.number
            && !outline.complete;
        if !follows {
            return None;
        }
        outline.end_lsn = outline.end_lsn.checked_add(u64::from(header.payload_len))?;
        outline.frames += 1;
        outline.wal_bytes += u64::from(header.payload_len);
        self.sequence += 1;
        Some(taken)
    }

    /// W3: a control record names its own offset and the tag of the record before it.
    fn is_chained(&self, control: &Control) -> bool {
        let before = match self.outline.epochs.is_empty() {
            true => [0; TAG_BYTES],
            false => self.bytes[..self.at]
                .last_chunk()
                .copied()
                .unwrap_or_default(),
        };
        control.offset == self.at as u64 && control.previous_tag == before
    }

    fn epoch(&mut self, control: &Control) -> Option<usize> {
        let outline = &self.outline;
        let follows = outline.epochs.last().is_none_or(|last| {
            last.number.checked_add(1) == Some(control.epoch)
                && control.lsn <= outline.end_lsn
                && control.term >= last.term
        });
        if !(follows && self.is_chained(control)) {
            return None;
        }
        self.outline.epochs.push(OutlinedEpoch {
            number: control.epoch,
            term: control.term,
            node: control.node,
            start_lsn: control.lsn,
            offset: control.offset,
        });
        self.outline.end_lsn = control.lsn;
        // What was complete is not any more: an EPOCH voids a SEAL.
        self.outline.complete = false;
        self.sequence = 0;
        Some(CONTROL_BYTES)
    }

    fn seal(&mut self, control: &Control) -> Option<usize> {
        let outline = &self.outline;
        let frames = control.salt.first_chunk().map(|c| u64::from_le_bytes(*c));
        let follows = control.epoch == outline.epochs.last()?.number
            && control.lsn == outline.end_lsn
            && frames == Some(self.sequence)
            && !outline.complete;
        if !(follows && self.is_chained(control)) {
            return None;
        }
        self.outline.complete = true;
        Some(CONTROL_BYTES)
    }
}

fn from(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at..).unwrap_or_default()
}
