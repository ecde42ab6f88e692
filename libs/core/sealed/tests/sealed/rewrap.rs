//! Another KEK for a file: every state that a crash can leave opens with exactly one slot.

use bytes::Bytes;
use ids::{KekId, KekVersion, WrapSlot};
use sealed::header::{FlipError, Header, HeaderError, Staged, stage};
use sealed::object::{open_all, seal};
use sealed::wrap::{UnwrapError, unwrap, with_active, wrap};
use sealed::{Dek, HEADER_BYTES, Kek, ObjectKind};

use crate::support::{Counting, KEK_ID, TENANT, dek, expected, kek, plaintext, slot, spec};

const LAYER: ObjectKind = ObjectKind::ImageLayer;

fn new_kek() -> Kek {
    Kek::from_bytes([0x44; 32])
}

pub(crate) fn new_slot(version: u32) -> WrapSlot {
    let version = KekVersion(version);
    wrap(
        &new_kek(),
        TENANT,
        KEK_ID,
        version,
        &dek(),
        &mut Counting(99),
    )
}

pub(crate) fn flip(sector: &[u8]) -> Result<[u8; HEADER_BYTES], FlipError> {
    let staged = Staged::read_back(sector)?;
    let dek = unwrap(&new_kek(), TENANT, &staged.waiting()).unwrap();
    staged.flip(&dek)
}

fn layer() -> Bytes {
    seal(&spec(LAYER), &dek(), &slot(), &plaintext(9000))
}

/// Reads the file under `header` with whatever `kek` opens of it.
fn read(header: &[u8], kek: &Kek) -> Result<Bytes, UnwrapError> {
    let file = [header, &layer()[HEADER_BYTES..]].concat();
    let dek = unwrap(kek, TENANT, Header::decode(&file).unwrap().active_slot())?;
    Ok(open_all(&file, &dek, &expected(LAYER)).unwrap())
}

#[test]
fn every_step_opens_with_the_old_kek_before_the_flip_and_the_new_one_after_it() {
    let whole = layer();
    let staged = stage(&Header::decode(&whole).unwrap(), &new_slot(8));
    let flipped = flip(&staged).unwrap();
    let cleared = Header::decode(&flipped).unwrap().cleared();
    for (state, opens, refuses) in [
        (&whole[..HEADER_BYTES], kek(), new_kek()),
        (&staged, kek(), new_kek()),
        (&flipped, new_kek(), kek()),
        (&cleared, new_kek(), kek()),
    ] {
        assert_eq!(read(state, &opens).unwrap(), plaintext(9000));
        assert!(read(state, &refuses).is_err(), "R1");
    }
    assert_eq!(
        staged[..256],
        whole[..256],
        "slot A is not touched by the stage"
    );
    assert_eq!(flipped[384..508], whole[384..508], "R3");
    assert_eq!(cleared[128..256], [0; 128], "the old wrap is gone");
}

#[test]
fn it_is_begun_again_after_a_crash_at_any_step() {
    let whole = layer();
    let mut header = Header::decode(&whole).unwrap();
    // Twice around, so that each slot is the one in use once; staged twice each time.
    for version in [8, 9] {
        for _ in 0..2 {
            header = Header::decode(&stage(&header, &new_slot(version))).unwrap();
        }
        header = Header::decode(&flip(&header.encode()).unwrap()).unwrap();
        assert_eq!(header.active_slot().kek_version(), KekVersion(version));
        assert_eq!(read(&header.encode(), &new_kek()).unwrap(), plaintext(9000));
    }
    // The retired slot is not taken for one that waits.
    let refusal = Staged::read_back(&header.encode()).err();
    assert_eq!(refusal, Some(FlipError::NothingStaged));
}

#[test]
fn nothing_is_flipped_to_a_slot_that_is_not_there_or_of_another_file() {
    let whole = layer();
    let header = Header::decode(&whole).unwrap();
    assert_eq!(
        Staged::read_back(&whole).err(),
        Some(FlipError::NothingStaged)
    );
    let other = Dek::from_bytes([5; 32]);
    let version = KekVersion(8);
    let foreign = wrap(
        &new_kek(),
        TENANT,
        KEK_ID,
        version,
        &other,
        &mut Counting(1),
    );
    let staged = Staged::read_back(&stage(&header, &foreign)).unwrap();
    let key = unwrap(&new_kek(), TENANT, &staged.waiting()).unwrap();
    assert_eq!(staged.flip(&key).err(), Some(FlipError::OtherKey), "R2");
    // Nor to one of another KEK, as a slot that was retired may be.
    let (version, id) = (KekVersion(8), KekId([0x77; 16]));
    let other = wrap(&new_kek(), TENANT, id, version, &dek(), &mut Counting(1));
    let refusal = Staged::read_back(&stage(&header, &other)).err();
    assert_eq!(refusal, Some(FlipError::NothingStaged));
    // A torn sector is none: the checksum covers both slots.
    let mut torn = stage(&header, &new_slot(8));
    torn[256..384].copy_from_slice(&whole[256..384]);
    let refusal = FlipError::Header(HeaderError::Checksum);
    assert_eq!(Staged::read_back(&torn).err(), Some(refusal));
}

#[test]
fn where_both_slots_are_active_the_first_is_used_and_stays_so_while_staging() {
    let mut header = Header::decode(&layer()).unwrap();
    header.slots[1] = new_slot(7);
    let staged = Header::decode(&stage(&header, &new_slot(8))).unwrap();
    assert_eq!(staged.slots[0], slot());
    assert_eq!(staged.slots[1], with_active(&new_slot(8), false));
}
