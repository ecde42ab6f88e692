//! Wrapped data keys.

use ids::{KekVersion, TenantId, WrapSlot};
use sealed::wrap::{UnwrapError, unwrap, with_active, wrap};
use sealed::{Dek, Kek};

use crate::support::{Counting, KEK_ID, TENANT, dek, kek, slot};

#[test]
fn what_was_wrapped_unwraps() {
    assert_eq!(
        unwrap(&kek(), TENANT, &slot()).unwrap().expose(),
        dek().expose()
    );
}

#[test]
fn another_tenant_or_kek_is_refused() {
    let other_kek = || UnwrapError::OtherKek {
        kek_id: KEK_ID,
        kek_version: KekVersion(7),
    };
    let refusal = unwrap(&kek(), TenantId([1; 16]), &slot()).err();
    assert_eq!(refusal, Some(other_kek()));
    let refusal = unwrap(&Kek::from_bytes([0x12; 32]), TENANT, &slot()).err();
    assert_eq!(refusal, Some(other_kek()));
}

#[test]
fn every_bit_of_a_slot_is_covered() {
    for bit in 0..128 * 8 {
        let mut bytes = slot().0;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(
            unwrap(&kek(), TENANT, &WrapSlot(bytes)).is_err(),
            "bit {bit}"
        );
    }
}

#[test]
fn a_retired_slot_is_empty() {
    let refusal = unwrap(&kek(), TENANT, &with_active(&slot(), false)).err();
    assert_eq!(refusal, Some(UnwrapError::Empty));
}

#[test]
fn two_wraps_of_one_key_have_nothing_in_common() {
    let mut entropy = Counting(5);
    let mut make = || {
        wrap(
            &kek(),
            TENANT,
            KEK_ID,
            KekVersion(7),
            &Dek::from_bytes([9; 32]),
            &mut entropy,
        )
    };
    let (a, b) = (make(), make());
    assert_ne!(a.0[24..40], b.0[24..40], "salt");
    assert_ne!(a.0[40..72], b.0[40..72], "commitment");
    assert_ne!(a.0[72..120], b.0[72..120], "wrapped key");
}
