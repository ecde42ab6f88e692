//! Any stream is cut into records, or ends in an error that stays, whatever pieces it comes in.
//!
//! The input: the version, the size of segments, whether to scan, the length of pieces, and then
//! pages of WAL without their headers, which are made: chance does not hit these.
#![no_main]

use ids::Lsn;
use libfuzzer_sys::fuzz_target;
use pg::PgMajor;
use pg::wal::{Decoder, FrameError, WalShape};

const PAGE: usize = 8192;

fuzz_target!(|input: &[u8]| {
    let Some((&[version, segment, scan, piece], mut rest)) = input.split_first_chunk() else {
        return;
    };
    let shape = WalShape {
        version: PgMajor::ALL[usize::from(version) % PgMajor::ALL.len()],
        segment_bytes: 1 << (20 + segment % 11),
        system_id: 7,
        tli: 1,
    };
    let from = Lsn(2 * shape.segment_bytes - PAGE as u64);
    let (mut at, mut stream) = (from, Vec::new());
    while let Some((&[flags, low, high], body)) = rest.split_first_chunk() {
        let remaining = u32::from(u16::from_le_bytes([low, high]));
        let header = shape.encode_header(at, u16::from(flags), remaining);
        let body_bytes = body.len().min(PAGE - header.len());
        stream.extend(header);
        stream.extend_from_slice(&body[..body_bytes]);
        rest = &body[body_bytes..];
        at = at + PAGE as u64;
    }
    let whole = read(start(shape, from, scan), &stream, stream.len().max(1));
    let pieces = read(start(shape, from, scan), &stream, usize::from(piece).max(1));
    assert_eq!(whole, pieces);
});

fn start(shape: WalShape, from: Lsn, scan: u8) -> Decoder {
    if scan % 2 == 0 {
        Decoder::new(shape, from)
    } else {
        Decoder::scanning(shape, from)
    }
}

type Records = Vec<(Lsn, Lsn, Vec<u8>)>;

/// The records, and the error that ends them.
fn read(mut decoder: Decoder, stream: &[u8], piece: usize) -> (Records, Option<FrameError>) {
    let mut records = Vec::new();
    for piece in stream.chunks(piece) {
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some((start, end, bytes))) => {
                    assert!(start < end);
                    records.push((start, end, bytes.to_vec()));
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next(), Err(error.clone()), "an error stays");
                    return (records, Some(error));
                }
            }
        }
    }
    (records, None)
}
