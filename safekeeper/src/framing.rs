//! What a proposer streams, cut at the ends of records.
//!
//!   F1  the log ends at the end of a whole record, so votes, acknowledgements and commits do too,
//!       and a new term begins where Postgres can write on;
//!   F2  the torn end of the last record is held in memory until the rest of it comes; it is not
//!       acknowledged, and who loses it sends it again;
//!   F3  bytes that are not WAL of this cluster are refused before anything of them is written.

use bytes::{Bytes, BytesMut};
use ids::Lsn;
use pg::wal::{Decoder, FrameError, WalShape};

/// The longest torn end: a record of the longest kind with the page headers in it.
const HELD_BYTES_MAX: usize = 1100 << 20;

/// Bytes that are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// They are not WAL.
    #[error("the append at {begin} is not WAL of this timeline: {source}")]
    NotWal {
        /// Where the append began.
        begin: Lsn,
        /// What is wrong, and where.
        source: FrameError,
    },
    /// A record does not end.
    #[error("the record at {0} is longer than any record")]
    TooLong(Lsn),
    /// Nobody has told the system identifier.
    #[error("WAL at {0} cannot be checked: no proposer has told the system identifier")]
    NoShape(Lsn),
}

/// Whole records, to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// Where they begin: the end of the log.
    pub begin: Lsn,
    /// They; empty where nothing became whole.
    pub wal: Bytes,
}

/// The framing of one timeline's log.
#[derive(Debug)]
pub struct Framing {
    shape: Option<WalShape>,
    stream: Option<Stream>,
}

/// A stream that goes on where it stopped.
#[derive(Debug)]
struct Stream {
    decoder: Decoder,
    /// The end of the last whole record.
    begin: Lsn,
    /// What follows it.
    held: BytesMut,
    /// The end of a whole record whose padding has not come yet.
    coming: Option<Lsn>,
}

impl Framing {
    /// Without a shape until somebody tells it.
    #[must_use]
    pub const fn new(shape: Option<WalShape>) -> Self {
        Self {
            shape,
            stream: None,
        }
    }

    /// What WAL pages of this cluster look like.
    pub fn set_shape(&mut self, shape: WalShape) {
        if self.shape != Some(shape) {
            self.shape = Some(shape);
            self.stream = None;
        }
    }

    /// Forgets what is held (F2).
    pub fn reset(&mut self) {
        self.stream = None;
    }

    /// Takes WAL at `begin`, where the log ends at `end`; `None` where it continues neither the
    /// log nor what is held, which the acceptor refuses.
    ///
    /// # Errors
    /// F3; what was held is forgotten.
    pub fn take(
        &mut self,
        end: Lsn,
        begin: Lsn,
        wal: &Bytes,
    ) -> Result<Option<Whole>, FramingError> {
        let continues = |s: &Stream| s.begin == end && s.end() == begin;
        let mut stream = match self.stream.take().filter(continues) {
            Some(stream) => stream,
            None if begin != end => return Ok(None),
            None if wal.is_empty() => return Ok(Some(Whole::none(end))),
            None => {
                let shape = self.shape.ok_or(FramingError::NoShape(begin))?;
                Stream::new(shape, begin)
            }
        };
        let whole = stream.take(wal)?;
        self.stream = Some(stream);
        Ok(Some(whole))
    }
}

impl Whole {
    const fn none(at: Lsn) -> Self {
        Self {
            begin: at,
            wal: Bytes::new(),
        }
    }
}

impl Stream {
    fn new(shape: WalShape, begin: Lsn) -> Self {
        Self {
            decoder: Decoder::new(shape, begin),
            begin,
            held: BytesMut::new(),
            coming: None,
        }
    }

    fn end(&self) -> Lsn {
        self.decoder.position()
    }

    fn take(&mut self, wal: &Bytes) -> Result<Whole, FramingError> {
        let (begin, at) = (self.begin, self.end());
        let refused = |source| FramingError::NotWal { begin: at, source };
        self.decoder.feed(wal);
        let end = self.end();
        let mut whole = begin;
        loop {
            // A switch of segments ends with its padding, at the end of the segment.
            if let Some(coming) = self.coming.take_if(|coming| *coming <= end) {
                whole = coming;
            }
            match self.decoder.next().map_err(refused)? {
                Some((_, record_end, _)) => self.coming = Some(record_end),
                None => break,
            }
        }
        let length = usize::try_from(whole - begin).unwrap_or(usize::MAX);
        self.begin = whole;
        if self.held.is_empty() && length == wal.len() {
            let wal = wal.clone();
            return Ok(Whole { begin, wal });
        }
        self.held.extend_from_slice(wal);
        let wal = self.held.split_to(length.min(self.held.len())).freeze();
        if self.held.len() > HELD_BYTES_MAX {
            return Err(FramingError::TooLong(whole));
        }
        Ok(Whole { begin, wal })
    }
}

#[cfg(test)]
mod tests {
    use pg::PgMajor;
    use pg::wal::{encode_record, lay_out};

    use super::*;

    const SHAPE: WalShape = WalShape {
        version: PgMajor::V15,
        segment_bytes: 16 << 20,
        system_id: 7,
        tli: 1,
    };
    const START: Lsn = Lsn(3 * (16 << 20) - 20_000);
    const SWITCH: u8 = 0x40;

    /// Records of these lengths, and where each ends.
    fn stream(lengths: &[usize]) -> (Vec<u8>, Vec<Lsn>) {
        let (mut wal, mut ends, mut prev) = (Vec::new(), Vec::new(), Lsn(0));
        for length in lengths {
            let from = ends.last().copied().unwrap_or(START);
            let record = encode_record(prev, 1, 10, 0, &vec![length.to_le_bytes()[0]; *length]);
            prev = pg::wal::record_start(&SHAPE, from);
            let laid = lay_out(&SHAPE, from, &record);
            wal.extend_from_slice(&laid.bytes);
            ends.push(Lsn(START.0 + wal.len() as u64));
        }
        (wal, ends)
    }

    /// Feeds pieces, as an acceptor that takes everything would.
    fn run(wal: &[u8], piece: usize) -> (Vec<u8>, Vec<Lsn>) {
        let mut framing = Framing::new(Some(SHAPE));
        let (mut log, mut ends, mut at) = (Vec::new(), Vec::new(), START);
        for piece in wal.chunks(piece) {
            let end = Lsn(START.0 + log.len() as u64);
            let piece = Bytes::copy_from_slice(piece);
            let whole = framing.take(end, at, &piece).unwrap().unwrap();
            assert_eq!(whole.begin, end);
            log.extend_from_slice(&whole.wal);
            ends.push(Lsn(START.0 + log.len() as u64));
            at = at + piece.len() as u64;
        }
        ends.dedup();
        (log, ends)
    }

    #[test]
    fn only_whole_records_pass_whatever_the_pieces() {
        let (wal, ends) = stream(&[10, 100, 9_000, 1, 30_000, 77]);
        for piece in [1, 7, 24, 1000, 8192, 100_000] {
            let (log, at) = run(&wal, piece);
            assert!(log == wal, "pieces of {piece}");
            let between = at.iter().find(|e| !ends.contains(e) && **e != START);
            assert_eq!(between, None, "pieces of {piece}");
            let (log, _) = run(&wal[..wal.len() - 1], piece);
            let whole = ends[ends.len() - 2] - START;
            assert_eq!(log.len() as u64, whole, "pieces of {piece}");
        }
    }

    #[test]
    fn a_heartbeat_behind_a_torn_record_is_one_at_its_beginning() {
        let (wal, ends) = stream(&[10, 100]);
        let mut framing = Framing::new(Some(SHAPE));
        let wal = Bytes::from(wal);
        let torn = wal.slice(..wal.len() - 8);
        let whole = framing.take(START, START, &torn).unwrap().unwrap();
        let at = START + torn.len() as u64;
        assert_eq!(whole.wal.len() as u64, ends[0] - START);
        let beat = framing.take(ends[0], at, &Bytes::new()).unwrap();
        assert_eq!(beat, Some(Whole::none(ends[0])));
        // The rest makes it whole, with all that was held.
        let rest = framing.take(ends[0], at, &wal.slice(torn.len()..));
        let rest = rest.unwrap().unwrap();
        assert_eq!(rest.wal, wal.slice((ends[0] - START) as usize..));
    }

    #[test]
    fn who_begins_anew_sends_what_was_held_again() {
        let (wal, ends) = stream(&[10, 100]);
        let mut framing = Framing::new(Some(SHAPE));
        let wal = Bytes::from(wal);
        framing
            .take(START, START, &wal.slice(..wal.len() - 8))
            .unwrap();
        let last = wal.slice((ends[0] - START) as usize..);
        let again = framing.take(ends[0], ends[0], &last).unwrap().unwrap();
        assert_eq!(again.wal, last);
        // Elsewhere than at the log's end or the held one.
        let gap = framing.take(ends[1], ends[1] + 8, &last);
        assert_eq!(gap, Ok(None));
    }

    #[test]
    fn a_switch_is_whole_with_the_segment() {
        let record = encode_record(Lsn(0), 0, 0, SWITCH, &[]);
        let mut wal = lay_out(&SHAPE, START, &record).bytes.clone();
        let record = wal.len();
        wal.resize(20_000, 0);
        let wal = Bytes::from(wal);
        let mut framing = Framing::new(Some(SHAPE));
        for (piece, bytes) in [
            (0..record, 0),
            (record..19_999, 0),
            (19_999..20_000, 20_000),
        ] {
            let at = START + piece.start as u64;
            let whole = framing.take(START, at, &wal.slice(piece)).unwrap().unwrap();
            assert_eq!((whole.begin, whole.wal.len()), (START, bytes));
        }
    }

    #[test]
    fn what_is_not_wal_of_this_cluster_is_refused() {
        let (wal, _) = stream(&[10, 30_000, 77]);
        for at in [4, 30, 9_000, 20_008, wal.len() - 20] {
            let mut bad = wal.clone();
            bad[at] ^= 1;
            let mut framing = Framing::new(Some(SHAPE));
            let refused = framing.take(START, START, &bad.into());
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains(&START.to_string()), "{refused}");
        }
        let other = WalShape {
            system_id: 8,
            ..SHAPE
        };
        let refused = Framing::new(Some(other)).take(START, START, &wal.into());
        assert!(matches!(refused, Err(FramingError::NotWal { .. })));
        let blind = Framing::new(None).take(START, START, &Bytes::from_static(b"x"));
        assert_eq!(blind, Err(FramingError::NoShape(START)));
    }
}
