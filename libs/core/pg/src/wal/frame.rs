//! Cuts a stream of WAL bytes into records.
//!
//! The decoder is fed bytes in order, in pieces of any size, and gives records as they become
//! whole. It checks page headers, lengths, checksums and the chain of `xl_prev`. After an error
//! it stays where it is: the stream is damaged.

use std::ops::Range;

use ids::Lsn;

use super::input::Input;
use super::page_header::{
    FIRST_IS_CONTRECORD, FIRST_IS_OVERWRITE_CONTRECORD, PageHeaderError, WAL_PAGE_BYTES, WalShape,
};
use super::record::{RECORD_HEADER_BYTES, RecordHeader};
use super::rmgr;

/// Longer records do not exist (`XLogRecordMaxSize`).
const RECORD_BYTES_MAX: u32 = 1020 << 20;
const OP_SWITCH: u8 = 0x40;
const OP_OVERWRITE_CONTRECORD: u8 = 0xD0;
/// So much room is kept from one record of several pieces to the next.
const PIECES_BYTES_KEPT: usize = 1 << 20;

/// The stream is not WAL, or damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A page header is wrong.
    #[error(transparent)]
    Page(#[from] PageHeaderError),
    /// A page continues no record, or another length than the record has left.
    #[error("WAL page at {page} continues a record by {found} bytes, expected {expected}")]
    Continuation {
        /// Where the page begins.
        page: Lsn,
        /// What its header says.
        found: u32,
        /// What must be left.
        expected: u32,
    },
    /// A record has a length that no record has: also where WAL ends in zeros.
    #[error("WAL record at {lsn} has impossible length {bytes}")]
    Length {
        /// Where it begins.
        lsn: Lsn,
        /// What it says.
        bytes: u32,
    },
    /// A checksum does not hold.
    #[error("WAL record at {lsn} fails its checksum: it says {said:08x}, its bytes {found:08x}")]
    Checksum {
        /// Where the record begins.
        lsn: Lsn,
        /// What the record says.
        said: u32,
        /// What its bytes say.
        found: u32,
    },
    /// The chain of records is broken.
    #[error("WAL record at {lsn} says that {found} is before it, but {expected} is")]
    Previous {
        /// Where the record begins.
        lsn: Lsn,
        /// What it says.
        found: Lsn,
        /// What is so.
        expected: Lsn,
    },
    /// The rest of a record got lost, and what stands in its place does not say so.
    #[error("WAL record at {lsn} stands where the one at {lost} was to go on, and does not say so")]
    Overwrites {
        /// Where the record begins.
        lsn: Lsn,
        /// Where the one begins whose rest got lost.
        lost: Lsn,
    },
}

#[derive(Debug)]
enum State {
    /// A record begins at the next byte, or after the page header that does.
    Between,
    /// Inside a record; `left` is what is still to come, the rest is in `pieces`.
    Inside { start: Lsn, left: u32 },
    /// Inside the rest of a record that began before the stream did; padding included.
    SkipRecord { left: u64 },
    /// Up to there nothing means anything: padding, or the rest of a segment after a switch.
    SkipTo(Lsn),
}

/// A record in the stream: where it begins, where it ends, its bytes.
pub type Framed<'a> = (Lsn, Lsn, &'a [u8]);

/// A record that is there as a whole.
struct Whole {
    start: Lsn,
    place: Place,
}

/// Where the bytes of a record are.
enum Place {
    /// In the input, as most records lie inside one page.
    Input(Range<usize>),
    /// Put together in `pieces`.
    Pieces,
}

/// Cuts a stream of WAL bytes into records.
#[derive(Debug)]
pub struct Decoder {
    shape: WalShape,
    state: State,
    input: Input,
    /// The bytes of a record that lies on several pages, or came in several pieces.
    pieces: Vec<u8>,
    /// Whether the first page may begin inside a record.
    scanning: bool,
    /// The record whose rest got lost, until the next one has said so.
    lost: Option<Lsn>,
    last: Option<(Lsn, Lsn)>,
    failed: Option<FrameError>,
}

impl Decoder {
    /// A decoder of bytes from `start` on, where a record begins, or the page that it begins on.
    #[must_use]
    pub const fn new(shape: WalShape, start: Lsn) -> Self {
        Self {
            shape,
            state: State::Between,
            input: Input::new(start),
            pieces: Vec::new(),
            scanning: false,
            lost: None,
            last: None,
            failed: None,
        }
    }

    /// A decoder of bytes from the beginning of a page, whatever stands there: the rest of a
    /// record that began earlier is skipped. `start` is rounded down to its page.
    #[must_use]
    pub fn scanning(shape: WalShape, start: Lsn) -> Self {
        let page = Lsn(start.0 - start.0 % WAL_PAGE_BYTES);
        Self {
            scanning: true,
            ..Self::new(shape, page)
        }
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.feed(bytes);
    }

    /// The position of the byte to feed next.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.input.end()
    }

    /// Where the record begins of which some bytes have come, and some have not.
    #[must_use]
    pub const fn unfinished(&self) -> Option<Lsn> {
        match &self.state {
            State::Inside { start, .. } => Some(*start),
            State::Between | State::SkipRecord { .. } | State::SkipTo(_) => None,
        }
    }

    /// Beginning and end of the last record that was given.
    #[must_use]
    pub const fn last_record(&self) -> Option<(Lsn, Lsn)> {
        self.last
    }

    /// The next record; `None` until more is fed.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Framed<'_>>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let given = self.advance().and_then(|whole| match whole {
            Some(whole) => self.check(&whole).map(|end| Some((whole, end))),
            None => Ok(None),
        });
        match given {
            Ok(None) => Ok(None),
            Ok(Some((whole, end))) => Ok(Some((whole.start, end, self.bytes(&whole.place)))),
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    fn bytes(&self, place: &Place) -> &[u8] {
        match place {
            Place::Input(range) => self.input.taken(range.clone()),
            Place::Pieces => &self.pieces,
        }
    }

    fn advance(&mut self) -> Result<Option<Whole>, FrameError> {
        while !self.input.ahead().is_empty() {
            let at = self.input.at();
            if let State::SkipTo(end) = self.state {
                self.input.skip(end - at);
                if self.input.at() == end {
                    self.state = State::Between;
                }
                continue;
            }
            if at.0.is_multiple_of(WAL_PAGE_BYTES) {
                if !self.page_header()? {
                    return Ok(None);
                }
                continue;
            }
            let page_left = WAL_PAGE_BYTES - at.0 % WAL_PAGE_BYTES;
            let there = page_left.min(self.input.ahead().len() as u64);
            match &mut self.state {
                State::SkipTo(_) => {}
                State::SkipRecord { left } => {
                    let taken = there.min(*left);
                    *left -= taken;
                    if *left == 0 {
                        self.state = State::Between;
                    }
                    self.input.skip(taken);
                }
                State::Between => {
                    let Some(&length) = self.input.ahead().first_chunk() else {
                        return Ok(None);
                    };
                    let total = self.begin_record(u32::from_le_bytes(length))?;
                    if u64::from(total) <= there {
                        let place = Place::Input(self.input.skip(u64::from(total)));
                        return Ok(Some(Whole { start: at, place }));
                    }
                    // The length is not believed before the bytes are there.
                    self.pieces.clear();
                    self.pieces.shrink_to(PIECES_BYTES_KEPT);
                    self.state = State::Inside {
                        start: at,
                        left: total,
                    };
                }
                State::Inside { start, left } => {
                    let taken = there.min(u64::from(*left));
                    *left -= taken as u32;
                    let whole = (*left == 0).then_some(Whole {
                        start: *start,
                        place: Place::Pieces,
                    });
                    let place = self.input.skip(taken);
                    self.pieces.extend_from_slice(self.input.taken(place));
                    if whole.is_some() {
                        return Ok(whole);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Reads the header of the page that begins here; false where it is not all there.
    fn page_header(&mut self) -> Result<bool, FrameError> {
        let page = self.input.at();
        let header_bytes = self.shape.header_bytes(page);
        let Some(header) = self.input.ahead().get(..header_bytes) else {
            return Ok(false);
        };
        let (flags, remaining) = self.shape.decode_header(page, header)?;
        let continues = flags & FIRST_IS_CONTRECORD != 0;
        let found = if continues { remaining } else { 0 };
        let fail = |expected| FrameError::Continuation {
            page,
            found,
            expected,
        };
        match &self.state {
            // The rest of the record was lost, and another stands in its place.
            State::Inside { start, .. }
                if flags & FIRST_IS_OVERWRITE_CONTRECORD != 0 && !continues =>
            {
                self.lost = Some(*start);
                self.state = State::Between;
            }
            State::Inside { left, .. } if found == *left => {}
            State::Inside { left, .. } => return Err(fail(*left)),
            State::SkipRecord { left } if u64::from(found).next_multiple_of(8) == *left => {}
            State::SkipRecord { left } => return Err(fail(*left as u32)),
            State::Between if continues && self.scanning => {
                self.state = State::SkipRecord {
                    left: u64::from(found).next_multiple_of(8),
                };
            }
            State::Between if continues => return Err(fail(0)),
            State::Between | State::SkipTo(_) => {}
        }
        self.scanning = false;
        self.input.skip(header_bytes as u64);
        Ok(true)
    }

    fn begin_record(&mut self, total: u32) -> Result<u32, FrameError> {
        if total < RECORD_HEADER_BYTES as u32 || total > RECORD_BYTES_MAX {
            return Err(FrameError::Length {
                lsn: self.input.at(),
                bytes: total,
            });
        }
        self.scanning = false;
        Ok(total)
    }

    /// Checks a record and moves behind it; answers where it ends.
    fn check(&mut self, whole: &Whole) -> Result<Lsn, FrameError> {
        let lsn = whole.start;
        let bytes = self.bytes(&whole.place);
        let header = RecordHeader::decode(bytes).zip(record_crc(bytes));
        let (header, found) = header.ok_or(FrameError::Length {
            lsn,
            bytes: bytes.len() as u32,
        })?;
        if found != header.crc {
            let said = header.crc;
            return Err(FrameError::Checksum { lsn, said, found });
        }
        if let Some((expected, _)) = self.last
            && header.prev != expected
        {
            return Err(FrameError::Previous {
                lsn,
                found: header.prev,
                expected,
            });
        }
        if let Some(lost) = self.lost
            && !says_overwritten(header, bytes, lost)
        {
            return Err(FrameError::Overwrites { lsn, lost });
        }
        self.lost = None;
        let at = self.input.at();
        let mut end = at.align8();
        if header.rmid == rmgr::XLOG && header.info & 0xF0 == OP_SWITCH {
            end = Lsn(end.0.next_multiple_of(self.shape.segment_bytes));
        }
        self.input.skip(end - at);
        self.state = if self.input.at() == end {
            State::Between
        } else {
            State::SkipTo(end)
        };
        self.last = Some((lsn, end));
        Ok(end)
    }
}

/// Whether a record is the one that PostgreSQL writes behind one whose rest got lost
/// (`xl_overwrite_contrecord`).
fn says_overwritten(header: RecordHeader, bytes: &[u8], lost: Lsn) -> bool {
    // A short main data header, then the LSN.
    let lsn = bytes.get(RECORD_HEADER_BYTES + 2..);
    header.rmid == rmgr::XLOG
        && header.info & 0xF0 == OP_OVERWRITE_CONTRECORD
        && lsn.is_some_and(|lsn| lsn.starts_with(&lost.0.to_le_bytes()))
}

/// CRC-32C of a whole record, as its header must have it; `None` where there is no whole header.
#[must_use]
pub fn record_crc(record: &[u8]) -> Option<u32> {
    let body = record.get(RECORD_HEADER_BYTES..)?;
    Some(crc32c::crc32c_append(
        crc32c::crc32c(body),
        record.get(..20)?,
    ))
}

#[cfg(test)]
mod tests;
