//! Objects that are written as their plaintext comes: the same bytes, or none.

use bytes::BytesMut;
use ids::FileId;
use proptest::prelude::*;
use sealed::header::HeaderError;
use sealed::object::{Attempt, ObjectSpec, ObjectWriter, OpenError, open_all, seal};
use sealed::{Entropy, HEADER_BYTES, ObjectKind};

use crate::support::{Counting, dek, expected, plaintext, slot, spec};

const LAYER: ObjectKind = ObjectKind::ImageLayer;

/// Gives the file id of [`spec`].
struct Same;

impl Entropy for Same {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(0xD4);
    }
}

fn begin(kind: ObjectKind) -> ObjectWriter {
    ObjectWriter::new(Attempt::begin(&dek(), slot(), &mut Same), kind)
}

/// What a file holds to which everything was written as it came, and the header at last.
fn streamed<'a>(kind: ObjectKind, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = BytesMut::zeroed(HEADER_BYTES);
    let mut writer = begin(kind);
    for piece in pieces {
        writer.push(piece, &mut out);
    }
    let finished = writer.finish(&spec(kind), &mut out);
    out[..HEADER_BYTES].copy_from_slice(&finished.header);
    assert_eq!(finished.sealed_len, out.len() as u64);
    out.to_vec()
}

#[test]
fn every_cut_of_a_short_object_gives_the_bytes_of_the_whole() {
    for kind in [LAYER, ObjectKind::RemoteWal] {
        let chunk = 1 << kind.chunk_log2();
        for n in [0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 3 * chunk + 5] {
            let (plain, whole) = (
                plaintext(n),
                seal(&spec(kind), &dek(), &slot(), &plaintext(n)),
            );
            for cut in [0, 1, n / 2, chunk - 1, chunk, chunk + 1, n] {
                let (a, b) = plain.split_at(cut.min(n));
                assert!(streamed(kind, [a, &[], b]) == whole, "{n} cut at {cut}");
            }
            assert!(streamed(kind, plain.chunks(1000)) == whole, "{n}");
        }
    }
}

#[test]
fn the_last_full_chunk_is_held_until_it_is_known_whether_it_is_the_last() {
    let mut out = BytesMut::new();
    let mut writer = begin(LAYER);
    writer.push(&plaintext(8192), &mut out);
    assert!(out.is_empty(), "it may be the last one");
    writer.push(&[1], &mut out);
    assert_eq!(out.len(), 8192 + 16);
    writer.push(&[], &mut out);
    assert_eq!((out.len(), writer.plaintext_len()), (8192 + 16, 8193));
}

#[test]
fn chunks_without_their_header_are_no_object() {
    let plain = plaintext(3 * 8192);
    let mut out = BytesMut::zeroed(HEADER_BYTES);
    let mut writer = begin(LAYER);
    writer.push(&plain, &mut out);
    drop(writer);
    let refusal = Err(OpenError::Header(HeaderError::NotSealed));
    assert_eq!(open_all(&out, &dek(), &expected(LAYER)), refusal);
    // Nor under a header that belongs to as many bytes: its last chunk was not sealed as such.
    let whole = streamed(LAYER, [&plain[..2 * 8192]]);
    let cut = [&whole[..HEADER_BYTES], &out[HEADER_BYTES..]].concat();
    let refusal = Err(OpenError::Chunk { index: 1 });
    assert_eq!(open_all(&cut, &dek(), &expected(LAYER)), refusal);
}

#[test]
fn another_attempt_under_one_data_key_shares_no_chunk() {
    let mut entropy = Counting(7);
    let mut write = || {
        let attempt = Attempt::begin(&dek(), slot(), &mut entropy);
        let spec = ObjectSpec {
            file_id: attempt.file_id(),
            ..spec(LAYER)
        };
        let mut out = BytesMut::new();
        let mut writer = ObjectWriter::new(attempt, LAYER);
        writer.push(&plaintext(20_000), &mut out);
        let header = writer.finish(&spec, &mut out).header;
        (header, out)
    };
    let (first, second) = (write(), write());
    for (a, b) in first.1.chunks(8208).zip(second.1.chunks(8208)) {
        assert_ne!(a, b);
    }
    // Chunks of the one that was given up do not open in the one that followed.
    let mut mixed = [&second.0[..], &second.1].concat();
    mixed[HEADER_BYTES..HEADER_BYTES + 8208].copy_from_slice(&first.1[..8208]);
    let refusal = Err(OpenError::Chunk { index: 0 });
    assert_eq!(open_all(&mixed, &dek(), &expected(LAYER)), refusal);
}

#[test]
#[should_panic(expected = "O1")]
fn an_attempt_does_not_end_as_another_file() {
    let other = ObjectSpec {
        file_id: FileId([1; 16]),
        ..spec(LAYER)
    };
    let _ = begin(LAYER).finish(&other, &mut BytesMut::new());
}

#[test]
#[should_panic(expected = "immutable")]
fn a_log_is_not_written_in_chunks() {
    let _ = begin(ObjectKind::LocalWal);
}

proptest! {
    #[test]
    fn however_it_is_cut_the_bytes_are_those_of_the_whole(
        n in 0usize..60_000,
        cuts in prop::collection::vec(1usize..20_000, 0..12),
    ) {
        let plain = plaintext(n);
        let mut rest = &plain[..];
        let mut pieces = Vec::new();
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        let made = streamed(LAYER, pieces);
        prop_assert!(made[..] == seal(&spec(LAYER), &dek(), &slot(), &plain)[..]);
        prop_assert_eq!(&open_all(&made, &dek(), &expected(LAYER)).unwrap()[..], &plain[..]);
    }
}
