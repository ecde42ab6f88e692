//! A changed object gives the plaintext as it was, or nothing.
//!
//! The input is a list of changes, three bytes each: where (two bytes), and what to XOR.
#![no_main]

use ids::{FileId, Generation, TenantId, TimelineId, WrapSlot};
use libfuzzer_sys::fuzz_target;
use sealed::object::{Expected, ObjectSpec, open_all, seal};
use sealed::{Dek, HEADER_BYTES, ObjectKind};

fuzz_target!(|input: &[u8]| {
    let dek = Dek::from_bytes([1; 32]);
    let spec = ObjectSpec {
        kind: ObjectKind::ImageLayer,
        tenant: TenantId([2; 16]),
        timeline: TimelineId([3; 16]),
        generation: Generation(4),
        name: "name".to_owned(),
        aux: 5,
        created_unix: 6,
        file_id: FileId([7; 16]),
    };
    let mut slot = [0; 128];
    (slot[20], slot[21]) = (1, 1);
    let plaintext = [8; 8192 + 100];
    let mut bytes = seal(&spec, &dek, &WrapSlot(slot), &plaintext).to_vec();
    let (cut, changes) = input
        .split_first()
        .map_or((0, input), |(c, rest)| (*c, rest));
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
        bytes[at] ^= change[2];
    }
    bytes.truncate(bytes.len() - usize::from(cut));
    let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    let expected = Expected {
        kind: spec.kind,
        tenant: spec.tenant,
        timeline: spec.timeline,
        name: spec.name,
    };
    if let Ok(opened) = open_all(&bytes, &dek, &expected) {
        assert_eq!(
            opened,
            &plaintext[..],
            "unauthenticated bytes were returned"
        );
    }
});
