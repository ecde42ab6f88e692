//! Pages of 8 KiB and the header that most of them have (`bufpage.h`).
//!
//! Field accessors take the whole page, so every offset is inside by type.

use ids::Lsn;

/// The length of a page, in bytes.
pub const BLOCK: usize = 8192;
/// The length of a page header without line pointers.
pub const HEADER_BYTES: usize = 24;
/// The layout version that stands in the low byte of `pd_pagesize_version`.
pub const LAYOUT_VERSION: u16 = 4;
/// `pd_flags`: there may be unused line pointers.
pub const HAS_FREE_LINES: u16 = 0x0001;
/// `pd_flags`: no room for a new tuple was found.
pub const PAGE_FULL: u16 = 0x0002;
/// `pd_flags`: every tuple is visible to everyone.
pub const ALL_VISIBLE: u16 = 0x0004;

/// The bytes of one page.
pub type Page = [u8; BLOCK];

/// A page of zeros on the heap.
#[must_use]
pub fn zeroed() -> Box<Page> {
    Box::new([0; BLOCK])
}

const fn word(page: &Page, at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

const fn set_word(page: &mut Page, at: usize, value: u16) {
    let bytes = value.to_le_bytes();
    page[at] = bytes[0];
    page[at + 1] = bytes[1];
}

const fn long(page: &Page, at: usize) -> u32 {
    u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]])
}

const fn set_long(page: &mut Page, at: usize, value: u32) {
    let bytes = value.to_le_bytes();
    page[at] = bytes[0];
    page[at + 1] = bytes[1];
    page[at + 2] = bytes[2];
    page[at + 3] = bytes[3];
}

/// `pd_lsn`: the end of the last record that changed the page.
#[must_use]
pub const fn lsn(page: &Page) -> Lsn {
    Lsn((long(page, 0) as u64) << 32 | long(page, 4) as u64)
}

/// Sets `pd_lsn`.
pub const fn set_lsn(page: &mut Page, lsn: Lsn) {
    set_long(page, 0, (lsn.0 >> 32) as u32);
    set_long(page, 4, lsn.0 as u32);
}

/// `pd_checksum`.
#[must_use]
pub const fn checksum(page: &Page) -> u16 {
    word(page, 8)
}

/// Sets `pd_checksum`.
pub const fn set_checksum(page: &mut Page, value: u16) {
    set_word(page, 8, value);
}

/// `pd_flags`.
#[must_use]
pub const fn flags(page: &Page) -> u16 {
    word(page, 10)
}

/// Sets `pd_flags`.
pub const fn set_flags(page: &mut Page, value: u16) {
    set_word(page, 10, value);
}

/// `pd_lower`: the end of the line pointers.
#[must_use]
pub const fn lower(page: &Page) -> u16 {
    word(page, 12)
}

/// Sets `pd_lower`.
pub const fn set_lower(page: &mut Page, value: u16) {
    set_word(page, 12, value);
}

/// `pd_upper`: the beginning of the tuples; zero where the page was never initialised.
#[must_use]
pub const fn upper(page: &Page) -> u16 {
    word(page, 14)
}

/// Sets `pd_upper`.
pub const fn set_upper(page: &mut Page, value: u16) {
    set_word(page, 14, value);
}

/// `pd_special`: the beginning of the access method's own space.
#[must_use]
pub const fn special(page: &Page) -> u16 {
    word(page, 16)
}

/// Sets `pd_special`.
pub const fn set_special(page: &mut Page, value: u16) {
    set_word(page, 16, value);
}

/// `pd_pagesize_version`.
#[must_use]
pub const fn size_version(page: &Page) -> u16 {
    word(page, 18)
}

/// Sets `pd_pagesize_version`.
pub const fn set_size_version(page: &mut Page, value: u16) {
    set_word(page, 18, value);
}

/// `pd_prune_xid`: the oldest transaction that may have left something to prune.
#[must_use]
pub const fn prune_xid(page: &Page) -> u32 {
    long(page, 20)
}

/// Sets `pd_prune_xid`.
pub const fn set_prune_xid(page: &mut Page, value: u32) {
    set_long(page, 20, value);
}

/// Whether the page was never initialised.
#[must_use]
pub const fn is_new(page: &Page) -> bool {
    upper(page) == 0
}

/// Makes an empty page with `special_bytes` (rounded up to 8) at its end.
///
/// Answers false, leaving the page alone, where so much special space does not fit.
#[must_use]
pub fn init(page: &mut Page, special_bytes: u16) -> bool {
    let special_bytes = usize::from(special_bytes).next_multiple_of(8);
    let Some(special) = BLOCK
        .checked_sub(special_bytes)
        .filter(|&at| at >= HEADER_BYTES)
    else {
        return false;
    };
    page.fill(0);
    set_lower(page, HEADER_BYTES as u16);
    set_upper(page, special as u16);
    set_special(page, special as u16);
    set_size_version(page, BLOCK as u16 | LAYOUT_VERSION);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_stands_high_half_first() {
        let mut page = zeroed();
        set_lsn(&mut page, Lsn(0x0102_0304_0506_0708));
        assert_eq!(page[..8], [4, 3, 2, 1, 8, 7, 6, 5]);
        assert_eq!(lsn(&page), Lsn(0x0102_0304_0506_0708));
        assert!(is_new(&page), "a page with nothing but an LSN is new");
    }

    #[test]
    fn an_initialised_page_is_not_new_and_keeps_its_special_space() {
        let mut page = zeroed();
        assert!(init(&mut page, 5));
        assert_eq!(
            (lower(&page), upper(&page), special(&page)),
            (24, 8184, 8184)
        );
        assert_eq!(size_version(&page), 0x2004);
        assert!(!is_new(&page));
        assert!(!init(&mut page, 8190));
    }
}
