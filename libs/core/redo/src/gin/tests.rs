//! Posting lists, in cases that no workload makes a stock server write.

use super::page::{COMPRESSED, DATA, LEAF, init_page, set_count};
use super::posting::{ListWriter, rows, take_list};
use super::recompress::recompress;
use super::*;
use crate::page_item::{bounds, put};
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
