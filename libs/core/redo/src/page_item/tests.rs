//! Limits of a page, which no page of a server reaches.

use super::*;

/// A page of three items: 16 bytes, 8 bytes, and one unused.
fn page() -> Page {
    let mut page = [0; BLOCK];
    init(&mut page, 16);
    add_item(&mut page, &[&[1; 16]], 1, Place::Insert).unwrap();
    add_item(&mut page, &[&[2; 8]], 2, Place::Insert).unwrap();
    add_item(&mut page, &[&[3; 8]], 3, Place::Insert).unwrap();
    set_pointer(&mut page, 3, Pointer::UNUSED).unwrap();
    page
}

fn set(page: &mut Page, at: usize, value: u16) {
    page[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn a_header_of_which_one_bound_is_wrong_is_refused() {
    let (lower, upper, special) = (12, 14, 16);
    for (at, value, is_good) in [
        (lower, 24, true),
        (lower, 23, false),
        (lower, 8144, true),
        (lower, 8145, false),
        (upper, 8176, true),
        (upper, 8177, false),
        (upper, 35, false),
        (special, 8192, true),
        (special, 8193, false),
    ] {
        let mut page = page();
        set(&mut page, at, value);
        assert_eq!(bounds(&page).is_ok(), is_good, "{at} {value}");
    }
}

#[test]
fn an_item_must_lie_where_items_do() {
    let outside = Fault::Item(2, "it does not lie in the item space");
    for (start, len, range) in [
        (8152, 8, Ok(8152..8160)),
        (8168, 8, Ok(8168..8176)),
        (8152, 0, Err(outside)),
        (8136, 8, Err(outside)),
        (8169, 8, Err(outside)),
    ] {
        let mut page = page();
        let state = State::Normal;
        set_pointer(&mut page, 2, Pointer { state, start, len }).unwrap();
        assert_eq!(item_range(&page, 2), range, "{start} {len}");
    }
}

#[test]
fn every_state_of_a_line_pointer_is_read_as_it_is_written() {
    for pointer in [
        Pointer::UNUSED,
        Pointer::DEAD,
        Pointer::redirect(7),
        Pointer {
            state: State::Normal,
            start: 8191,
            len: 0x7fff,
        },
    ] {
        assert_eq!(Pointer::from_bytes(pointer.to_bytes()), pointer);
    }
}

#[test]
fn an_item_is_added_where_there_is_none_or_an_unused_pointer() {
    let in_use = |item| Err(Fault::Item(item, "it is in use"));
    let none = |item| Err(Fault::NoSuchItem(item));
    for (item, place, added) in [
        (0, Place::Insert, none(0)),
        (1, Place::Insert, Ok(())),
        (1, Place::Reuse, in_use(1)),
        (3, Place::Reuse, Ok(())),
        (4, Place::Reuse, Ok(())),
        (5, Place::Reuse, none(5)),
        (5, Place::Insert, none(5)),
    ] {
        assert_eq!(add_item(&mut page(), &[&[4; 8]], item, place), added);
    }
    let mut page = page();
    let old = pointer(&page, 2).unwrap();
    for pointer in [
        Pointer {
            state: State::Unused,
            ..old
        },
        Pointer::DEAD,
    ] {
        set_pointer(&mut page, 2, pointer).unwrap();
        assert_eq!(add_item(&mut page, &[&[4; 8]], 2, Place::Reuse), in_use(2));
    }
}

#[test]
fn a_page_can_be_filled_to_the_last_byte() {
    let room = 8144 - 40;
    let bytes = [5; 2 * BLOCK];
    for (item, len, added) in [
        (3, room, Ok(())),
        (3, room + 1, Err(Fault::PageFull)),
        (4, room, Ok(())),
        (4, room + 1, Err(Fault::PageFull)),
        (4, BLOCK, Err(Fault::PageFull)),
        (4, 2 * BLOCK, Err(Fault::PageFull)),
    ] {
        let tried = add_item(&mut page(), &[&bytes[..len]], item, Place::Reuse);
        assert_eq!(tried, added, "{item} {len}");
    }
}

/// Ids go round; the three permanent ones are older than all others.
#[test]
fn the_oldest_transaction_to_prune_is_kept() {
    for (noted, xid, kept) in [
        (0, 700, 700),
        (700, 699, 699),
        (700, 700, 700),
        (700, 701, 700),
        (3, u32::MAX, u32::MAX),
        (u32::MAX, 3, u32::MAX),
        (3, 2, 2),
        (2, 3, 2),
        (2, 0x9000_0000, 2),
        (0x9000_0000, 2, 2),
        (1, 2, 1),
        (2, 1, 1),
        (2, 2, 2),
        (3, 0x8000_0002, 3),
        (3, 0x8000_0003, 0x8000_0003),
    ] {
        let mut page = page();
        page[20..24].copy_from_slice(&u32::to_le_bytes(noted));
        set_prunable(&mut page, xid);
        assert_eq!(u32_at(&page, 20), Ok(kept), "{xid} after {noted}");
    }
}
