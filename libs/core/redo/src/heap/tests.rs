//! What no workload makes a stock server write, and what only Neon's servers do.

use ids::{Fork, Lsn, RelTag};
use pg::page::{BLOCK, lsn};
use pg::wal::block_flags::WILL_INIT;
use pg::wal::rmgr;

use super::*;
use crate::page_item::{ALL_VISIBLE, flags, item_bytes, pointer, set_flag};
use crate::test_record::{END, TABLE, XID, block, record};
use crate::{RedoError, apply, vm_clears};

fn map_block(id: u8, blkno: u32) -> Block<'static> {
    let rel = RelTag {
        fork: Fork::Vm,
        ..TABLE
    };
    Block {
        rel,
        ..block(id, blkno, &[])
    }
}

pub(super) fn redo_in(
    version: PgMajor,
    record: &Record,
    index: usize,
    page: &mut Page,
) -> Result<(), RedoError> {
    let settings = Settings {
        version,
        logs_hints: false,
    };
    apply(settings, record, index, page)
}

pub(super) fn fault(version: PgMajor, record: &Record, page: &Page) -> Fault {
    redo_in(version, record, 0, &mut page.clone())
        .unwrap_err()
        .fault
}

pub(super) fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(super) fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

const COMBO: u16 = 0x0020;
pub(super) const COMMAND: [u8; 4] = [0x0d, 0, 0, 0];
/// Two attributes, `infomask` 0x0802 with a combined command id.
const NEON_HEADER: [u8; 9] = [2, 0, 0x22, 0x08, 0x0d, 0, 0, 0, 24];

/// A page with tuple 1, as one of Neon's servers inserts it: `filler` after the header.
pub(super) fn neon_page(filler: &[u8]) -> Page {
    let mut page = [0; BLOCK];
    let data = [&NEON_HEADER[..], &[0], filler].concat();
    let mut first = block(0, 3, &data);
    first.flags = WILL_INIT;
    let insert = record((rmgr::NEON, 0x80), &[1, 0, 0], vec![first]);
    redo_in(PgMajor::V17, &insert, 0, &mut page).unwrap();
    page
}

#[test]
fn an_insert_of_neon_keeps_the_command_id() {
    let page = neon_page(b"tuple");
    let tuple = item_bytes(&page, 1).unwrap();
    assert_eq!(
        (long(tuple, 0), long(tuple, 4), long(tuple, 8)),
        (XID, 0, 13)
    );
    assert_eq!(tuple[12..18], [0, 0, 3, 0, 1, 0], "the ctid");
    assert_eq!((short(tuple, 18), short(tuple, 20)), (2, 0x0802 | COMBO));
    assert_eq!((tuple[22], &tuple[24..]), (24, &b"tuple"[..]));
    assert_eq!(lsn(&page), END);
}

#[test]
fn many_inserts_of_neon_have_one_command_id() {
    let mut page = neon_page(b"first");
    set_flag(&mut page, ALL_VISIBLE, true);
    page[..8].fill(0);
    let tuples = [
        &[2, 0, 2, 0, 2, 8, 24, 0, b'a', 0][..], // one byte before the next is aligned
        &[3, 0, 2, 0, 0x22, 8, 24, 0, b'b', b'c'],
    ]
    .concat();
    let main = [&[1, 0, 2, 0][..], &COMMAND, &[2, 0, 3, 0]].concat();
    let many = record((rmgr::NEON, 0x50), &main, vec![block(0, 3, &tuples)]);
    redo_in(PgMajor::V16, &many, 0, &mut page).unwrap();
    let (second, third) = (item_bytes(&page, 2).unwrap(), item_bytes(&page, 3).unwrap());
    assert_eq!((long(second, 8), long(third, 8)), (13, 13));
    assert_eq!(
        (short(second, 20), short(third, 20)),
        (0x0802, 0x0802 | COMBO)
    );
    assert_eq!((&second[24..], &third[24..]), (&b"a"[..], &b"bc"[..]));
    assert_eq!(flags(&page) & ALL_VISIBLE, 0);
}

#[test]
fn a_delete_of_neon_keeps_the_command_id() {
    for (infobits, infomask) in [(0x20, 2 | COMBO), (0x00, 2)] {
        let mut page = neon_page(b"tuple");
        page[..8].fill(0);
        let main = [&[9, 0, 0, 0, 1, 0, infobits, 0][..], &COMMAND].concat();
        let delete = record((rmgr::NEON, 0x10), &main, vec![block(0, 3, &[])]);
        redo_in(PgMajor::V17, &delete, 0, &mut page).unwrap();
        let tuple = item_bytes(&page, 1).unwrap();
        assert_eq!((long(tuple, 4), long(tuple, 8)), (9, 13));
        assert_eq!(short(tuple, 20), infomask);
    }
}

#[test]
fn a_lock_of_neon_keeps_the_command_id() {
    let mut page = neon_page(b"tuple");
    page[..8].fill(0);
    let main = [&[9, 0, 0, 0][..], &COMMAND, &[1, 0, 0x26, 0]].concat();
    let lock = record((rmgr::NEON, 0x40), &main, vec![block(0, 3, &[])]);
    redo_in(PgMajor::V17, &lock, 0, &mut page).unwrap();
    let tuple = item_bytes(&page, 1).unwrap();
    assert_eq!((long(tuple, 4), long(tuple, 8)), (9, 13));
    assert_eq!(short(tuple, 20), 0x0002 | 0x0080 | 0x0040 | COMBO);
}

#[test]
fn an_update_of_neon_keeps_both_command_ids_and_what_the_tuples_share() {
    for (op, hot) in [(0x20, 0), (0x30, 0x4000)] {
        let mut page = neon_page(b"begin old end");
        page[..8].fill(0);
        let main = [
            &[9, 0, 0, 0, 1, 0, 0x10, 0x60][..],
            &[0x0c, 0, 0, 0],
            &[8, 0, 0, 0, 2, 0],
        ]
        .concat();
        let data = [&[6, 0, 4, 0][..], &NEON_HEADER, &[0], b"brandnew"].concat();
        let update = record((rmgr::NEON, op), &main, vec![block(0, 3, &data)]);
        redo_in(PgMajor::V17, &update, 0, &mut page).unwrap();
        let (old, new) = (item_bytes(&page, 1).unwrap(), item_bytes(&page, 2).unwrap());
        assert_eq!((long(old, 4), long(old, 8)), (9, 12));
        assert_eq!((short(old, 16), short(old, 18)), (2, 2 | 0x2000 | hot));
        assert_eq!(short(old, 20), 2);
        assert_eq!((long(new, 0), long(new, 4), long(new, 8)), (XID, 8, 13));
        assert_eq!(short(new, 20), 0x0802 | COMBO);
        assert_eq!(&new[24..], b"begin brandnew end");
    }
}

#[test]
fn unknown_operations_of_neon_and_flags_are_named() {
    let page = neon_page(b"tuple");
    let mut clean = page;
    clean[..8].fill(0);
    for op in [0x60, 0x70] {
        let unknown = record((rmgr::NEON, op), &[0; 12], vec![block(0, 3, &[])]);
        assert_eq!(fault(PgMajor::V17, &unknown, &clean), Fault::UnknownOp);
    }
    let main = [&[9, 0, 0, 0][..], &COMMAND, &[1, 0, 0x06, 0]].concat();
    fn lock(main: &[u8]) -> Record<'_> {
        record((rmgr::NEON, 0x40), main, vec![block(0, 3, &[])])
    }
    assert_eq!(
        fault(PgMajor::V15, &lock(&main), &clean),
        Fault::Unsupported
    );
    let stock = record(
        (rmgr::HEAP, 0x60),
        &[9, 0, 0, 0, 1, 0, 0x26, 0],
        vec![block(0, 3, &[])],
    );
    let flag = Fault::RecordValue("flag");
    assert_eq!(fault(PgMajor::V17, &stock, &clean), flag, "Neon's bit");
    let with_flag = [&main[..11], &[2]].concat();
    assert_eq!(fault(PgMajor::V17, &lock(&with_flag), &clean), flag);
    let trailing = [&main[..], &[0]].concat();
    assert_eq!(
        fault(PgMajor::V17, &lock(&trailing), &clean),
        Fault::RecordTooLong
    );
}

/// What each change clears of the map, where it names no page of it.
#[test]
fn clears_of_neon_are_those_of_stock_records() {
    let clears = |kind, main: &[u8], blocks| {
        let record = record(kind, main, blocks);
        vm_clears(&record).collect::<Vec<_>>()
    };
    let one = |id| vec![block(id, 3, &[])];
    for (flag, all) in [(1, vec![(TABLE, 3, 3)]), (0, vec![])] {
        assert_eq!(clears((rmgr::NEON, 0x80), &[1, 0, flag], one(0)), all);
        assert_eq!(clears((rmgr::NEON, 0x50), &[flag, 0, 1, 0], one(0)), all);
        let main = [9, 0, 0, 0, 1, 0, 0, flag, 0, 0, 0, 0];
        assert_eq!(clears((rmgr::NEON, 0x10), &main, one(0)), all);
        assert_eq!(clears((rmgr::NEON, 0x30), &main, one(0)), all);
    }
    let lock = [9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1];
    assert_eq!(
        clears((rmgr::NEON, 0x40), &lock, one(0)),
        [(TABLE, 3, vm::ALL_FROZEN)]
    );
    let update = [9, 0, 0, 0, 1, 0, 0, 3, 0, 0, 0, 0];
    let two = vec![block(0, 7, &[]), block(1, 3, &[])];
    assert_eq!(
        clears((rmgr::NEON, 0x20), &update, two),
        [(TABLE, 3, 3), (TABLE, 7, 3)]
    );
    let locked = clears((rmgr::HEAP2, 0x60), &lock, one(0));
    assert_eq!(locked, [], "the flags are in byte 7");
    let locked = clears((rmgr::HEAP2, 0x60), &[9, 0, 0, 0, 1, 0, 0, 1], one(0));
    assert_eq!(locked, [(TABLE, 3, vm::ALL_FROZEN)]);
}

/// Both pages of an update may be far apart, or on one page of the map, which is named once.
#[test]
fn clears_that_name_the_map_are_made_there_and_nowhere_else() {
    const MAIN: [u8; 14] = [9, 0, 0, 0, 1, 0, 0, 3, 0, 0, 0, 0, 2, 0];
    let far = vm::PAGES_PER_MAP_PAGE + 1;
    let update = |new, maps: Vec<Block<'static>>| {
        let blocks = [vec![block(0, new, &[]), block(1, 3, &[])], maps];
        record((rmgr::HEAP, 0x20), &MAIN, blocks.concat())
    };
    let cleared = |record: &Record, index| {
        let mut page = [0xff; BLOCK];
        page[..24].fill(0);
        page[14] = 1; // it is not new
        redo_in(PgMajor::V17, record, index, &mut page).unwrap();
        assert_eq!(lsn(&page), END);
        let ours = (24..BLOCK).filter(|at| page[*at] != 0xff);
        ours.map(|at| (at, page[at])).collect::<Vec<_>>()
    };
    let near = update(7, vec![map_block(2, 0)]);
    assert_eq!(vm_clears(&near).count(), 0);
    assert_eq!(cleared(&near, 2), [(24, 0x3f), (25, 0x3f)]);
    let apart = update(far, vec![map_block(2, 1), map_block(3, 0)]);
    assert_eq!(vm_clears(&apart).count(), 0);
    assert_eq!(cleared(&apart, 2), [(24, 0xf3)]);
    assert_eq!(cleared(&apart, 3), [(24, 0x3f)]);
    // The bits of one page were clear already.
    let half = update(far, vec![map_block(3, 0)]);
    assert_eq!(vm_clears(&half).collect::<Vec<_>>(), [(TABLE, far, 3)]);
    let stray = update(far, vec![map_block(2, 2)]);
    let page = &mut [0; BLOCK];
    let fault = redo_in(PgMajor::V17, &stray, 2, page).unwrap_err().fault;
    assert_eq!(fault, Fault::RecordValue("map page"));
}

#[test]
fn a_map_page_of_zeros_gets_a_header_before_an_lsn() {
    let lock = record(
        (rmgr::HEAP, 0x60),
        &[9, 0, 0, 0, 1, 0, 2, 1],
        vec![block(0, 3, &[]), map_block(1, 0)],
    );
    let mut page = [0; BLOCK];
    redo_in(PgMajor::V18, &lock, 1, &mut page).unwrap();
    assert!(!pg::page::is_new(&page));
    assert_eq!(lsn(&page), END);
}

/// Tuples that VACUUM FULL of 8.4 moved; no server that is supported writes such.
#[test]
fn freezing_settles_who_moved_a_tuple() {
    for (flags, xvac) in [(0x02, 2), (0x04, 0), (0x00, 13)] {
        let mut page = neon_page(b"tuple");
        page[..8].fill(0);
        let plan = [0, 0, 0, 0, 2, 0, 0, 3, flags, 0, 1, 0, 1, 0];
        let freeze = record(
            (rmgr::HEAP2, 0x30),
            &[0, 0, 0, 0, 1, 0, 0],
            vec![block(0, 3, &plan)],
        );
        redo_in(PgMajor::V16, &freeze, 0, &mut page).unwrap();
        let tuple = item_bytes(&page, 1).unwrap();
        assert_eq!((long(tuple, 8), short(tuple, 20)), (xvac, 0x0300));
        let old_plan = [0, 0, 0, 0, 1, 0, 2, 0, 0, 3, flags, 0];
        let mut page = neon_page(b"tuple");
        page[..8].fill(0);
        let freeze = record(
            (rmgr::HEAP2, 0x30),
            &[0, 0, 0, 0, 1, 0],
            vec![block(0, 3, &old_plan)],
        );
        redo_in(PgMajor::V15, &freeze, 0, &mut page).unwrap();
        let tuple = item_bytes(&page, 1).unwrap();
        assert_eq!((long(tuple, 8), short(tuple, 20)), (xvac, 0x0300));
    }
}

/// 14 keeps unused line pointers at the end, 15 drops them, and may leave none.
#[test]
fn pruning_drops_line_pointers_from_15_on() {
    for (version, kept) in [(PgMajor::V14, 1), (PgMajor::V15, 0)] {
        let mut page = neon_page(b"tuple");
        page[..8].fill(0);
        let prune = record((rmgr::HEAP2, 0x10), &[0; 8], vec![block(0, 3, &[1, 0])]);
        redo_in(version, &prune, 0, &mut page).unwrap();
        assert_eq!(crate::page_item::item_count(&page), Ok(kept));
        assert_eq!(pointer(&page, 1).is_ok(), kept == 1);
    }
}

/// A page takes the LSN where hints are logged, and keeps its own where they are not.
#[test]
fn a_page_that_turns_visible_is_stamped_where_hints_are_logged() {
    let visible = record(
        (rmgr::HEAP2, 0x40),
        &[0, 0, 0, 0, 7],
        vec![map_block(0, 0), block(1, 3, &[])],
    );
    for (logs_hints, stamp) in [(true, END), (false, Lsn(0))] {
        let mut page = neon_page(b"tuple");
        page[..8].fill(0);
        let settings = Settings {
            version: PgMajor::V16,
            logs_hints,
        };
        apply(settings, &visible, 1, &mut page).unwrap();
        assert_eq!(flags(&page) & ALL_VISIBLE, ALL_VISIBLE);
        assert_eq!(lsn(&page), stamp);
        let mut map = [0; BLOCK];
        apply(settings, &visible, 0, &mut map).unwrap();
        assert_eq!((vm::bits(&map, 3), vm::bits(&map, 2)), (3, 0));
        assert_eq!(lsn(&map), END);
    }
    let none = &mut [0; BLOCK];
    let fault = redo_in(PgMajor::V15, &visible, 0, none).unwrap_err().fault;
    assert_eq!(
        fault,
        Fault::RecordValue("flag"),
        "15 knows of no catalogues"
    );
}

/// From 18 on an update in place says what standbys must forget; all of it must be there.
#[test]
fn invalidations_of_an_update_in_place_are_counted() {
    let main = |count: u8, messages: usize| {
        let head = [
            1, 0, 0, 0, 5, 0, 0, 0, 7, 6, 0, 0, 1, 0, 0, 0, count, 0, 0, 0,
        ];
        [&head[..], &vec![0xab; 16 * messages]].concat()
    };
    let inplace = |main: &[u8]| {
        let mut page = neon_page(b"tuple");
        page[..8].fill(0);
        let record = record((rmgr::HEAP, 0x70), main, vec![block(0, 3, b"TUPLE")]);
        redo_in(PgMajor::V18, &record, 0, &mut page).map_err(|error| error.fault)?;
        Ok(item_bytes(&page, 1).unwrap()[24..].to_vec())
    };
    assert_eq!(inplace(&main(2, 2)), Ok(b"TUPLE".to_vec()));
    assert_eq!(inplace(&main(2, 3)), Err(Fault::RecordTooLong));
    assert_eq!(inplace(&main(2, 1)), Err(Fault::RecordTooShort));
    assert_eq!(inplace(&[1, 0]), Err(Fault::RecordTooShort));
}

/// The bit in the record and that of the block say the same, or PostgreSQL stops.
#[test]
fn a_page_is_made_anew_only_where_record_and_block_say_so() {
    let page = neon_page(b"tuple");
    let wrong = Fault::RecordValue("bit that makes the page anew");
    let data = [&NEON_HEADER[..], b"tuple"].concat();
    let without = record((rmgr::NEON, 0x80), &[1, 0, 0], vec![block(0, 3, &data)]);
    let mut fresh = page;
    fresh[..8].fill(0);
    assert_eq!(fault(PgMajor::V17, &without, &fresh), wrong);
    let main = [&[9, 0, 0, 0, 1, 0, 0, 0][..], &COMMAND].concat();
    let mut target = block(0, 3, &[]);
    target.flags = WILL_INIT;
    let delete = record((rmgr::NEON, 0x90), &main, vec![target]);
    assert_eq!(fault(PgMajor::V17, &delete, &fresh), wrong);
}
