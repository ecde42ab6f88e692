//! What the masks of the comparison hide, and what no server writes.

use pg::wal::rmgr;

use super::tests::{COMMAND, fault, long, neon_page, redo_in, short};
use super::*;
use crate::page_item::{ALL_VISIBLE, Pointer, State, flags, item_bytes, set_flag, set_pointer};
use crate::test_record::{END, XID, block, record};

/// The page of `neon_page` before the record of these tests.
fn page() -> Page {
    let mut page = neon_page(b"tuple");
    page[..8].fill(0);
    page
}

/// The tuple's masks, as they are to be before a record.
fn page_with(infomask2: u16, infomask: u16) -> Page {
    let mut page = page();
    let at = crate::page_item::item_range(&page, 1).unwrap().start;
    page[at + 16] = 9; // it was updated: its successor is item 9
    page[at + 18..at + 20].copy_from_slice(&infomask2.to_le_bytes());
    page[at + 20..at + 22].copy_from_slice(&infomask.to_le_bytes());
    page
}

const HOT: u16 = 0x4000;
const KEYS: u16 = 0x2000;

/// A row that is locked and no longer updated has no successor, and ends its chain.
#[test]
fn a_lock_ends_the_chain_of_a_row_that_no_one_updates_any_more() {
    for (infobits, infomask, ends) in [
        (0x00, 0x0002, false),
        (0x01, 0x1002, false),
        (0x02, 0x0082, true),
        (0x03, 0x1082, true),
        (0x04, 0x0042, true),
        (0x05, 0x1042, false),
        (0x08, 0x0012, false),
        (0x0c, 0x0052, false),
        (0x06, 0x00c2, true),
    ] {
        let mut page = page_with(2 | HOT | KEYS, 0xdff2);
        let main = [9, 0, 0, 0, 1, 0, infobits, 0];
        let lock = record((rmgr::HEAP, 0x60), &main, vec![block(0, 3, &[])]);
        redo_in(PgMajor::V17, &lock, 0, &mut page).unwrap();
        let tuple = item_bytes(&page, 1).unwrap();
        let chain = if ends { (2, 1) } else { (2 | HOT, 9) };
        assert_eq!((short(tuple, 18), short(tuple, 16)), chain, "{infobits:#x}");
        assert_eq!(short(tuple, 20), infomask | 0x0300, "{infobits:#x}");
        assert_eq!((long(tuple, 4), long(tuple, 8)), (9, 0));
    }
}

/// What the record says of `xmax` replaces all that the tuple said of it.
#[test]
fn a_delete_forgets_who_locked_or_updated_the_row() {
    for (infobits, infomask, infomask2) in [
        (0x00, 0x0000, 2),
        (0x01, 0x1000, 2),
        (0x02, 0x0080, 2),
        (0x04, 0x0040, 2),
        (0x08, 0x0010, 2),
        (0x10, 0x0000, 2 | KEYS),
    ] {
        let mut page = page_with(2 | HOT | KEYS, 0xdcf0);
        let main = [9, 0, 0, 0, 1, 0, infobits, 0];
        let delete = record((rmgr::HEAP, 0x10), &main, vec![block(0, 3, &[])]);
        redo_in(PgMajor::V17, &delete, 0, &mut page).unwrap();
        let tuple = item_bytes(&page, 1).unwrap();
        assert_eq!(short(tuple, 18), infomask2, "{infobits:#x}");
        assert_eq!(short(tuple, 20), infomask, "{infobits:#x}");
        assert_eq!(short(tuple, 16), 1, "it has no successor");
        assert_eq!(long(tuple, 8), 0, "nor a command");
        assert_eq!(long(&page, 20), XID, "there is something to prune");
    }
}

#[test]
fn a_page_stays_all_visible_unless_the_record_says_otherwise() {
    let tuple = [2, 0, 2, 8, 24, 0, b'a'];
    for (op, flag, main, data) in [
        (0x00, 2, vec![2, 0, 0], &tuple[..]),
        (0x10, 7, vec![9, 0, 0, 0, 1, 0, 0, 0], &[]),
    ] {
        for (value, stays) in [(0, true), (1, false)] {
            let mut page = page();
            set_flag(&mut page, ALL_VISIBLE, true);
            let mut main = main.clone();
            main[flag] = value;
            let change = record((rmgr::HEAP, op), &main, vec![block(0, 3, data)]);
            redo_in(PgMajor::V17, &change, 0, &mut page).unwrap();
            assert_eq!(flags(&page) & ALL_VISIBLE != 0, stays, "{op:#x}");
        }
    }
    for (value, old_stays, new_stays) in [(0, true, true), (1, false, true), (2, true, false)] {
        let (mut old, mut new) = (page(), page());
        set_flag(&mut old, ALL_VISIBLE, true);
        set_flag(&mut new, ALL_VISIBLE, true);
        let main = [9, 0, 0, 0, 1, 0, 0, value, 0, 0, 0, 0, 2, 0];
        let blocks = vec![block(0, 3, &tuple), block(1, 4, &[])];
        let update = record((rmgr::HEAP, 0x20), &main, blocks);
        redo_in(PgMajor::V17, &update, 0, &mut new).unwrap();
        redo_in(PgMajor::V17, &update, 1, &mut old).unwrap();
        let stays = [old, new].map(|page| flags(&page) & ALL_VISIBLE != 0);
        assert_eq!(stays, [old_stays, new_stays], "{value}");
    }
}

/// Only where the record keeps the old row for decoding may anything follow.
#[test]
fn bytes_after_a_change_are_refused_unless_they_are_the_old_row() {
    let tuple = [2, 0, 2, 8, 24, 0, b'a'];
    for (flag, delete_may, update_may) in [
        (0x00, false, false),
        (0x02, true, false),
        (0x04, true, true),
        (0x08, false, true),
        (0x10, false, false),
    ] {
        let main = [9, 0, 0, 0, 1, 0, 0, flag, 77];
        let delete = record((rmgr::HEAP, 0x10), &main, vec![block(0, 3, &[])]);
        let tried = redo_in(PgMajor::V17, &delete, 0, &mut page());
        assert_eq!(tried.is_ok(), delete_may, "{flag:#x}");
        if flag == 0x02 {
            continue; // an update says there that the new page is no longer all visible
        }
        let main = [9, 0, 0, 0, 1, 0, 0, flag, 0, 0, 0, 0, 2, 0, 77];
        let update = record((rmgr::HEAP, 0x20), &main, vec![block(0, 3, &tuple)]);
        let tried = redo_in(PgMajor::V17, &update, 0, &mut page());
        assert_eq!(tried.is_ok(), update_may, "{flag:#x}");
    }
}

#[test]
fn a_confirmed_row_points_to_itself() {
    let mut page = page_with(2, 2);
    let confirm = record((rmgr::HEAP, 0x50), &[1, 0], vec![block(0, 0x2_0003, &[])]);
    redo_in(PgMajor::V14, &confirm, 0, &mut page).unwrap();
    let tuple = item_bytes(&page, 1).unwrap();
    assert_eq!(tuple[12..18], [2, 0, 3, 0, 1, 0]);
    assert_eq!(pg::page::lsn(&page), END);
}

/// Prefix and suffix may each be all of the old row, and no more.
#[test]
fn what_an_update_shares_must_be_in_the_old_row() {
    let wrong = Err(Fault::RecordValue("prefix or suffix length"));
    for (prefix, suffix, made) in [
        (5, 0, Ok(())),
        (0, 5, Ok(())),
        (5, 5, Ok(())),
        (6, 0, wrong),
        (0, 6, wrong),
    ] {
        let main = [9, 0, 0, 0, 1, 0, 0, 0x60, 0, 0, 0, 0, 2, 0];
        let data = [prefix, 0, suffix, 0, 2, 0, 2, 8, 24, 0];
        let update = record((rmgr::HEAP, 0x40), &main, vec![block(0, 3, &data)]);
        let tried = redo_in(PgMajor::V17, &update, 0, &mut page());
        assert_eq!(
            tried.map_err(|error| error.fault),
            made,
            "{prefix} {suffix}"
        );
    }
}

#[test]
fn a_row_shorter_than_its_header_is_no_row() {
    let main = [9, 0, 0, 0, 1, 0, 0, 0];
    let delete = record((rmgr::HEAP, 0x10), &main, vec![block(0, 3, &[])]);
    for (len, is_row) in [(22, false), (23, true), (24, true)] {
        let mut page = page();
        let old = crate::page_item::pointer(&page, 1).unwrap();
        let state = State::Normal;
        set_pointer(&mut page, 1, Pointer { state, len, ..old }).unwrap();
        let tried = redo_in(PgMajor::V17, &delete, 0, &mut page);
        assert_eq!(tried.is_ok(), is_row, "{len}");
    }
}

/// Stock records say nothing of command ids, though the bit that tells of two may be in them.
#[test]
fn a_stock_row_has_no_combined_command() {
    let data = [2, 0, 0x22, 8, 24, 0, b'a'];
    let insert = record((rmgr::HEAP, 0x00), &[2, 0, 0], vec![block(0, 3, &data)]);
    let mut page = page();
    redo_in(PgMajor::V17, &insert, 0, &mut page).unwrap();
    assert_eq!(short(item_bytes(&page, 2).unwrap(), 20), 0x0802);
}

#[test]
fn a_row_that_is_updated_to_another_page_leaves_its_chain() {
    for (op, infomask2) in [(0x20, 2), (0x40, 2 | HOT)] {
        let mut page = page_with(2 | HOT | KEYS, 2);
        let main = [9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0];
        let data = [2, 0, 2, 8, 24, 0, b'a'];
        let update = record((rmgr::HEAP, op), &main, vec![block(0, 3, &data)]);
        redo_in(PgMajor::V17, &update, 0, &mut page).unwrap();
        assert_eq!(short(item_bytes(&page, 1).unwrap(), 18), infomask2);
    }
}

#[test]
fn freezing_alone_packs_nothing() {
    let mut page = page();
    crate::page_item::add_item(&mut page, &[&[0; 24]], 2, crate::page_item::Place::Insert).unwrap();
    set_pointer(&mut page, 2, Pointer::UNUSED).unwrap();
    let plan = [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 3, 0, 0, 1, 0, 1, 0];
    for flags in [0x10, 0x14] {
        let main = [0, flags];
        let freeze = record((rmgr::HEAP2, 0x20), &main, vec![block(0, 3, &plan)]);
        let mut page = page;
        redo_in(PgMajor::V17, &freeze, 0, &mut page).unwrap();
        assert_eq!(crate::page_item::item_count(&page), Ok(2));
        assert_eq!(short(item_bytes(&page, 1).unwrap(), 20), 0x0300);
    }
}

/// A block of a record that has nothing for it must bring nothing.
#[test]
fn a_payload_that_no_server_writes_is_refused() {
    let main = [9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0];
    for (kind, main, id) in [
        ((rmgr::HEAP, 0x10), &main[..8], 0),
        ((rmgr::HEAP, 0x20), &main, 1),
        ((rmgr::HEAP, 0x50), &[1, 0], 0),
        ((rmgr::HEAP, 0x60), &main[..8], 0),
        ((rmgr::HEAP2, 0x60), &main[..8], 0),
        ((rmgr::HEAP2, 0x40), &[0, 0, 0, 0, 3], 1),
    ] {
        for (data, is_good) in [(&[][..], true), (&[7], false)] {
            let mut blocks = vec![block(0, 3, &[])];
            blocks.resize(usize::from(id) + 1, block(id, 3, data));
            blocks[usize::from(id)].data = data;
            let record = record(kind, main, blocks);
            let tried = redo_in(PgMajor::V17, &record, id.into(), &mut page());
            assert_eq!(tried.is_ok(), is_good, "{kind:?}");
        }
    }
}

#[test]
fn a_map_page_must_be_that_of_the_table_page() {
    for (map, table, is_right) in [(0, 3, true), (1, 3, false)] {
        let visible = record(
            (rmgr::HEAP2, 0x40),
            &[0, 0, 0, 0, 3],
            vec![block(0, map, &[]), block(1, table, &[])],
        );
        let tried = redo_in(PgMajor::V17, &visible, 0, &mut [0; 8192]);
        assert_eq!(tried.is_ok(), is_right);
        let tried = redo_in(PgMajor::V17, &visible, 1, &mut [0; 8192]);
        assert!(tried.is_err(), "a table page of zeros has nothing to see");
    }
}

#[test]
fn pruning_without_the_lock_that_it_needs_is_refused() {
    let wrong = Fault::RecordValue("pruning without the lock it needs");
    // Dead: item 1; redirected: item 1 to itself; neither is done without the lock.
    for (flag, data) in [(0x40, &[1, 0, 1, 0][..]), (0x20, &[1, 0, 1, 0, 1, 0])] {
        let without = [0, flag];
        let prune = record((rmgr::HEAP2, 0x10), &without, vec![block(0, 3, data)]);
        assert_eq!(fault(PgMajor::V17, &prune, &page()), wrong);
        let with = [0, flag | 0x04];
        let prune = record((rmgr::HEAP2, 0x10), &with, vec![block(0, 3, data)]);
        redo_in(PgMajor::V17, &prune, 0, &mut page()).unwrap();
    }
}

#[test]
fn blocks_that_hold_nothing_for_a_change_are_held_to_it() {
    let trailing = [&COMMAND[..], &[0]].concat();
    let main = [&[9, 0, 0, 0, 1, 0, 0, 0][..], &trailing].concat();
    let delete = record((rmgr::NEON, 0x10), &main, vec![block(0, 3, &[])]);
    let too_long = Fault::RecordTooLong;
    assert_eq!(fault(PgMajor::V17, &delete, &page()), too_long);
}
