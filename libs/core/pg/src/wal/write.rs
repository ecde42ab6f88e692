//! The few records that Redoubt writes itself.

use ids::Lsn;

use super::frame::record_crc;
use super::page_header::{FIRST_IS_CONTRECORD, WAL_PAGE_BYTES, WalShape};
use super::record::{RECORD_HEADER_BYTES, RecordHeader};
use crate::PgMajor;
use crate::control::CheckPoint;

/// The bytes of a record without blocks.
#[must_use]
pub fn encode_record(prev: Lsn, xid: u32, rmid: u8, info: u8, main_data: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(main_data.len() + 5);
    match u8::try_from(main_data.len()) {
        Ok(short) => body.extend([255, short]),
        Err(_) => {
            body.push(254);
            body.extend((main_data.len() as u32).to_le_bytes());
        }
    }
    body.extend_from_slice(main_data);
    let total_bytes = (RECORD_HEADER_BYTES + body.len()) as u32;
    let mut header = RecordHeader {
        total_bytes,
        xid,
        prev,
        info,
        rmid,
        crc: 0,
    };
    let mut record = [&header.encode()[..], &body].concat();
    header.crc = record_crc(&record).unwrap_or_default();
    record[..RECORD_HEADER_BYTES].copy_from_slice(&header.encode());
    record
}

/// A record laid out in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaidOut {
    /// Where the record begins: after the page header, where there is one at `from`.
    pub start: Lsn,
    /// Where it ends, rounded up to 8.
    pub end: Lsn,
    /// The bytes of the stream from `from` to `end`, page headers and padding included.
    pub bytes: Vec<u8>,
}

/// Where a record begins that is written at `from`: the end of the record before it.
#[must_use]
pub fn record_start(shape: &WalShape, from: Lsn) -> Lsn {
    if from.0.is_multiple_of(WAL_PAGE_BYTES) {
        from + shape.header_bytes(from) as u64
    } else {
        from
    }
}

/// Lays a record out from `from` on, which is the end of the record before it.
#[must_use]
pub fn lay_out(shape: &WalShape, from: Lsn, record: &[u8]) -> LaidOut {
    let (mut at, mut rest, mut bytes) = (from, record, Vec::new());
    while !rest.is_empty() {
        if at.0.is_multiple_of(WAL_PAGE_BYTES) {
            let continued = rest.len() != record.len();
            let (flags, left) = if continued {
                (FIRST_IS_CONTRECORD, rest.len() as u32)
            } else {
                (0, 0)
            };
            let header = shape.encode_header(at, flags, left);
            at = at + header.len() as u64;
            bytes.extend(header);
        }
        let page_left = (WAL_PAGE_BYTES - at.0 % WAL_PAGE_BYTES) as usize;
        let (now, later) = rest.split_at(rest.len().min(page_left));
        bytes.extend_from_slice(now);
        at = at + now.len() as u64;
        rest = later;
    }
    let end = at.align8();
    bytes.resize(bytes.len() + (end - at) as usize, 0);
    LaidOut {
        start: record_start(shape, from),
        end,
        bytes,
    }
}

/// The clean shutdown that a compute starts from, written at `from`, the end of the record at
/// `prev`. Answers the record in its place and the checkpoint that `pg_control` must repeat.
#[must_use]
pub fn shutdown_checkpoint(
    shape: &WalShape,
    from: Lsn,
    prev: Lsn,
    checkpoint: &CheckPoint,
) -> (LaidOut, CheckPoint) {
    let checkpoint = CheckPoint {
        redo: record_start(shape, from),
        tli: shape.tli,
        prev_tli: shape.tli,
        oldest_active_xid: 0,
        wal_level: if shape.version < PgMajor::V17 {
            0
        } else {
            checkpoint.wal_level
        },
        ..*checkpoint
    };
    let record = encode_record(prev, 0, super::rmgr::XLOG, 0, &checkpoint.encode());
    (lay_out(shape, from, &record), checkpoint)
}

/// The beginning of the segment that holds the byte before `until`, up to `until`: real page
/// headers, and pages that read as the rest of one record that ends at `until`.
///
/// Empty where `until` begins a segment. The caller writes a record behind it and fills the
/// segment up with zeros.
#[must_use]
pub fn segment_prefix(shape: &WalShape, until: Lsn) -> Vec<u8> {
    let begin = Lsn(until.0 - until.segment_offset(shape.segment_bytes));
    let mut bytes = Vec::new();
    let mut page = begin;
    // Of the pages from `page` on: what is neither header nor after `until`.
    let left = |page: Lsn| {
        let whole = until - page;
        let pages = whole.div_ceil(WAL_PAGE_BYTES);
        let headers = shape.header_bytes(page) as u64
            + pages.saturating_sub(1) * super::page_header::SHORT_HEADER_BYTES as u64;
        whole.saturating_sub(headers)
    };
    while page < until {
        let remaining = left(page) as u32;
        let flags = if remaining == 0 {
            0
        } else {
            FIRST_IS_CONTRECORD
        };
        bytes.extend(shape.encode_header(page, flags, remaining));
        page = page + WAL_PAGE_BYTES;
        bytes.resize((page.min(until) - begin) as usize, 0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::{Decoder, FrameError, decode};

    const SHAPE: WalShape = WalShape {
        version: PgMajor::V15,
        segment_bytes: 1 << 20,
        system_id: 7,
        tli: 1,
    };

    /// Records of growing length from `from` on: over page and segment ends.
    fn stream(from: Lsn) -> (Vec<u8>, Vec<(Lsn, Lsn)>) {
        let (mut at, mut prev, mut bytes, mut places) = (from, Lsn(8), Vec::new(), Vec::new());
        for n in 0..200_usize {
            let record = encode_record(prev, 3, 21, 0, &vec![n as u8; n * 97]);
            let laid = lay_out(&SHAPE, at, &record);
            bytes.extend(laid.bytes);
            places.push((laid.start, laid.end));
            (at, prev) = (laid.end, laid.start);
        }
        (bytes, places)
    }

    #[test]
    fn what_is_laid_out_is_cut_back_whatever_the_pieces() {
        let from = Lsn((16 << 20) - 4096);
        let (bytes, places) = stream(from);
        for piece in [1, 7, 8192, usize::MAX] {
            let mut decoder = Decoder::new(SHAPE, from);
            let mut found = Vec::new();
            for chunk in bytes.chunks(piece.min(bytes.len())) {
                decoder.feed(chunk);
                while let Some((start, end, record)) = decoder.next().unwrap() {
                    let record = decode(PgMajor::V15, start, end, record).unwrap();
                    assert_eq!(record.main_data.len(), found.len() * 97);
                    found.push((start, end));
                }
            }
            assert_eq!(found, places);
            assert_eq!(decoder.position(), places.last().unwrap().1);
        }
    }

    #[test]
    fn a_scan_begins_at_the_first_record_of_a_page() {
        let from = Lsn(16 << 20);
        let (bytes, places) = stream(from);
        for page in 1..40 {
            let at = Lsn(from.0 + page * 8192);
            let mut decoder = Decoder::scanning(SHAPE, at);
            decoder.feed(&bytes[(at - from) as usize..]);
            let (start, ..) = decoder.next().unwrap().unwrap();
            let expected = places.iter().find(|place| place.0 >= at).unwrap();
            assert_eq!(start, expected.0);
        }
    }

    #[test]
    fn a_changed_byte_of_a_record_is_an_error() {
        let from = Lsn((16 << 20) + 4096);
        let record = encode_record(Lsn(8), 3, 21, 0, b"payload");
        for at in 0..record.len() {
            let mut bytes = lay_out(&SHAPE, from, &record).bytes;
            bytes[at] ^= 1;
            let mut decoder = Decoder::new(SHAPE, from);
            decoder.feed(&bytes);
            // A longer length only waits for more; padding of the header is under the checksum.
            assert!(!matches!(decoder.next(), Ok(Some(_))), "byte {at}");
        }
        let mut decoder = Decoder::new(SHAPE, from);
        decoder.feed(&[0; 64]);
        let error = FrameError::Length {
            lsn: from,
            bytes: 0,
        };
        assert_eq!(decoder.next(), Err(error.clone()));
        assert_eq!(decoder.next(), Err(error), "an error stays");
    }

    #[test]
    fn a_scan_of_a_made_segment_finds_the_checkpoint_alone() {
        let segment = 16 << 20;
        for offset in [0, 48, 8184, 8192, 3 * 8192 + 32, 5 * 8192 - 16] {
            let from = Lsn(segment + offset);
            let (laid, checkpoint) =
                shutdown_checkpoint(&SHAPE, from, Lsn(8), &CheckPoint::default());
            let record = encode_record(Lsn(8), 0, 0, 0, &checkpoint.encode());
            assert_eq!(record.len(), 114);
            assert_eq!(checkpoint.redo, laid.start);
            let mut decoder = Decoder::scanning(SHAPE, Lsn(segment));
            decoder.feed(&segment_prefix(&SHAPE, from));
            decoder.feed(&laid.bytes);
            let found = decoder.next().unwrap().unwrap();
            assert_eq!(
                (found.0, found.1, found.2),
                (laid.start, laid.end, &record[..])
            );
        }
    }
}
