//! The records of a local WAL segment as anyone can see them: headers, checksums and their
//! chain, without a key (sealed's FORMAT.md, part 3). A scan with the key is `sealed::log::scan`.

use ids::{FileId, Lsn};
use serde::Serialize;

const FRAME_HEADER: usize = 32;
const TAG: usize = 16;
const CONTROL: usize = 128;
const PAYLOAD_MAX: usize = 1 << 20;

/// What the records of a log say.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Outline {
    /// The epochs, oldest first.
    pub(crate) epochs: Vec<Epoch>,
    /// How many frames there are, void ones included.
    pub(crate) frames: u64,
    /// How many bytes of WAL they hold.
    pub(crate) wal_bytes: u64,
    /// Where the WAL ends.
    pub(crate) end_lsn: Lsn,
    /// Whether the segment was declared complete.
    pub(crate) complete: bool,
    /// Where the chain of records ends in the file.
    pub(crate) end_offset: u64,
    /// What is behind it.
    pub(crate) tail: Tail,
}

/// An epoch: what one writer wrote.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Epoch {
    pub(crate) number: u32,
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) start_lsn: Lsn,
    pub(crate) offset: u64,
}

/// What follows the last record that holds.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tail {
    /// Nothing, or zeros allocated ahead.
    #[default]
    Clean,
    /// Bytes that are no record, with none behind them: a write that was cut short.
    Torn,
    /// Bytes that are no record, and a record at this offset: what is between was durable.
    Damaged { later: u64 },
}

impl Outline {
    /// Follows the records in `bytes`, which stand at `offset` of the file.
    pub(crate) fn of(bytes: &[u8], file: FileId, offset: u64) -> Self {
        let mut walk = Walk {
            at: 0,
            base: offset,
            sequence: 0,
            outline: Self::default(),
        };
        while walk.step(bytes, file).is_some() {}
        let rest = bytes.get(walk.at..).unwrap_or_default();
        walk.outline.end_offset = offset + walk.at as u64;
        walk.outline.tail = if rest.iter().all(|b| *b == 0) {
            Tail::Clean
        } else {
            let later =
                (1..rest.len()).find(|n| is_record(rest.get(*n..).unwrap_or_default(), file));
            later.map_or(Tail::Torn, |n| Tail::Damaged {
                later: walk.outline.end_offset + n as u64,
            })
        };
        walk.outline
    }
}

struct Walk {
    at: usize,
    base: u64,
    /// The number that the next frame of this epoch must have.
    sequence: u64,
    outline: Outline,
}

impl Walk {
    /// Takes up the record at `self.at`; `None` where there is none that follows.
    fn step(&mut self, bytes: &[u8], file: FileId) -> Option<()> {
        let rest = bytes.get(self.at..)?;
        if self.outline.complete || !is_record(rest, file) {
            return None;
        }
        let taken = match rest.first_chunk::<4>()? {
            b"WFRM" => self.frame(rest)?,
            b"WEPO" => self.epoch(bytes, rest)?,
            _ => {
                self.chained(bytes, rest)?;
                self.outline.complete = true;
                CONTROL
            }
        };
        self.at += taken;
        Some(())
    }

    fn frame(&mut self, rest: &[u8]) -> Option<usize> {
        let payload = u32_at(rest, 4)?;
        let length = usize::try_from(payload).ok()?;
        let follows = length <= PAYLOAD_MAX
            && rest.len() >= FRAME_HEADER + length + TAG
            && u64_at(rest, 8)? == self.outline.end_lsn.0
            && u64_at(rest, 16)? == self.sequence
            && u32_at(rest, 24)? == self.outline.epochs.last()?.number;
        if !follows {
            return None;
        }
        self.outline.end_lsn = Lsn(self.outline.end_lsn.0.checked_add(u64::from(payload))?);
        self.outline.frames += 1;
        self.outline.wal_bytes += u64::from(payload);
        self.sequence += 1;
        Some(FRAME_HEADER + length + TAG)
    }

    fn epoch(&mut self, bytes: &[u8], rest: &[u8]) -> Option<usize> {
        let epoch = Epoch {
            number: u32_at(rest, 4)?,
            term: u64_at(rest, 8)?,
            start_lsn: Lsn(u64_at(rest, 16)?),
            node: u64_at(rest, 80)?,
            offset: self.base + self.at as u64,
        };
        if let Some(last) = self.outline.epochs.last() {
            self.chained(bytes, rest)?;
            let follows = last.number.checked_add(1) == Some(epoch.number)
                && epoch.start_lsn <= self.outline.end_lsn
                && epoch.term >= last.term;
            if !follows {
                return None;
            }
        }
        self.outline.end_lsn = epoch.start_lsn;
        self.sequence = 0;
        self.outline.epochs.push(epoch);
        Some(CONTROL)
    }

    /// Whether a control record names its own offset and the tag of the record before it.
    fn chained(&self, bytes: &[u8], rest: &[u8]) -> Option<()> {
        let before = bytes.get(self.at.checked_sub(TAG)?..self.at)?;
        let here = u64_at(rest, 24)? == self.base + self.at as u64;
        (here && rest.get(32..48)? == before).then_some(())
    }
}

/// Whether a record of `file` begins here: its checksum is seeded with the file.
fn is_record(bytes: &[u8], file: FileId) -> bool {
    let checked = match bytes.first_chunk::<4>() {
        Some(b"WFRM") => 28,
        Some(b"WEPO" | b"WSEA") if bytes.len() >= CONTROL => 96,
        _ => return false,
    };
    let seed = crc32c::crc32c(file.as_bytes());
    bytes
        .get(..checked)
        .is_some_and(|covered| u32_at(bytes, checked) == Some(crc32c::crc32c_append(seed, covered)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u64::from_le_bytes(*b))
}
