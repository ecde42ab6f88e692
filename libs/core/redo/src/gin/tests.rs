//! Posting lists, in cases that no workload makes a stock server write.

use super::page::{COMPRESSED, DATA, LEAF, init_page, set_count};
use super::posting::{ListWriter, rows, take_list};
use super::recompress::recompress;
use super::*;
use crate::page_item::{bounds, put};
use crate::test_record::{block, record};
use pg::page::BLOCK;

const LISTS: usize = 32;

/// A leaf as servers before 9.4 wrote it, with these rows: block (both halves), item.
fn plain_leaf(rows: &[[u16; 3]]) -> Page {
    let mut page = [0; BLOCK];
    init_page(&mut page, DATA | LEAF).unwrap();
    for (at, word) in (LISTS..).step_by(2).zip(rows.iter().flatten()) {
        put(&mut page, at, &word.to_le_bytes()).unwrap();
    }
    set_count(&mut page, rows.len() as u16).unwrap();
    page
}

#[test]
fn a_leaf_of_plain_rows_becomes_one_of_lists() {
    for (plain, list) in [
        (&[][..], &[][..]),
        (&[[0, 7, 3]], &[0, 0, 7, 0, 3, 0, 0, 0]),
        // The same block; the next one (2,048 on, less one); and a far one.
        (
            &[[0, 7, 3], [0, 7, 5], [0, 8, 4], [1, 0, 1]],
            &[
                0, 0, 7, 0, 3, 0, 7, 0, 2, 0xff, 0x0f, 0xfd, 0xff, 0xfe, 0x3f, 0,
            ],
        ),
    ] {
        let mut page = plain_leaf(plain);
        recompress(&mut Fields::new(&[0, 0]), &mut page).unwrap();
        let end = bounds(&page).unwrap().lower;
        assert_eq!(&page[LISTS..end], list);
        assert_eq!(page::count(&page), Ok(0));
        assert_eq!(page::flags(&page), Ok(DATA | LEAF | COMPRESSED));
    }
}

#[test]
fn rows_at_any_distance_come_out_of_a_list_as_they_went_in() {
    let mut numbers = vec![1_u64];
    numbers.extend((1..43).flat_map(|bit| [(1 << bit), (1 << bit) + 1]));
    let mut list = ListWriter::begin(1);
    for row in &numbers[1..] {
        list.push(*row).unwrap();
    }
    assert!(list.push(1).is_err(), "rows ascend");
    let bytes = list.end();
    assert_eq!(take_list(&mut Fields::new(&bytes)).unwrap(), bytes);
    let mut read = rows(&bytes).unwrap();
    for row in numbers {
        assert_eq!(read.peek(), Some(row));
        read.advance().unwrap();
    }
    assert_eq!(read.peek(), None);
}

#[test]
fn a_list_that_breaks_off_or_leaves_the_numbers_of_rows_is_refused() {
    let broken: [&[u8]; 4] = [
        &[0, 0, 7, 0, 3, 0, 1, 0, 0x80, 0],
        &[0, 0, 7, 0, 3, 0, 8, 0, 1],
        &[
            0xff, 0xff, 0xff, 0xff, 3, 0, 6, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
        ],
        &[
            0, 0, 7, 0, 3, 0, 8, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1,
        ],
    ];
    for list in broken {
        assert!(rows(list).and_then(|mut rows| rows.advance()).is_err());
    }
    assert!(rows(&[0, 0, 7, 0, 0, 8, 0, 0]).is_err(), "item 2,048");
}

#[test]
fn distances_take_as_few_bytes_as_they_can() {
    for (distance, bytes) in [
        (1, &[1][..]),
        (0x7f, &[0x7f]),
        (0x80, &[0x80, 1]),
        (0x3fff, &[0xff, 0x7f]),
        (0x4000, &[0x80, 0x80, 1]),
    ] {
        let mut list = ListWriter::begin(1);
        list.push(1 + distance).unwrap();
        let list = list.end();
        assert_eq!(&list[8..8 + bytes.len()], bytes);
        assert_eq!(usize::from(list[6]), bytes.len());
    }
    assert!(ListWriter::begin(7).push(7).is_err(), "a row is there once");
}

#[test]
fn a_list_is_no_longer_than_a_page() {
    let mut list = ListWriter::begin(1);
    for row in 2..2 + (BLOCK - 8) as u64 {
        list.push(row).unwrap();
    }
    assert_eq!(list.push(u64::MAX >> 21), Err(Fault::PageFull));
    let mut full = ListWriter::begin(1);
    for row in 2..2 + (BLOCK - 8) as u64 {
        full.push(row).unwrap();
    }
    assert_eq!(full.end().len(), BLOCK);
}

fn page_of(flags: u16) -> Page {
    let mut page = [0; BLOCK];
    init_page(&mut page, flags).unwrap();
    page
}

/// What a record changes lies at places that depend on what its page is for.
#[test]
fn a_page_of_another_kind_is_refused() {
    let tuple = [0, 0, 0, 0, 1, 0, 8, 0];
    let entry = [&[1, 0, 0, 0][..], &tuple].concat();
    let all = [
        DATA,
        LEAF,
        page::DELETED,
        page::META,
        page::LIST,
        COMPRESSED,
    ];
    let tried = |change: &dyn Fn(&mut Page) -> Result<(), Fault>, flags| {
        let tried = change(&mut page_of(flags));
        tried != Err(Fault::PageHeader)
    };
    let insert = |page: &mut Page| entry::insert(&mut Fields::new(&entry), None, page);
    let no_entry = [DATA, page::DELETED, page::META, page::LIST];
    for flag in all {
        assert_eq!(tried(&insert, flag), !no_entry.contains(&flag), "{flag:#x}");
        assert_eq!(
            tried(&note_downlink, flag),
            flag != page::META && flag != page::LIST
        );
        assert_eq!(
            tried(&|page| page::set_right(page, 3), flag),
            flag != page::META
        );
        let recompress = |page: &mut Page| recompress(&mut Fields::new(&[0, 0]), page);
        assert!(!tried(&recompress, flag), "{flag:#x}");
        assert_eq!(
            tried(&|page| data::delete_page(page, 3), flag),
            flag == DATA
        );
        assert_eq!(
            tried(&|page| data::remove_child(page, 1), flag),
            flag == DATA
        );
    }
    let both = |page: &mut Page| recompress(&mut Fields::new(&[0, 0]), page);
    assert!(tried(&both, DATA | LEAF));
    assert!(!tried(&|page| data::remove_child(page, 1), DATA | LEAF));
    let mut narrow = page_of(DATA);
    narrow[16..18].copy_from_slice(&8192_u16.to_le_bytes());
    assert_eq!(page::set_right(&mut narrow, 3), Err(Fault::PageHeader));
}

#[test]
fn a_tree_is_made_of_lists_that_fit() {
    let room = 8192 - 8 - LISTS;
    for (len, made) in [
        (0, Ok(())),
        (room, Ok(())),
        (room + 1, Err(Fault::PageFull)),
        (room + 16, Err(Fault::PageFull)),
    ] {
        let main = [&(len as u32).to_le_bytes()[..], &vec![7; len]].concat();
        let mut page = [0; BLOCK];
        assert_eq!(data::create(&mut Fields::new(&main), &mut page), made);
        if made.is_ok() {
            assert_eq!(bounds(&page).unwrap().lower, LISTS + len);
        }
    }
}

#[test]
fn a_page_has_no_more_children_than_fit_and_no_child_beyond_them() {
    let max = ((8192 - 8 - LISTS) / 10) as u16;
    let child = [&[1, 0][..], &[7; 10]].concat();
    let insert = |page: &mut Page| data::insert_child(&mut Fields::new(&child), 3, page);
    for (children, inserted, removed) in [
        (1, Ok(()), Ok(())),
        (max - 1, Ok(()), Ok(())),
        (max, Err(Fault::PageFull), Ok(())),
        (max + 1, Err(Fault::PageHeader), Err(Fault::PageHeader)),
        (max + 9, Err(Fault::PageHeader), Err(Fault::PageHeader)),
        (0, Err(Fault::NoSuchItem(1)), Err(Fault::NoSuchItem(1))),
    ] {
        let mut page = page_of(DATA);
        set_count(&mut page, children).unwrap();
        assert_eq!(insert(&mut page.clone()), inserted, "{children}");
        assert_eq!(data::remove_child(&mut page, 1), removed, "{children}");
    }
    let mut page = page_of(DATA);
    set_count(&mut page, 2).unwrap();
    for (child, removed) in [(0, false), (1, true), (2, true), (3, false)] {
        assert_eq!(
            data::remove_child(&mut page.clone(), child).is_ok(),
            removed
        );
    }
}

#[test]
fn lists_fill_a_page_to_the_last_byte() {
    let room = 8192 - 8 - LISTS;
    for (len, made) in [(room, Ok(())), (room + 2, Err(Fault::PageFull))] {
        let content = (len - 8) as u16;
        let mut actions = vec![1, 0, 0, 2, 0, 0, 7, 0, 3, 0];
        actions.extend(content.to_le_bytes());
        actions.resize(actions.len() + usize::from(content), 1);
        let mut page = page_of(DATA | LEAF | COMPRESSED);
        page[12..14].copy_from_slice(&(LISTS as u16).to_le_bytes());
        assert_eq!(
            recompress(&mut Fields::new(&actions), &mut page),
            made,
            "{len}"
        );
    }
    let rows = (room / 6) as u16;
    for (rows, made) in [(rows, Ok(())), (rows + 1, Err(Fault::PageHeader))] {
        let mut page = page_of(DATA | LEAF);
        for row in 0..(room / 6) as u16 {
            let at = LISTS + 6 * usize::from(row);
            put(&mut page, at + 2, &(row + 1).to_le_bytes()).unwrap();
            put(&mut page, at + 4, &[1, 0]).unwrap();
        }
        set_count(&mut page, rows).unwrap();
        assert_eq!(
            recompress(&mut Fields::new(&[0, 0]), &mut page),
            made,
            "{rows}"
        );
    }
}

#[test]
fn pages_that_come_as_images_are_not_made_without_them() {
    for (op, id, fault) in [
        (0x30, 0, Fault::Image),
        (0x30, 1, Fault::Image),
        (0x30, 2, Fault::Image),
        (0x30, 4, Fault::Unsupported),
        (0x40, 0, Fault::Image),
        (0x40, 1, Fault::Unsupported),
        (0x70, 1, Fault::Unsupported),
    ] {
        let kind = (pg::wal::rmgr::GIN, op);
        let record = record(kind, &[0; 28], vec![block(id, 3, &[])]);
        let tried = redo(&record, &record.blocks[0], &mut page_of(0));
        assert_eq!(tried, Err(fault), "{op:#x} {id}");
    }
}

#[test]
fn the_metapage_is_made_anew() {
    let mut page = [0xff; BLOCK];
    pending::meta(&[7; pending::META_BYTES], &mut page).unwrap();
    let mut expected = page_of(page::META);
    expected[24..80].fill(7);
    expected[12..14].copy_from_slice(&80_u16.to_le_bytes());
    assert_eq!(page[..], expected[..]);
}

#[test]
fn only_a_page_of_the_list_is_its_end() {
    let main = [3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];
    for (flags, changed) in [
        (page::LIST, true),
        (0, false),
        (DATA, false),
        (page::LIST | page::META, false),
    ] {
        let mut data = Fields::new(&[]);
        let tried = pending::change_tail(&mut Fields::new(&main), &mut data, &mut page_of(flags));
        assert_eq!(tried.is_ok(), changed, "{flags:#x}");
    }
}
