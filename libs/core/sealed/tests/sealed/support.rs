//! Fixed keys, names and randomness.

use ids::{FileId, Generation, KekId, KekVersion, NodeId, TenantId, Term, TimelineId, WrapSlot};
use sealed::log::EpochStart;
use sealed::object::{Expected, ObjectSpec};
use sealed::{Dek, Entropy, HEADER_BYTES, Kek, ObjectKind};

pub(crate) const TENANT: TenantId = TenantId([0xA1; 16]);
pub(crate) const TIMELINE: TimelineId = TimelineId([0xB2; 16]);
pub(crate) const KEK_ID: KekId = KekId([0xC3; 16]);

/// Counts: never for anything but tests.
pub(crate) struct Counting(pub u64);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888);
            *byte = (self.0 >> 56) as u8;
        }
    }
}

pub(crate) fn kek() -> Kek {
    Kek::from_bytes([0x11; 32])
}

pub(crate) fn dek() -> Dek {
    Dek::from_bytes([0x22; 32])
}

pub(crate) fn slot() -> WrapSlot {
    sealed::wrap::wrap(
        &kek(),
        TENANT,
        KEK_ID,
        KekVersion(7),
        &dek(),
        &mut Counting(1),
    )
}

pub(crate) fn spec(kind: ObjectKind) -> ObjectSpec {
    ObjectSpec {
        kind,
        tenant: TENANT,
        timeline: TIMELINE,
        generation: Generation(3),
        name: "tenants/a/timelines/b/object".to_owned(),
        aux: 0x0102_0304_0506_0708,
        created_unix: 1_700_000_000,
        file_id: FileId([0xD4; 16]),
    }
}

pub(crate) fn expected(kind: ObjectKind) -> Expected {
    let spec = spec(kind);
    Expected {
        kind,
        tenant: spec.tenant,
        timeline: spec.timeline,
        name: spec.name,
    }
}

/// `n` bytes without a visible pattern of the chunk size.
pub(crate) fn plaintext(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
}

pub(crate) fn start(term: u64, lsn: u64) -> EpochStart {
    EpochStart {
        term: Term(term),
        start_lsn: ids::Lsn(lsn),
        node: NodeId(5),
        boot_nonce: 9,
    }
}

/// What an adversary does after a change of a header: the checksum has no key.
pub(crate) fn fix_checksum(bytes: &mut [u8]) {
    let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}
