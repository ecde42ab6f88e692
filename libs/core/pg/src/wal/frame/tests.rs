//! Streams made by hand: what a stock server seldom writes, and segments of every size.

use super::*;
use crate::PgMajor;
use crate::wal::write::{encode_record, lay_out};

const MEGABYTE: u64 = 1 << 20;

const fn shape(segment_bytes: u64) -> WalShape {
    WalShape {
        version: PgMajor::V18,
        segment_bytes,
        system_id: 7,
        tli: 1,
    }
}

fn message(prev: Lsn, bytes: usize) -> Vec<u8> {
    encode_record(prev, 3, rmgr::LOGICALMSG, 0, &vec![7; bytes])
}

/// Where records begin and end, and the error that ends them.
fn read(mut decoder: Decoder, bytes: &[u8]) -> (Vec<(Lsn, Lsn)>, Option<FrameError>) {
    let mut found = Vec::new();
    for piece in bytes.chunks(1000) {
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some((start, end, _))) => found.push((start, end)),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

#[test]
fn records_go_on_over_the_end_of_a_segment_of_every_size() {
    for segment in (20..=30).map(|bits| 1_u64 << bits) {
        let shape = shape(segment);
        let from = Lsn(3 * segment - 5000);
        let laid = lay_out(&shape, from, &message(Lsn(8), 16_000));
        // At the segment's end a long header, and a short one on the page after.
        assert_eq!(
            laid.bytes.len(),
            (24_usize + 5 + 16_000).next_multiple_of(8) + 40 + 24
        );
        let after = lay_out(&shape, laid.end, &message(laid.start, 10));
        let bytes = [laid.bytes, after.bytes].concat();
        let (found, error) = read(Decoder::new(shape, from), &bytes);
        assert_eq!(found, [(laid.start, laid.end), (after.start, after.end)]);
        assert_eq!(error, None);
        // Another size of segments expects another header there.
        let other = WalShape {
            segment_bytes: if segment == MEGABYTE {
                2 * MEGABYTE
            } else {
                segment / 2
            },
            ..shape
        };
        let at_end = Decoder::scanning(other, Lsn(3 * segment));
        let (found, error) = read(at_end, &bytes[5000..]);
        assert_eq!(found, []);
        assert!(matches!(error, Some(FrameError::Page(_))), "{error:?}");
    }
}

#[test]
fn a_switch_makes_the_rest_of_its_segment_void() {
    for segment in [MEGABYTE, 16 * MEGABYTE] {
        let shape = shape(segment);
        // The last one leaves no byte to be void.
        for offset in [40, 8192 * 3 + 24, segment - 24] {
            let from = Lsn(5 * segment + offset);
            let switch = encode_record(Lsn(8), 0, rmgr::XLOG, OP_SWITCH, &[]);
            // PostgreSQL writes it without data, and so without a header of data.
            let switch = bare(&switch);
            let laid = lay_out(&shape, from, &switch);
            let next = lay_out(&shape, Lsn(6 * segment), &message(laid.start, 10));
            let mut bytes = laid.bytes.clone();
            bytes.resize((Lsn(6 * segment) - from) as usize, 0xEE);
            bytes.extend(&next.bytes);
            let (found, error) = read(Decoder::new(shape, from), &bytes);
            assert_eq!(error, None);
            let end = Lsn(6 * segment);
            assert_eq!(found, [(laid.start, end), (next.start, next.end)]);
        }
    }
}

/// A record without its header of main data.
fn bare(record: &[u8]) -> Vec<u8> {
    let mut bare = record[..RECORD_HEADER_BYTES].to_vec();
    bare[..4].copy_from_slice(&(RECORD_HEADER_BYTES as u32).to_le_bytes());
    let crc = record_crc(&bare).unwrap();
    bare[20..].copy_from_slice(&crc.to_le_bytes());
    bare
}

/// A record of which two pages came, then the page where PostgreSQL writes on after a crash.
/// `says`: which record it says got lost.
fn overwritten(rmid: u8, says: impl Fn(Lsn) -> Lsn) -> (Vec<u8>, [(Lsn, Lsn); 3]) {
    let shape = shape(MEGABYTE);
    let from = Lsn(3 * MEGABYTE - 2 * WAL_PAGE_BYTES - 4096);
    let before = lay_out(&shape, from, &message(Lsn(8), 100));
    let lost = lay_out(&shape, before.end, &message(before.start, 50_000));
    let page = Lsn(3 * MEGABYTE);
    let mut bytes = [before.bytes, lost.bytes].concat();
    bytes.truncate((page - from) as usize);
    let note = [says(lost.start).0.to_le_bytes(), [1; 8]].concat();
    let note = encode_record(before.start, 0, rmid, OP_OVERWRITE_CONTRECORD, &note);
    let mut note = lay_out(&shape, page, &note);
    note.bytes[2] |= FIRST_IS_OVERWRITE_CONTRECORD as u8;
    let after = lay_out(&shape, note.end, &message(note.start, 10));
    bytes.extend(note.bytes);
    bytes.extend(after.bytes);
    let ends = [
        (before.start, before.end),
        (note.start, note.end),
        (after.start, after.end),
    ];
    (bytes, ends)
}

#[test]
fn a_record_whose_rest_got_lost_is_left_out() {
    let (bytes, places) = overwritten(rmgr::XLOG, |lost| lost);
    let (found, error) = read(Decoder::new(shape(MEGABYTE), places[0].0), &bytes);
    assert_eq!((found, error), (places.to_vec(), None));
    // Nobody knows what was before the page that a scan begins at.
    let scan = Decoder::scanning(shape(MEGABYTE), Lsn(3 * MEGABYTE));
    let from = bytes.len() - (places[2].1 - Lsn(3 * MEGABYTE)) as usize;
    let (found, error) = read(scan, &bytes[from..]);
    assert_eq!((found, error), (places[1..].to_vec(), None));
    // Without the flag it is a page that goes on with nothing.
    let mut unmarked = bytes;
    unmarked[from + 2] &= !(FIRST_IS_OVERWRITE_CONTRECORD as u8);
    let (_, error) = read(Decoder::new(shape(MEGABYTE), places[0].0), &unmarked);
    assert!(
        matches!(error, Some(FrameError::Continuation { .. })),
        "{error:?}"
    );
}

#[test]
fn what_stands_in_the_place_of_a_lost_rest_says_so() {
    for (bytes, places) in [
        overwritten(rmgr::XLOG, |lost| lost + 8),
        overwritten(rmgr::LOGICALMSG, |lost| lost),
    ] {
        let (found, error) = read(Decoder::new(shape(MEGABYTE), places[0].0), &bytes);
        assert_eq!(found, places[..1]);
        let (lsn, lost) = (places[1].0, places[0].1);
        assert_eq!(error, Some(FrameError::Overwrites { lsn, lost }));
    }
}

#[test]
fn a_length_that_no_record_has_is_refused_at_once() {
    for bytes in [0, 23, RECORD_BYTES_MAX + 1, u32::MAX] {
        let from = Lsn(3 * MEGABYTE + 64);
        let (found, error) = read(Decoder::new(shape(MEGABYTE), from), &bytes.to_le_bytes());
        assert_eq!(found, []);
        assert_eq!(error, Some(FrameError::Length { lsn: from, bytes }));
    }
    let longest = RECORD_BYTES_MAX.to_le_bytes();
    let (_, error) = read(
        Decoder::new(shape(MEGABYTE), Lsn(3 * MEGABYTE + 64)),
        &longest,
    );
    assert_eq!(error, None);
}
