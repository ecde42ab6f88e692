//! Records and pages that no server writes, and are refused.

use super::page::{
    DELETED, HAS_GARBAGE, INCOMPLETE_SPLIT, form_posting, swap_posting, without_tids,
};
use super::*;
use crate::page_item::{Place, add_item, item_bytes};
use crate::test_record::{block, record};
use pg::page::BLOCK;

const DAMAGED: Fault = Fault::RecordValue("posting list");

/// A key of eight bytes after the header, and rows of blocks 1 to `rows`.
fn tuple(rows: u8) -> Vec<u8> {
    let key = [1, 0, 9, 0, 3, 0, 16, 0, 7, 7, 7, 7, 7, 7, 7, 7];
    let tids: Vec<_> = (1..=rows).flat_map(|row| [0, 0, row, 0, 1, 0]).collect();
    form_posting(&key, &tids).unwrap()
}

#[test]
fn a_list_is_made_of_several_rows_and_a_plain_tuple_of_one() {
    let one = tuple(1);
    assert_eq!(one[..8], [0, 0, 1, 0, 1, 0, 16, 0]);
    let two = tuple(2);
    assert_eq!(two[..8], [0, 0, 16, 0, 2, 0x20, 32, 0x20]);
    assert_eq!(two[16..28], [0, 0, 1, 0, 1, 0, 0, 0, 2, 0, 1, 0]);
    assert_eq!(two[28..], [0; 4]);
}

#[test]
fn a_list_is_no_longer_than_a_length_can_say() {
    let key = [&tuple(1)[..8], &[7; 8]].concat();
    let header = &key[..8];
    for (key, tids, is_made) in [
        (header, 6 * 1362, true),
        (header, 6 * 1363, false),
        (&[7; 8191], 6, true),
        (&[7; 8192], 6, false),
        (&key[..7], 6, false),
        (header, 6, true),
        (header, 0, false),
        (&key[..7], 12, false),
    ] {
        let made = form_posting(key, &vec![1; tids]);
        assert_eq!(made.is_ok(), is_made, "{tids}");
    }
}

#[test]
fn a_row_falls_inside_a_list_or_not_at_all() {
    let new = tuple(1);
    let list = tuple(3);
    for (at, is_inside) in [(0, false), (1, true), (2, true), (3, false), (4, false)] {
        assert_eq!(swap_posting(&new, &list, at).is_ok(), is_inside, "{at}");
    }
    assert!(swap_posting(&new[..8], &list, 1).is_ok());
    assert!(swap_posting(&new[..7], &list, 1).is_err());
    assert!(swap_posting(&new, &new, 1).is_err(), "it is no list");
}

#[test]
fn rows_that_a_list_has_not_are_not_taken_out() {
    let wrong = Err(Fault::RecordValue("list of deleted rows"));
    assert_eq!(without_tids(&tuple(3), [1, 3].into_iter()), wrong);
    assert_eq!(without_tids(&tuple(3), [1, 0].into_iter()), wrong);
    assert_eq!(without_tids(&tuple(1), [].into_iter()), wrong);
    assert_eq!(without_tids(&tuple(3), [0, 1, 2].into_iter()), Err(DAMAGED));
    assert!(without_tids(&tuple(3), [0, 2].into_iter()).is_ok());
}

/// Both of these bits say that it is a list: a pivot has the first alone, a plain tuple none.
#[test]
fn only_a_tuple_that_says_so_twice_is_a_list() {
    let mut list = tuple(2);
    for (alternative, posting, is_list) in [
        (0, 0, false),
        (0x20, 0, false),
        (0, 0x20, false),
        (0x20, 0x20, true),
    ] {
        list[7] = alternative;
        list[5] = posting;
        let read = page::Posting::read(&list).unwrap();
        assert_eq!(read.is_list, is_list);
        assert_eq!(read.key.len(), if is_list { 16 } else { 32 });
    }
    list[0] = 1; // the list begins beyond 65,536
    assert_eq!(page::Posting::read(&list).err(), Some(DAMAGED));
    list[0] = 0;
    list[2] = 7; // or inside the header
    assert_eq!(page::Posting::read(&list).err(), Some(DAMAGED));
}

fn leaf(items: u16) -> Page {
    let mut page = [0; BLOCK];
    let special = Opaque {
        prev: 1,
        next: 0,
        level: 0,
        flags: LEAF | HAS_GARBAGE,
        cycle: 5,
    };
    special.init(&mut page).unwrap();
    for item in 1..=items {
        add_item(&mut page, &[&tuple(1)], item, Place::Insert).unwrap();
    }
    page
}

fn redo_one(op: u8, main: &[u8], data: &[u8], page: &mut Page) -> Result<(), Fault> {
    let blocks = vec![block(0, 3, data), block(1, 4, &[])];
    let record = record((pg::wal::rmgr::BTREE, op), main, blocks);
    redo(PgMajor::V17, &record, &record.blocks[0], page)
}

#[test]
fn intervals_of_deduplication_ascend_and_are_not_empty() {
    let wrong = Err(Fault::RecordValue("deduplication interval"));
    for (intervals, made) in [
        (&[1, 0, 2, 0][..], Ok(())),
        (&[1, 0, 2, 0, 3, 0, 2, 0], Ok(())),
        (&[1, 0, 2, 0, 2, 0, 2, 0], wrong),
        (&[1, 0, 0, 0], wrong),
        (&[0, 0, 2, 0], wrong),
    ] {
        let main = [(intervals.len() / 4) as u8, 0];
        let mut page = leaf(4);
        assert_eq!(redo_one(0x60, &main, intervals, &mut page), made);
        if made.is_ok() {
            assert_eq!(item_bytes(&page, 1).unwrap()[4], 2, "rows");
            assert_eq!(Opaque::read(&page).unwrap().flags, LEAF);
        }
    }
}

/// The masks of the comparison hide the cycle, and whether there is garbage.
#[test]
fn a_vacuum_forgets_its_cycle_and_the_garbage() {
    let mut page = leaf(3);
    redo_one(0xC0, &[1, 0, 0, 0], &[2, 0], &mut page).unwrap();
    let special = Opaque::read(&page).unwrap();
    assert_eq!((special.flags, special.cycle), (LEAF, 0));
    let mut page = leaf(3);
    redo_one(0x70, &[0, 0, 0, 0, 1, 0, 0, 0, 0], &[2, 0], &mut page).unwrap();
    let special = Opaque::read(&page).unwrap();
    assert_eq!((special.flags, special.cycle), (LEAF, 5));
    assert_eq!(special.flags & (DELETED | INCOMPLETE_SPLIT), 0);
}

/// The new row falls into the list at item 2, and goes left or right with the list split in two.
#[test]
fn a_page_may_split_next_to_a_list_that_a_row_falls_into() {
    let (new, high_key) = ([&[0, 0, 1, 0, 9, 0, 16, 0][..], &[7; 8]].concat(), tuple(1));
    for (op, first_right, kept) in [(0x30, 3, 4), (0x30, 4, 5), (0x40, 3, 3), (0x40, 2, 2)] {
        let mut page = leaf(1);
        add_item(&mut page, &[&tuple(3)], 2, Place::Insert).unwrap();
        add_item(&mut page, &[&tuple(1)], 3, Place::Insert).unwrap();
        let main = [0, 0, 0, 0, first_right, 0, 3, 0, 1, 0];
        let data = [&new[..], &high_key].concat();
        redo_one(op, &main, &data, &mut page).unwrap();
        let items = crate::page_item::item_count(&page).unwrap();
        assert_eq!(items, kept, "{op:#x} {first_right}");
        let special = Opaque::read(&page).unwrap();
        assert_eq!((special.flags, special.cycle), (LEAF | INCOMPLETE_SPLIT, 0));
        assert_eq!(item_bytes(&page, 2).unwrap(), tuple(1));
        if kept > 2 {
            let list = [[0, 0, 1, 0, 1, 0], [0, 0, 1, 0, 9, 0], [0, 0, 2, 0, 1, 0]];
            assert_eq!(item_bytes(&page, 3).unwrap()[16..34], list.concat());
        }
        if kept > 3 {
            let last = item_bytes(&page, 4).unwrap();
            assert_eq!(last[..6], [0, 0, 3, 0, 1, 0], "the list's last row");
        }
        if kept > 4 {
            assert_eq!(item_bytes(&page, 5).unwrap(), tuple(1));
        }
    }
}
