//! The same file at another place: its chunks are copied, its header is new.

use ids::{Generation, KekVersion, TenantId, TimelineId};
use sealed::header::Header;
use sealed::object::{Expected, NewHome, OpenError, open_all, rehome, seal};
use sealed::wrap::{unwrap, wrap};
use sealed::{Dek, HEADER_BYTES, Kek, ObjectKind};

use crate::support::{
    Counting, KEK_ID, TENANT, dek, expected, fix_checksum, kek, plaintext, slot, spec,
};

const LAYER: ObjectKind = ObjectKind::DeltaLayer;
const OTHER: TenantId = TenantId([0x0B; 16]);

pub(crate) fn home(tenant: TenantId) -> NewHome {
    let (kek, version) = (other_kek(), KekVersion(1));
    NewHome {
        tenant,
        timeline: TimelineId([0x0C; 16]),
        generation: Generation(9),
        name: "tenants/c/timelines/d/object".to_owned(),
        created_unix: 1_800_000_000,
        slot: wrap(&kek, tenant, KEK_ID, version, &dek(), &mut Counting(5)),
    }
}

fn other_kek() -> Kek {
    Kek::from_bytes([0x33; 32])
}

fn asked(home: &NewHome) -> Expected {
    Expected {
        kind: LAYER,
        tenant: home.tenant,
        timeline: home.timeline,
        name: home.name.clone(),
    }
}

#[test]
fn copied_chunks_open_at_the_new_place_and_only_there() {
    let whole = seal(&spec(LAYER), &dek(), &slot(), &plaintext(20_000));
    for tenant in [TENANT, OTHER] {
        let to = home(tenant);
        let header = rehome(&whole, &dek(), &expected(LAYER), &to).unwrap();
        let moved = [&header[..], &whole[HEADER_BYTES..]].concat();
        // As a reader there does: the key comes out of the header, for the tenant that asks.
        let slot = Header::decode(&moved).unwrap().active_slot().clone();
        let key = unwrap(&other_kek(), tenant, &slot).unwrap();
        assert_eq!(
            open_all(&moved, &key, &asked(&to)).unwrap(),
            plaintext(20_000)
        );
        let refusal = open_all(&moved, &dek(), &expected(LAYER)).unwrap_err();
        assert!(matches!(refusal, OpenError::Other(_)));
        assert!(
            unwrap(&kek(), TENANT, &slot).is_err(),
            "the old KEK has no say"
        );
    }
}

#[test]
fn file_id_kind_length_and_writer_stay_and_the_place_is_new() {
    let whole = seal(&spec(LAYER), &dek(), &slot(), &plaintext(20_000));
    let to = home(OTHER);
    let (old, new) = (
        Header::decode(&whole).unwrap(),
        Header::decode(&rehome(&whole, &dek(), &expected(LAYER), &to).unwrap()).unwrap(),
    );
    let kept = |h: &Header| {
        let writer = (h.shard_number, h.shard_count, h.aux);
        (h.file_id, h.kind, h.plaintext_len, writer)
    };
    assert_eq!(kept(&old), kept(&new));
    assert_eq!((new.tenant, new.timeline), (to.tenant, to.timeline));
    assert_eq!(new.generation, to.generation);
    assert_ne!(new.commitment, old.commitment);
}

#[test]
fn what_is_not_proven_at_its_place_gets_no_other_one() {
    let whole = seal(&spec(LAYER), &dek(), &slot(), &plaintext(10));
    let to = home(TENANT);
    let wrong = Dek::from_bytes([0; 32]);
    let refusal = rehome(&whole, &wrong, &expected(LAYER), &to);
    assert_eq!(refusal, Err(OpenError::Commitment));
    let elsewhere = Expected {
        name: "another".to_owned(),
        ..expected(LAYER)
    };
    let refusal = rehome(&whole, &dek(), &elsewhere, &to);
    assert_eq!(refusal, Err(OpenError::Other("name")));
    for bit in 0..128 * 8 {
        let mut bytes = whole.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fix_checksum(&mut bytes);
        assert!(
            rehome(&bytes, &dek(), &expected(LAYER), &to).is_err(),
            "bit {bit}"
        );
    }
}

#[test]
fn documents_and_logs_stay_where_they_are() {
    for kind in [ObjectKind::Manifest, ObjectKind::Document] {
        let whole = seal(&spec(kind), &dek(), &slot(), b"{}");
        let refusal = rehome(&whole, &dek(), &expected(kind), &home(TENANT));
        assert_eq!(refusal, Err(OpenError::NotMovable));
    }
    let log = crate::log::two_epochs().1;
    let refusal = rehome(&log, &dek(), &expected(ObjectKind::LocalWal), &home(TENANT));
    assert_eq!(refusal, Err(OpenError::NotAnObject));
}
