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

/// What `pd_checksum` of an initialised page must be (`checksum_impl.h`): a page that moved to
/// another block fails it too. `block` counts from the beginning of the fork, not of its file.
#[must_use]
pub fn expected_checksum(page: &Page, block: u32) -> u16 {
    let mut sums = checksum::SEEDS;
    for (row, bytes) in page.chunks_exact(4 * checksum::LANES).enumerate() {
        for (lane, (sum, word)) in sums.iter_mut().zip(bytes.chunks_exact(4)).enumerate() {
            let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            // The checksum itself counts as zero; flags share its word.
            let is_own = row == 0 && lane == 2;
            *sum = checksum::mix(*sum, if is_own { word & 0xffff_0000 } else { word });
        }
    }
    let folded = sums
        .iter()
        .fold(0, |all, sum| all ^ checksum::mix(checksum::mix(*sum, 0), 0));
    ((folded ^ block) % 65_535 + 1) as u16
}

/// Sets `pd_checksum`, as a server with checksums does before it writes a page
/// (`PageSetChecksumCopy`): whoever serves pages of such a cluster calls it last, since redo
/// leaves the field as it finds it. A page that was never initialised has none.
pub fn stamp_checksum(page: &mut Page, block: u32) {
    if !is_new(page) {
        let value = expected_checksum(page, block);
        set_checksum(page, value);
    }
}

/// FNV-1a in 32 lanes at once, with more mixing of the high bits.
mod checksum {
    pub(super) const LANES: usize = 32;
    const PRIME: u32 = 16_777_619;
    pub(super) const SEEDS: [u32; LANES] = [
        0x5B1F_36E9,
        0xB852_5960,
        0x02AB_50AA,
        0x1DE6_6D2A,
        0x79FF_467A,
        0x9BB9_F8A3,
        0x217E_7CD2,
        0x83E1_3D2C,
        0xF8D4_474F,
        0xE39E_B970,
        0x42C6_AE16,
        0x9932_16FA,
        0x7B09_3B5D,
        0x98DA_FF3C,
        0xF718_902A,
        0x0B1C_9CDB,
        0xE58F_764B,
        0x1876_36BC,
        0x5D7B_3BB1,
        0xE73D_E7DE,
        0x92BE_C979,
        0xCCA6_C0B2,
        0x304A_0979,
        0x85AA_43D4,
        0x7831_25BB,
        0x6CA8_EAA2,
        0xE407_EAC6,
        0x4B5C_FC3E,
        0x9FBF_8C76,
        0x15CA_20BE,
        0xF2CA_9FD3,
        0x959B_D756,
    ];

    pub(super) const fn mix(sum: u32, word: u32) -> u32 {
        let mixed = sum ^ word;
        mixed.wrapping_mul(PRIME) ^ (mixed >> 17)
    }
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

    #[test]
    fn a_checksum_is_the_one_that_a_server_computes() {
        // `page_checksum` of `pageinspect` says these of the same page.
        let mut page = zeroed();
        for (at, byte) in page.iter_mut().enumerate() {
            *byte = ((at * 7 + at / 256) % 251) as u8;
        }
        let expected = [
            (0, 1648),
            (1, 1649),
            (131_072, 1650),
            (u32::MAX - 1, 63_888),
        ];
        for (block, checksum) in expected {
            assert_eq!(expected_checksum(&page, block), checksum, "block {block}");
        }
        stamp_checksum(&mut page, 1);
        assert_eq!(expected_checksum(&page, 1), checksum(&page));
        let mut new = zeroed();
        stamp_checksum(&mut new, 1);
        assert_eq!(new, zeroed(), "a page that was never initialised has none");
    }
}
