//! Pages whose items overlap or leave the page, as a hostile record may have made them.

use super::*;
use crate::page_item::{Place, add_item, init};

/// A page of four items of 16 bytes, the first one highest.
fn page() -> Page {
    let mut page = [0; BLOCK];
    init(&mut page, 16);
    for item in 1..=4 {
        add_item(&mut page, &[&[item as u8; 16]], item, Place::Insert).unwrap();
    }
    page
}

fn with(item: u16, start: usize, len: usize) -> Page {
    let mut page = page();
    let state = State::Normal;
    set_pointer(&mut page, item, Pointer { state, start, len }).unwrap();
    page
}

fn packed(mut page: Page) -> Result<Page, Fault> {
    repair_fragmentation(&mut page, PgMajor::V17)?;
    Ok(page)
}

#[test]
fn a_page_whose_items_lie_wrong_is_not_packed() {
    let outside = Fault::Item(3, "it does not lie in the item space");
    for (start, len, fault) in [
        (8104, 16, outside),
        (8168, 16, outside),
        (8161, 16, outside),
        (8112, 8192 - 8112, outside),
    ] {
        assert_eq!(
            packed(with(3, start, len)).err(),
            Some(fault),
            "{start} {len}"
        );
    }
    // Nothing is at the end of the page, whose last bytes are the item's padding.
    let mut page = with(3, 8186, 6);
    page[16..18].copy_from_slice(&8192_u16.to_le_bytes());
    let overrun = Fault::Item(3, "it overruns the page");
    assert_eq!(packed(page).err(), Some(overrun));
}

#[test]
fn items_that_overlap_may_need_more_room_than_there_is() {
    let mut page = page();
    let (start, len) = (8112, 64);
    for item in 1..=4 {
        let state = State::Normal;
        set_pointer(&mut page, item, Pointer { state, start, len }).unwrap();
    }
    set_lower(&mut page, 8000);
    for item in 5..=u16::try_from((8000 - HEADER_BYTES) / 4).unwrap() {
        set_pointer(&mut page, item, Pointer::UNUSED).unwrap();
    }
    let overlap = Fault::Item(3, "it overlaps another");
    assert_eq!(packed(page).err(), Some(overlap));
}

/// One and the same bytes under two numbers: each gets its own.
#[test]
fn items_that_overlap_and_have_room_are_taken_apart() {
    let page = packed(with(2, 8168 - 8, 16)).unwrap();
    let starts = (1..=4).map(|item| pointer(&page, item).unwrap().start);
    assert_eq!(starts.collect::<Vec<_>>(), [8160, 8144, 8128, 8112]);
    assert_eq!(page[8144..8160], [1; 16]);
    assert_eq!(page[8112..8144], [[4; 16], [3; 16]].concat());
}

#[test]
fn items_in_any_order_are_packed_in_that_of_their_numbers() {
    for order in [
        [1, 2, 3],
        [1, 3, 2],
        [2, 1, 3],
        [3, 2, 1],
        [2, 3, 1],
        [3, 1, 2],
    ] {
        let mut page = page();
        let old = [1, 2, 3].map(|item| pointer(&page, item).unwrap());
        for (item, from) in (1..).zip(order) {
            set_pointer(&mut page, item, old[from - 1]).unwrap();
        }
        set_pointer(&mut page, 4, Pointer::UNUSED).unwrap();
        let page = packed(page).unwrap();
        for (item, from) in (1..).zip(order) {
            let range = item_range(&page, item).unwrap();
            assert_eq!(
                range,
                8176 - 16 * usize::from(item)..8192 - 16 * usize::from(item)
            );
            assert_eq!(page[range], [from as u8; 16], "{order:?}");
        }
    }
}

#[test]
fn an_unused_pointer_leads_nowhere() {
    let mut page = page();
    let old = pointer(&page, 2).unwrap();
    let state = State::Unused;
    set_pointer(&mut page, 2, Pointer { state, ..old }).unwrap();
    let page = packed(page).unwrap();
    assert_eq!(pointer(&page, 2), Ok(Pointer::UNUSED));
    assert_eq!(pointer(&page, 3).unwrap().start, 8144);
}

#[test]
fn an_item_whose_padding_leaves_the_page_is_not_removed() {
    let overrun = Err(Fault::Item(2, "it overruns the page"));
    let mut page = with(2, 8170, 6);
    assert_eq!(delete_item(&mut page.clone(), 2), overrun);
    assert_eq!(delete_item_in_place(&mut page.clone(), 2), overrun);
    assert_eq!(overwrite_item(&mut page, 2, &[7; 8]), Err(Fault::PageFull));
    for item in 1..=4 {
        delete_item(&mut self::page(), item).unwrap();
        delete_item_in_place(&mut self::page(), item).unwrap();
    }
}

#[test]
fn an_item_may_grow_to_the_last_byte() {
    let room = 16 + (8112 - 40);
    let bytes = [7; BLOCK];
    for (len, written) in [
        (8, Ok(())),
        (16, Ok(())),
        (room, Ok(())),
        (room + 1, Err(Fault::PageFull)),
        (BLOCK, Err(Fault::PageFull)),
    ] {
        let mut page = page();
        assert_eq!(
            overwrite_item(&mut page, 2, &bytes[..len]),
            written,
            "{len}"
        );
        if written.is_ok() {
            assert_eq!(page[item_range(&page, 2).unwrap()], bytes[..len]);
            assert_eq!(page[item_range(&page, 3).unwrap()], [3; 16]);
            assert_eq!(page[item_range(&page, 1).unwrap()], [1; 16]);
        }
    }
}

#[test]
fn items_that_are_not_there_are_not_removed() {
    let fault = Err(Fault::RecordValue("list of deleted items"));
    assert_eq!(delete_items(&mut page(), &[1, 2, 5]), fault);
    assert_eq!(delete_items(&mut page(), &[2, 1, 3]), fault);
    assert_eq!(
        delete_items(&mut page(), &[1, 5]),
        Err(Fault::NoSuchItem(5))
    );
    assert_eq!(delete_items(&mut page(), &[1, 2, 4]), Ok(()));
}
