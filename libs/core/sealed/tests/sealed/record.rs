//! Records of local databases, and cache slots.

use ids::{Key, Lsn, NodeId, TimelineId};
use sealed::record::{self, Place};
use sealed::slots::{self, SLOT_BYTES, SlotKey};

use crate::support::{Counting, TENANT, TIMELINE, dek, slot};

const PLACE: Place<'static> = Place {
    node: NodeId(1),
    timeline: TIMELINE,
    table: "acceptor",
    key: b"k",
};

#[test]
fn a_record_opens_at_its_place_and_nowhere_else() {
    let sealed = record::seal(&dek(), &slot(), &PLACE, b"vote", &mut Counting(1));
    assert_eq!(record::open(&sealed, &dek(), &PLACE).unwrap(), &b"vote"[..]);
    assert_eq!(record::wrap_slot(&sealed).unwrap(), slot());
    for other in [
        Place {
            node: NodeId(2),
            ..PLACE
        },
        Place {
            timeline: TimelineId([0; 16]),
            ..PLACE
        },
        Place {
            table: "acceptors",
            ..PLACE
        },
        Place { key: b"l", ..PLACE },
        Place {
            table: "acceptork",
            key: b"",
            ..PLACE
        },
    ] {
        let refusal = record::open(&sealed, &dek(), &other);
        assert_eq!(refusal, Err(record::RecordError::Forged), "{other:?}");
    }
}

#[test]
fn every_bit_and_every_cut_of_a_record_is_refused() {
    let sealed = record::seal(&dek(), &slot(), &PLACE, b"vote", &mut Counting(1));
    for bit in 128 * 8..sealed.len() * 8 {
        let mut bytes = sealed.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(record::open(&bytes, &dek(), &PLACE).is_err(), "bit {bit}");
    }
    for cut in 0..sealed.len() {
        assert!(
            record::open(&sealed[..cut], &dek(), &PLACE).is_err(),
            "{cut}"
        );
    }
}

#[test]
fn cache_slots_refuse_rollback_swap_and_another_key() {
    let key = SlotKey::generate(&mut Counting(1));
    let place = |slot, lsn| slots::Place {
        slot,
        tenant: TENANT,
        timeline: TIMELINE,
        key: Key::MIN,
        lsn: Lsn(lsn),
    };
    let mut old = [1; SLOT_BYTES];
    let old_seal = key.seal(&place(0, 1), &mut old);
    let mut new = [1; SLOT_BYTES];
    let new_seal = key.seal(&place(0, 1), &mut new);
    assert_ne!(old, new, "equal pages must not look equal");

    assert!(
        key.open(&place(0, 1), &new_seal, &mut old.clone()).is_err(),
        "rollback"
    );
    assert!(
        key.open(&place(1, 1), &new_seal, &mut new.clone()).is_err(),
        "swap"
    );
    assert!(
        key.open(&place(0, 2), &new_seal, &mut new.clone()).is_err(),
        "another version"
    );
    let other = SlotKey::generate(&mut Counting(2));
    assert!(
        other
            .open(&place(0, 1), &new_seal, &mut new.clone())
            .is_err(),
        "shredded key"
    );
    key.open(&place(0, 1), &new_seal, &mut new).unwrap();
    key.open(&place(0, 1), &old_seal, &mut old).unwrap();
    assert_eq!((old, new), ([1; SLOT_BYTES], [1; SLOT_BYTES]));
}
