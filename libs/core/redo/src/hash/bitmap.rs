//! Pages that say which overflow pages are in use, a bit each.

use super::page::{BITMAP, NONE, SPECIAL, expect, init_page};
use crate::fault::Fault;
use crate::page_item::{HEADER_BYTES, Page, bounds, set_lower};

/// Makes a bitmap of `len` bytes, all of whose pages are in use: none of them exists yet.
pub(super) fn init(len: u16, page: &mut Page) -> Result<(), Fault> {
    init_page(page, NONE, NONE, BITMAP)?;
    let end = HEADER_BYTES + usize::from(len);
    if end > SPECIAL {
        return Err(Fault::RecordValue("bitmap length"));
    }
    page[HEADER_BYTES..end].fill(0xff);
    set_lower(page, end);
    Ok(())
}

/// Sets or clears a bit.
pub(super) fn put(bit: u32, page: &mut Page, in_use: bool) -> Result<(), Fault> {
    expect(page, BITMAP)?;
    let end = bounds(page)?.lower;
    let byte = page[HEADER_BYTES..end]
        .get_mut(bit as usize / 8)
        .ok_or(Fault::RecordValue("bit of a bitmap"))?;
    let mask = 1 << (bit % 8);
    *byte = if in_use { *byte | mask } else { *byte & !mask };
    Ok(())
}
