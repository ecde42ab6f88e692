//! What every page of a hash index has at its end (`hash.h`).

use crate::fault::Fault;
use crate::page_item::{Page, bounds, init, put, u16_at};

/// A page that belongs to no bucket now.
const UNUSED: u16 = 0;
pub(super) const OVERFLOW: u16 = 0x01;
pub(super) const BITMAP: u16 = 0x04;
pub(super) const META: u16 = 0x08;
pub(super) const NEEDS_SPLIT_CLEANUP: u16 = 0x40;
pub(super) const HAS_DEAD_TUPLES: u16 = 0x80;
/// The bits of the flags that say what a page is.
const KIND: u16 = 0x0f;

/// No block and no bucket.
pub(super) const NONE: u32 = u32::MAX;

const SPECIAL_BYTES: usize = 16;
/// Where the special space begins.
pub(super) const SPECIAL: usize = pg::page::BLOCK - SPECIAL_BYTES;
const PREV: usize = SPECIAL;
const NEXT: usize = SPECIAL + 4;
const BUCKET: usize = SPECIAL + 8;
const FLAGS: usize = SPECIAL + 12;
const PAGE_ID: usize = SPECIAL + 14;
/// What stands at [`PAGE_ID`] in every page.
const HASH_PAGE: u16 = 0xff80;

/// Makes an empty page.
pub(super) fn init_page(page: &mut Page, prev: u32, bucket: u32, flags: u16) -> Result<(), Fault> {
    init(page, SPECIAL_BYTES);
    put(page, PREV, &prev.to_le_bytes())?;
    put(page, NEXT, &NONE.to_le_bytes())?;
    put(page, BUCKET, &bucket.to_le_bytes())?;
    put(page, FLAGS, &flags.to_le_bytes())?;
    put(page, PAGE_ID, &HASH_PAGE.to_le_bytes())
}

/// Makes a page that a bucket has given back.
pub(super) fn init_unused(page: &mut Page) -> Result<(), Fault> {
    expect_any(page)?;
    init_page(page, NONE, NONE, UNUSED)
}

pub(super) fn set_prev(page: &mut Page, prev: u32) -> Result<(), Fault> {
    expect_any(page)?;
    put(page, PREV, &prev.to_le_bytes())
}

pub(super) fn set_next(page: &mut Page, next: u32) -> Result<(), Fault> {
    expect_any(page)?;
    put(page, NEXT, &next.to_le_bytes())
}

pub(super) fn set_flags(page: &mut Page, flags: u16) -> Result<(), Fault> {
    expect_any(page)?;
    put(page, FLAGS, &flags.to_le_bytes())
}

pub(super) fn clear_flags(page: &mut Page, flags: u16) -> Result<(), Fault> {
    let kept = u16_at(page, FLAGS)? & !flags;
    set_flags(page, kept)
}

/// Holds the page to be one of a hash index.
pub(super) fn expect_any(page: &Page) -> Result<(), Fault> {
    if bounds(page)?.special == SPECIAL && u16_at(page, PAGE_ID)? == HASH_PAGE {
        Ok(())
    } else {
        Err(Fault::PageHeader)
    }
}

/// Holds the page to be of a kind: its other fields lie where that kind has them.
pub(super) fn expect(page: &Page, kind: u16) -> Result<(), Fault> {
    expect_any(page)?;
    if u16_at(page, FLAGS)? & KIND == kind {
        Ok(())
    } else {
        Err(Fault::PageHeader)
    }
}
