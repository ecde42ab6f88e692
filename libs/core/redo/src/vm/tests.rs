//! Bits of the map that no record's block holds to a server's page.

use super::*;

fn map(bits: u8) -> Page {
    let mut page = [bits; BLOCK];
    init(&mut page, 0);
    page[HEADER_BYTES..].fill(bits);
    page
}

#[test]
fn a_clear_says_whether_a_bit_of_its_page_was_set() {
    for (stored, cleared, changed, left) in [
        (0b11_11_11_11, ALL, true, 0b11_11_00_11),
        (0b11_11_11_11, ALL_FROZEN, true, 0b11_11_01_11),
        (0b11_11_01_11, ALL_FROZEN, false, 0b11_11_01_11),
        (0b11_11_00_11, ALL, false, 0b11_11_00_11),
        (0b00_00_01_00, ALL_VISIBLE, true, 0),
    ] {
        let mut page = map(stored);
        assert_eq!(clear(&mut page, 5, cleared), changed, "{stored:#b}");
        assert_eq!((page[24], page[25], page[26]), (stored, left, stored));
    }
}

#[test]
fn a_set_adds_bits_and_says_whether_they_were_others() {
    for (stored, added, changed, left) in [
        (0, ALL_VISIBLE, true, 0b01_00),
        (0b01_00, ALL_VISIBLE, false, 0b01_00),
        (0b01_00, ALL, true, 0b11_00),
        (0b11_00, ALL, false, 0b11_00),
        (0b11_00, ALL_VISIBLE, true, 0b11_00),
    ] {
        let mut page = map(stored);
        assert_eq!(set(&mut page, 5, added), changed);
        assert_eq!((page[24], page[25], page[26]), (stored, left, stored));
    }
}

#[test]
fn a_truncation_keeps_the_bits_of_the_pages_before() {
    for (blocks, at, kept) in [(4, 25, 0), (5, 25, 0b11), (7, 25, 0b11_11_11), (8, 26, 0)] {
        let mut page = map(0xff);
        truncate(&mut page, PAGES_PER_MAP_PAGE + blocks);
        assert!(page[HEADER_BYTES..at].iter().all(|byte| *byte == 0xff));
        assert_eq!(page[at], kept, "{blocks}");
        assert!(page[at + 1..].iter().all(|byte| *byte == 0));
    }
    let mut new = [0; BLOCK];
    truncate(&mut new, 5);
    assert!(!is_new(&new));
    let mut last = map(0xff);
    truncate(&mut last, PAGES_PER_MAP_PAGE - 1);
    assert_eq!((last[BLOCK - 2], last[BLOCK - 1]), (0xff, 0x3f));
}

#[test]
fn a_truncated_map_keeps_the_page_of_the_last_table_page() {
    let full = PAGES_PER_MAP_PAGE;
    for (blocks, pages) in [(0, 0), (1, 1), (full, 1), (full + 1, 2), (2 * full, 2)] {
        assert_eq!(truncated_len(blocks), pages);
    }
}
