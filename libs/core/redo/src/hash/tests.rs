//! What no workload makes a stock server write.

use ids::Lsn;
use pg::page::{BLOCK, lsn};

use super::*;
use crate::page_item::u32_at;
use crate::test_record::{self, block};

/// A record of blocks with numbers and data, whose ids count up.
fn record<'a>(op: u8, main_data: &'a [u8], blocks: &[(u32, &'a [u8])]) -> Record<'a> {
    let block = |(id, (blkno, data)): (u8, &(u32, &'a [u8]))| block(id, *blkno, data);
    let blocks = (0..).zip(blocks).map(block).collect();
    test_record::record((pg::wal::rmgr::HASH, op), main_data, blocks)
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

/// What a record changes lies at places that depend on what its page is for.
#[test]
fn a_page_of_another_kind_is_refused() {
    let mut page = [0; BLOCK];
    page::init_page(&mut page, 5, 1, page::OVERFLOW).unwrap();
    assert!(page::set_next(&mut page, 3).is_ok());
    assert!(page::expect(&page, page::OVERFLOW).is_ok());
    assert_eq!(page::expect(&page, page::META), Err(Fault::PageHeader));
    assert_eq!(bitmap::put(3, &mut page, true), Err(Fault::PageHeader));
    let mut narrow = page;
    narrow[16..18].copy_from_slice(&8192_u16.to_le_bytes());
    assert_eq!(page::set_next(&mut narrow, 3), Err(Fault::PageHeader));
    let mut strange = page;
    strange[8190] = 0x81;
    assert_eq!(page::set_next(&mut strange, 3), Err(Fault::PageHeader));
}

#[test]
fn a_bitmap_fits_on_its_page() {
    for (len, made) in [
        (4096, Ok(())),
        (8152, Ok(())),
        (8153, Err(Fault::RecordValue("bitmap length"))),
        (9000, Err(Fault::RecordValue("bitmap length"))),
    ] {
        assert_eq!(bitmap::init(len, &mut [0; BLOCK]), made, "{len}");
    }
}

/// Pages of half a split come as images, or the record is damaged.
#[test]
fn pages_that_come_as_images_are_not_made_without_them() {
    let mut page = [0; BLOCK];
    let moved = record(0x50, &[], &[(0, &[])]);
    assert_eq!(redo_block(&moved, 0, &mut page), Err(Fault::Image));
}

#[test]
fn each_change_of_the_metapage_and_of_the_others_is_held_to_the_right_page() {
    let mut meta = [0; BLOCK];
    let begin = [10_000.0_f64.to_le_bytes(), [0; 8]].concat();
    redo_block(&record(0x00, &begin[..14], &[(0, &[])]), 0, &mut meta).unwrap();
    let mut other = [0; BLOCK];
    page::init_page(&mut other, 5, 1, page::OVERFLOW).unwrap();
    let none: (u32, &[u8]) = (0, &[]);
    let free: (u32, &[u8]) = (0, &[0, 0, 0, 0]);
    let overflow = record(0x30, &[0, 16, 0], &[free, none, none, none, free]);
    let split = record(0x40, &[3, 0, 0, 0, 0, 0, 0, 0, 0], &[none; 3]);
    let squeeze = record(
        0x80,
        &[4, 0, 0, 0, 6, 0, 0, 0, 0, 0, 1, 1],
        &[none, none, none, none, none, none, free],
    );
    let count = record(0xB0, &[0; 8], &[none]);
    let added = record(0x10, &[0, 16], &[none; 2]);
    let insert = record(0x20, &[1, 0], &[none; 2]);
    for (record, id, is_meta) in [
        (&added, 1, true),
        (&insert, 1, true),
        (&overflow, 1, false),
        (&overflow, 4, true),
        (&split, 0, false),
        (&split, 2, true),
        (&squeeze, 2, false),
        (&squeeze, 3, false),
        (&squeeze, 4, false),
        (&squeeze, 6, true),
        (&count, 0, true),
    ] {
        let (op, wrong) = (record.info, if is_meta { &other } else { &[0; BLOCK] });
        let tried = redo_block(record, id, &mut wrong.clone());
        assert_eq!(tried, Err(Fault::PageHeader), "{op:#x} {id}");
        let right = if is_meta { &meta } else { &other };
        let tried = redo_block(record, id, &mut right.clone());
        assert_ne!(tried, Err(Fault::PageHeader), "{op:#x} {id}");
    }
}

/// The masks of the comparison hide whether a page has dead tuples.
#[test]
fn a_page_is_free_of_dead_tuples_where_the_record_says_so() {
    for (clears, left) in [(1, 0), (0, page::HAS_DEAD_TUPLES)] {
        let mut page = [0; BLOCK];
        let flags = page::OVERFLOW | page::HAS_DEAD_TUPLES;
        page::init_page(&mut page, 5, 1, flags).unwrap();
        add_item(&mut page, &[&[0; 16]], 1, Place::Insert).unwrap();
        let main = [clears, 1];
        let delete = record(0x90, &main, &[(0, &[]), (0, &[1, 0])]);
        redo_block(&delete, 1, &mut page).unwrap();
        assert_eq!(
            crate::page_item::u16_at(&page, 8188),
            Ok(page::OVERFLOW | left)
        );
    }
}

/// What was one number until 15 is a smaller one and a flag since.
#[test]
fn rows_of_catalogues_are_known_since_16() {
    let main = [0, 0, 0, 0, 1, 0, 1, 0, 1, 0];
    for (version, count) in [(PgMajor::V15, None), (PgMajor::V16, Some(1))] {
        let read = VacuumOnePage::read(version, &mut Fields::new(&main));
        assert_eq!(read.is_ok(), count.is_some(), "{version}");
    }
}
