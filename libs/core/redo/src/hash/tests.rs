//! What no workload makes a stock server write.

use ids::{Fork, Lsn, RelTag};
use pg::page::{BLOCK, lsn};

use super::*;
use crate::page_item::u32_at;

/// A record of blocks with numbers and data, whose ids count up.
fn record<'a>(op: u8, main_data: &'a [u8], blocks: &[(u32, &'a [u8])]) -> Record<'a> {
    let rel = RelTag {
        spc: 1663,
        db: 5,
        rel: 9,
        fork: Fork::Main,
    };
    let block = |(id, (blkno, data)): (u8, &(u32, &'a [u8]))| Block {
        id,
        rel,
        blkno: *blkno,
        flags: 0,
        image: None,
        data,
    };
    Record {
        start: Lsn(8),
        end: Lsn(64),
        prev: Lsn(0),
        xid: 0,
        info: op,
        rmid: pg::wal::rmgr::HASH,
        origin: None,
        toplevel_xid: None,
        main_data,
        blocks: (0..).zip(blocks).map(block).collect(),
    }
}

fn redo_block(record: &Record, id: usize, page: &mut Page) -> Result<(), Fault> {
    redo(PgMajor::V15, record, &record.blocks[id], page)
}

/// A server needs more than 32,768 overflow pages before it makes a second bitmap.
#[test]
fn an_overflow_page_may_bring_a_bitmap_with_it() {
    let mut begin = [10_000.0_f64.to_le_bytes(), [0; 8]].concat();
    begin[12] = 100;
    let (mut meta, mut map) = ([0; BLOCK], [0; BLOCK]);
    redo_block(&record(0x00, &begin[..14], &[(0, &[])]), 0, &mut meta).unwrap();
    let first = record(0x10, &[0, 16], &[(129, &[]), (0, &[])]);
    redo_block(&first, 1, &mut meta).unwrap();
    let free: &[u8] = &[0, 128, 0, 0];
    let blocks = [
        (40_000, free),
        (7, &[]),
        (129, free),
        (40_001, &[]),
        (0, free),
    ];
    let grows = record(0x30, &[0, 16, 0], &blocks);
    redo_block(&grows, 4, &mut meta).unwrap();
    redo_block(&grows, 3, &mut map).unwrap();
    let long = |at| u32_at(&meta, at).unwrap();
    let (first_free, bitmaps, spares, blocks) = (64, 68, 76, 468);
    assert_eq!((long(first_free), long(bitmaps)), (32_768, 2));
    assert_eq!((long(blocks), long(blocks + 4)), (129, 40_001));
    assert_eq!(long(spares + 4 * 7), 1 + 2, "the page, and the bitmap");
    assert!(map[24..24 + 4096].iter().all(|byte| *byte == 0xff));
    assert_eq!((map[24 + 4096], map[8188]), (0, 4));
}

/// The page that a bucket gives back is always its last one.
#[test]
fn a_page_after_one_that_goes_is_linked_to_the_one_before() {
    let mut page = [0; BLOCK];
    page::init_page(&mut page, 5, 1, page::OVERFLOW).unwrap();
    let main = [4, 0, 0, 0, 6, 0, 0, 0, 0, 0, 1, 1];
    let none: (u32, &[u8]) = (0, &[]);
    let squeeze = record(0x80, &main, &[none; 5]);
    redo_block(&squeeze, 4, &mut page).unwrap();
    assert_eq!((u32_at(&page, 8176), lsn(&page)), (Ok(4), Lsn(64)));
}

/// The LSN is all that it changes, and masks hide it.
#[test]
fn since_17_a_page_that_nothing_moves_to_is_left_alone() {
    let (first, before) = (1, 0);
    let main = [4, 0, 0, 0, 6, 0, 0, 0, 0, 0, first, before];
    let squeeze = record(0x80, &main, &[(0, &[]), (0, &[])]);
    for (version, expected) in [
        (PgMajor::V14, 64),
        (PgMajor::V16, 64),
        (PgMajor::V17, 0),
        (PgMajor::V18, 0),
    ] {
        let mut page = [0; BLOCK];
        page::init_page(&mut page, 5, 1, page::OVERFLOW).unwrap();
        redo(version, &squeeze, &squeeze.blocks[1], &mut page).unwrap();
        assert_eq!(lsn(&page), Lsn(expected), "{version}");
    }
}

#[test]
fn a_record_of_another_length_is_refused() {
    let cut = record(0x80, &[0; 11], &[(0, &[]), (0, &[])]);
    let long = record(0x80, &[0; 13], &[(0, &[]), (0, &[])]);
    let odd = record(0x90, &[0; 2], &[(0, &[]), (0, &[1, 0, 2])]);
    for (record, fault) in [
        (cut, Fault::RecordTooShort),
        (long, Fault::RecordTooLong),
        (odd, Fault::RecordTooLong),
    ] {
        let mut page = [0; BLOCK];
        page::init_page(&mut page, 5, 1, page::OVERFLOW).unwrap();
        add_item(&mut page, &[&[0; 16]], 1, Place::Insert).unwrap();
        let tried = redo(PgMajor::V15, &record, &record.blocks[1], &mut page);
        assert_eq!(tried, Err(fault));
    }
}
