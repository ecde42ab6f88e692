//! The few records that Redoubt writes itself.

use ids::Lsn;

use super::frame::record_crc;
use super::page_header::{FIRST_IS_CONTRECORD, WAL_PAGE_BYTES, WalShape};
use super::record::{RECORD_HEADER_BYTES, RecordHeader};

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
    if from.0 % WAL_PAGE_BYTES == 0 {
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
        if at.0 % WAL_PAGE_BYTES == 0 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PgMajor;
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
}
