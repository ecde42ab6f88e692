//! Immutable objects under attack.

use bytes::Bytes;
use ids::{FileId, TenantId, TimelineId};
use proptest::prelude::*;
use sealed::header::{Header, HeaderError};
use sealed::object::{Expected, ObjectSpec, OpenError, Reader, open_all, seal};
use sealed::wrap::unwrap;
use sealed::{Dek, HEADER_BYTES, ObjectKind};

use crate::support::{TENANT, dek, expected, fix_checksum, kek, plaintext, slot, spec};

const LAYER: ObjectKind = ObjectKind::ImageLayer;
const STRIDE: usize = 8192 + 16;

fn layer(n: usize) -> Bytes {
    seal(&spec(LAYER), &dek(), &slot(), &plaintext(n))
}

/// All that a reader does, from the stored bytes on.
fn read(bytes: &[u8]) -> Option<Bytes> {
    let header = Header::decode(bytes).ok()?;
    let dek = unwrap(&kek(), TENANT, header.active_slot()).ok()?;
    open_all(bytes, &dek, &expected(LAYER)).ok()
}

#[test]
fn lengths_around_a_chunk_come_back_and_have_the_size_of_the_formula() {
    for kind in [LAYER, ObjectKind::Manifest] {
        let chunk = 1 << kind.chunk_log2();
        for n in [0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 3 * chunk - 7] {
            let sealed = seal(&spec(kind), &dek(), &slot(), &plaintext(n));
            assert_eq!(sealed.len(), 512 + n + 16 * n.div_ceil(chunk).max(1));
            assert_eq!(
                open_all(&sealed, &dek(), &expected(kind)).unwrap(),
                plaintext(n),
                "{n}"
            );
        }
    }
}

#[test]
fn no_plaintext_is_visible() {
    let secret = b"a customer's very own sentence";
    let sealed = seal(&spec(LAYER), &dek(), &slot(), secret);
    assert!(!sealed.windows(8).any(|w| secret.windows(8).any(|s| s == w)));
}

#[test]
fn every_bit_of_a_header_is_covered() {
    let whole = layer(100);
    for bit in 0..HEADER_BYTES * 8 {
        let mut bytes = whole.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(read(&bytes), None, "bit {bit}, checksum as it was");
        fix_checksum(&mut bytes);
        // Slot B has no say while slot A is active, and the checksum has just been mended.
        let idle = (256..384).contains(&(bit / 8)) || bit / 8 >= 508;
        let opened = read(&bytes);
        assert!(
            opened.is_none() || (idle && opened.unwrap() == plaintext(100)),
            "bit {bit}"
        );
    }
}

#[test]
fn every_bit_of_a_body_is_covered() {
    let whole = layer(200);
    for bit in HEADER_BYTES * 8..whole.len() * 8 {
        let mut bytes = whole.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            open_all(&bytes, &dek(), &expected(LAYER)),
            Err(OpenError::Chunk { index: 0 }),
            "bit {bit}"
        );
    }
}

#[test]
fn a_cut_at_any_byte_and_an_extension_are_refused() {
    let whole = layer(STRIDE + 50);
    for cut in 0..whole.len() {
        assert!(
            open_all(&whole[..cut], &dek(), &expected(LAYER)).is_err(),
            "{cut}"
        );
    }
    let mut longer = whole.to_vec();
    longer.push(0);
    assert!(matches!(
        open_all(&longer, &dek(), &expected(LAYER)),
        Err(OpenError::Length { .. })
    ));
}

#[test]
fn chunks_do_not_move_within_a_file_or_between_files() {
    let whole = layer(3 * 8192);
    let chunk = |i: usize| HEADER_BYTES + i * STRIDE..HEADER_BYTES + (i + 1) * STRIDE;
    for (to, from) in [(0, 1), (1, 0), (0, 2), (2, 0), (2, 1)] {
        let mut bytes = whole.to_vec();
        bytes.copy_within(chunk(from), chunk(to).start);
        let refusal = OpenError::Chunk { index: to as u64 };
        assert_eq!(
            open_all(&bytes, &dek(), &expected(LAYER)),
            Err(refusal),
            "{from} to {to}"
        );
    }
    // Even under the same data key: another incarnation has other keys.
    let other = {
        let spec = ObjectSpec {
            file_id: FileId([0xD5; 16]),
            ..spec(LAYER)
        };
        seal(&spec, &dek(), &slot(), &plaintext(3 * 8192))
    };
    let mut bytes = whole.to_vec();
    bytes[chunk(1)].copy_from_slice(&other[chunk(1)]);
    let refusal = OpenError::Chunk { index: 1 };
    assert_eq!(open_all(&bytes, &dek(), &expected(LAYER)), Err(refusal));
}

#[test]
fn an_object_of_another_place_is_refused() {
    let whole = layer(10);
    for (what, asked) in [
        (
            "tenant",
            Expected {
                tenant: TenantId([1; 16]),
                ..expected(LAYER)
            },
        ),
        (
            "timeline",
            Expected {
                timeline: TimelineId([1; 16]),
                ..expected(LAYER)
            },
        ),
        (
            "name",
            Expected {
                name: "another".to_owned(),
                ..expected(LAYER)
            },
        ),
        (
            "kind",
            Expected {
                kind: ObjectKind::DeltaLayer,
                ..expected(LAYER)
            },
        ),
    ] {
        assert_eq!(
            open_all(&whole, &dek(), &asked),
            Err(OpenError::Other(what))
        );
    }
    let refusal = open_all(&whole, &Dek::from_bytes([0; 32]), &expected(LAYER));
    assert_eq!(refusal, Err(OpenError::Commitment));
}

#[test]
fn bytes_without_the_magic_are_never_plaintext() {
    for bytes in [&b""[..], &[0; 8192], &plaintext(8192)] {
        let refusal = OpenError::Header(HeaderError::NotSealed);
        assert_eq!(open_all(bytes, &dek(), &expected(LAYER)), Err(refusal));
    }
}

#[test]
fn downgrades_of_kind_cipher_kdf_version_and_flags_are_refused() {
    for (at, value, refusal) in [
        (8, 2, HeaderError::Version(2)),
        (10, 0, HeaderError::Cipher(0)),
        (10, 2, HeaderError::Cipher(2)),
        (11, 2, HeaderError::Kdf(2)),
        (
            12,
            3,
            HeaderError::Kind {
                kind: 3,
                chunk_log2: 13,
            },
        ),
        (
            12,
            0,
            HeaderError::Kind {
                kind: 0,
                chunk_log2: 13,
            },
        ),
        (
            13,
            16,
            HeaderError::Kind {
                kind: 1,
                chunk_log2: 16,
            },
        ),
        (14, 1, HeaderError::Unknown),
        (15, 3, HeaderError::Unknown),
    ] {
        let mut bytes = layer(10).to_vec();
        bytes[at] = value;
        fix_checksum(&mut bytes);
        assert_eq!(Header::decode(&bytes), Err(refusal), "byte {at}");
    }
    // A kind with the same chunks passes the registry, and is then not what was committed to.
    let mut bytes = layer(10).to_vec();
    bytes[12] = ObjectKind::DeltaLayer as u8;
    fix_checksum(&mut bytes);
    let refusal = open_all(&bytes, &dek(), &expected(ObjectKind::DeltaLayer));
    assert_eq!(refusal, Err(OpenError::Commitment));
}

#[test]
fn an_older_whole_object_of_the_same_name_opens_and_shows_its_file_id() {
    // FORMAT.md says so: the manifest, which records file ids, is what refuses it.
    let old = layer(10);
    let reader = Reader::open(&old, old.len() as u64, &dek(), &expected(LAYER)).unwrap();
    assert_eq!(reader.header().file_id, FileId([0xD4; 16]));
}

#[test]
fn cipher_2_is_reserved_for_aes_256_gcm_and_refused_by_that_name() {
    let mut bytes = layer(10).to_vec();
    bytes[10] = 2;
    fix_checksum(&mut bytes);
    let refusal = open_all(&bytes, &dek(), &expected(LAYER)).unwrap_err();
    assert_eq!(refusal, OpenError::Header(HeaderError::Cipher(2)));
    let words = HeaderError::Cipher(2).to_string();
    assert!(
        words.starts_with("cipher 2 (AES-256-GCM, reserved"),
        "{words}"
    );
    let words = HeaderError::Cipher(3).to_string();
    assert_eq!(words, "cipher 3 is not part of this build");
}

proptest! {
    #[test]
    fn any_range_opens_from_its_sealed_range(n in 0usize..40_000, a in 0u64..50_000, b in 0u64..50_000) {
        let (whole, plain) = (layer(n), plaintext(n));
        let reader = Reader::open(&whole, whole.len() as u64, &dek(), &expected(LAYER)).unwrap();
        let sealed = reader.sealed_range(a..b);
        let bytes = &whole[sealed.start as usize..sealed.end as usize];
        match reader.open_range(a..b, bytes) {
            Ok(opened) => prop_assert_eq!(&opened[..], &plain[a as usize..b as usize]),
            Err(refusal) => {
                prop_assert_eq!(refusal, OpenError::Range);
                prop_assert!(a > b || b > n as u64);
            }
        }
    }

    #[test]
    fn hostile_headers_do_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 512..600)) {
        let _ = Header::decode(&bytes);
        bytes[..16].copy_from_slice(&layer(0)[..16]);
        fix_checksum(&mut bytes);
        let _ = open_all(&bytes, &dek(), &expected(LAYER));
    }
}
