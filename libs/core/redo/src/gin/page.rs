//! What every page of a GIN index has at its end (`ginblock.h`).

use crate::fault::Fault;
use crate::fields::Fields;
use crate::page_item::{Page, bounds, init, put, u16_at};

/// A page of a posting tree; those of entries lack it.
pub(super) const DATA: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const DELETED: u16 = 0x04;
pub(super) const META: u16 = 0x08;
/// A page of the list of pending entries.
pub(super) const LIST: u16 = 0x10;
/// The entries of its last row all are on this page of the list.
pub(super) const LIST_FULL_ROW: u16 = 0x20;
pub(super) const INCOMPLETE_SPLIT: u16 = 0x40;
/// Rows lie in posting lists, which they did not before 9.4.
pub(super) const COMPRESSED: u16 = 0x80;

/// No block.
pub(super) const NONE: u32 = u32::MAX;

const SPECIAL_BYTES: usize = 8;
/// Where the special space begins.
pub(super) const SPECIAL: usize = pg::page::BLOCK - SPECIAL_BYTES;
const RIGHT: usize = SPECIAL;
const COUNT: usize = SPECIAL + 4;
const FLAGS: usize = SPECIAL + 6;

/// Makes an empty page.
pub(super) fn init_page(page: &mut Page, flags: u16) -> Result<(), Fault> {
    init(page, SPECIAL_BYTES);
    put(page, RIGHT, &NONE.to_le_bytes())?;
    put(page, FLAGS, &flags.to_le_bytes())
}

pub(super) fn set_right(page: &mut Page, right: u32) -> Result<(), Fault> {
    expect(page, 0, META)?;
    put(page, RIGHT, &right.to_le_bytes())
}

/// What a page counts by itself: children of a posting tree's page, or rows of a list's.
pub(super) fn count(page: &Page) -> Result<u16, Fault> {
    u16_at(page, COUNT)
}

pub(super) fn set_count(page: &mut Page, count: u16) -> Result<(), Fault> {
    put(page, COUNT, &count.to_le_bytes())
}

pub(super) fn flags(page: &Page) -> Result<u16, Fault> {
    u16_at(page, FLAGS)
}

pub(super) fn set_flags(page: &mut Page, added: u16) -> Result<(), Fault> {
    let flags = flags(page)? | added;
    put(page, FLAGS, &flags.to_le_bytes())
}

pub(super) fn clear_flags(page: &mut Page, cleared: u16) -> Result<(), Fault> {
    expect(page, 0, META | LIST)?;
    let flags = flags(page)? & !cleared;
    put(page, FLAGS, &flags.to_le_bytes())
}

/// Holds the page to be of an index, and its flags to be these and not those.
pub(super) fn expect(page: &Page, these: u16, not_those: u16) -> Result<(), Fault> {
    let is_right = flags(page)? & (these | not_those) == these;
    if is_right && bounds(page)?.special == SPECIAL {
        Ok(())
    } else {
        Err(Fault::PageHeader)
    }
}

/// A block number as items have it: the high half first.
pub(super) fn take_block(fields: &mut Fields<'_>) -> Result<u32, Fault> {
    let (high, low) = (fields.u16()?, fields.u16()?);
    Ok(u32::from(high) << 16 | u32::from(low))
}
