//! The header of a page, its line pointers, and the items they point to.
//!
//! The layout is `bufpage.h` of PostgreSQL, and the same in 14 to 18: a header of 24 bytes, line
//! pointers growing up from it to `lower`, items growing down from `special` to `upper`.
//! Nothing here trusts the page: a record may meet a page that another (hostile) record made.

#[cfg(test)]
mod tests;

use pg::page::BLOCK;

use crate::fault::Fault;

/// The bytes of one page.
pub type Page = [u8; BLOCK];

/// The size of the page header.
pub(crate) const HEADER_BYTES: usize = 24;
const POINTER_BYTES: usize = 4;
const PAGE_VERSION: u16 = BLOCK as u16 | 4;

/// `PD_HAS_FREE_LINES`: there may be unused line pointers.
pub(crate) const HAS_FREE_LINES: u16 = 1;
/// `PD_ALL_VISIBLE`: every tuple is visible to everyone.
pub(crate) const ALL_VISIBLE: u16 = 4;

/// Rounds up to the alignment that PostgreSQL keeps on a page.
pub(crate) const fn align8(len: usize) -> usize {
    (len + 7) & !7
}

/// What a line pointer says about its item (`lp_flags`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum State {
    Unused = 0,
    Normal = 1,
    Redirect = 2,
    Dead = 3,
}

/// A line pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub(crate) state: State,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Pointer {
    pub(crate) const UNUSED: Self = Self {
        state: State::Unused,
        start: 0,
        len: 0,
    };
    pub(crate) const DEAD: Self = Self {
        state: State::Dead,
        start: 0,
        len: 0,
    };

    pub(crate) const fn redirect(to: u16) -> Self {
        Self {
            state: State::Redirect,
            start: to as usize,
            len: 0,
        }
    }

    pub(crate) const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self::from_raw(u32::from_le_bytes(bytes))
    }

    pub(crate) const fn to_bytes(self) -> [u8; 4] {
        self.to_raw().to_le_bytes()
    }

    pub(crate) const fn from_raw(raw: u32) -> Self {
        let state = match (raw >> 15) & 3 {
            0 => State::Unused,
            1 => State::Normal,
            2 => State::Redirect,
            _ => State::Dead,
        };
        Self {
            state,
            start: (raw & 0x7fff) as usize,
            len: (raw >> 17) as usize,
        }
    }

    const fn to_raw(self) -> u32 {
        (self.start as u32 & 0x7fff) | ((self.state as u32) << 15) | ((self.len as u32) << 17)
    }
}

/// The bounds of a page's parts; `lower <= upper <= special` holds.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) lower: usize,
    pub(crate) upper: usize,
    pub(crate) special: usize,
}

pub(crate) fn bounds(page: &Page) -> Result<Bounds, Fault> {
    let lower = usize::from(u16::from_le_bytes([page[12], page[13]]));
    let upper = usize::from(u16::from_le_bytes([page[14], page[15]]));
    let special = usize::from(u16::from_le_bytes([page[16], page[17]]));
    if lower < HEADER_BYTES || lower > upper || upper > special || special > BLOCK {
        return Err(Fault::PageHeader);
    }
    Ok(Bounds {
        lower,
        upper,
        special,
    })
}

pub(crate) fn set_lower(page: &mut Page, lower: usize) {
    page[12..14].copy_from_slice(&(lower as u16).to_le_bytes());
}

pub(crate) fn set_upper(page: &mut Page, upper: usize) {
    page[14..16].copy_from_slice(&(upper as u16).to_le_bytes());
}

/// Makes an empty page with `special` bytes at its end.
pub(crate) fn init(page: &mut Page, special: usize) {
    let special = BLOCK - align8(special);
    page.fill(0);
    set_lower(page, HEADER_BYTES);
    set_upper(page, special);
    page[16..18].copy_from_slice(&(special as u16).to_le_bytes());
    page[18..20].copy_from_slice(&PAGE_VERSION.to_le_bytes());
}

pub(crate) fn flags(page: &Page) -> u16 {
    u16::from_le_bytes([page[10], page[11]])
}

pub(crate) fn set_flag(page: &mut Page, flag: u16, on: bool) {
    let flags = if on {
        flags(page) | flag
    } else {
        flags(page) & !flag
    };
    page[10..12].copy_from_slice(&flags.to_le_bytes());
}

/// Notes that `xid` left something to prune, unless an older one did before.
pub(crate) fn set_prunable(page: &mut Page, xid: u32) {
    let noted = u32::from_le_bytes([page[20], page[21], page[22], page[23]]);
    if noted == 0 || precedes(xid, noted) {
        page[20..24].copy_from_slice(&xid.to_le_bytes());
    }
}

/// The order of transaction ids: modulo 2^32 for normal ones, plain for the three permanent ones.
const fn precedes(a: u32, b: u32) -> bool {
    const FIRST_NORMAL: u32 = 3;
    if a < FIRST_NORMAL || b < FIRST_NORMAL {
        a < b
    } else {
        (a.wrapping_sub(b) as i32) < 0
    }
}

/// The number of line pointers.
pub(crate) fn item_count(page: &Page) -> Result<u16, Fault> {
    Ok(((bounds(page)?.lower - HEADER_BYTES) / POINTER_BYTES) as u16)
}

fn pointer_position(page: &Page, item: u16) -> Result<usize, Fault> {
    if item == 0 || item > item_count(page)? {
        return Err(Fault::NoSuchItem(item));
    }
    Ok(HEADER_BYTES + (usize::from(item) - 1) * POINTER_BYTES)
}

pub(crate) fn pointer(page: &Page, item: u16) -> Result<Pointer, Fault> {
    let at = pointer_position(page, item)?;
    Ok(Pointer::from_raw(u32_at(page, at)?))
}

pub(crate) fn set_pointer(page: &mut Page, item: u16, pointer: Pointer) -> Result<(), Fault> {
    let at = pointer_position(page, item)?;
    put(page, at, &pointer.to_raw().to_le_bytes())
}

/// Where item `item` lies; it must have bytes and lie between `upper` and `special`.
pub(crate) fn item_range(page: &Page, item: u16) -> Result<std::ops::Range<usize>, Fault> {
    let Pointer { start, len, .. } = pointer(page, item)?;
    let bounds = bounds(page)?;
    if len == 0 || start < bounds.upper || start + len > bounds.special {
        return Err(Fault::Item(item, "it does not lie in the item space"));
    }
    Ok(start..start + len)
}

/// The bytes of item `item`.
pub(crate) fn item_bytes(page: &Page, item: u16) -> Result<&[u8], Fault> {
    page.get(item_range(page, item)?)
        .ok_or(Fault::NoSuchItem(item))
}

/// What to do when the item number that is added exists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Use an unused line pointer (tables).
    Reuse,
    /// Move the later line pointers up (indexes).
    Insert,
}

/// Adds an item, given in parts, as number `item`.
pub(crate) fn add_item(
    page: &mut Page,
    parts: &[&[u8]],
    item: u16,
    place: Place,
) -> Result<(), Fault> {
    let len = parts.iter().map(|part| part.len()).sum();
    let mut at = claim_item(page, item, len, place)?;
    for part in parts {
        put(page, at, part)?;
        at += part.len();
    }
    Ok(())
}

/// Makes room for `len` bytes of a new item number `item` (`PageAddItemExtended`); answers where
/// they begin. They hold what the page held there.
pub(crate) fn claim_item(
    page: &mut Page,
    item: u16,
    len: usize,
    place: Place,
) -> Result<usize, Fault> {
    let Bounds { lower, upper, .. } = bounds(page)?;
    let count = item_count(page)?;
    if item == 0 || item > count + 1 {
        return Err(Fault::NoSuchItem(item));
    }
    let is_new = item == count + 1;
    if !is_new && place == Place::Reuse {
        let old = pointer(page, item)?;
        if old.state != State::Unused || old.len != 0 {
            return Err(Fault::Item(item, "it is in use"));
        }
    }
    let grows = is_new || place == Place::Insert;
    let new_lower = if grows { lower + POINTER_BYTES } else { lower };
    if len > BLOCK || new_lower + align8(len) > upper {
        return Err(Fault::PageFull);
    }
    let start = upper - align8(len);
    if !is_new && place == Place::Insert {
        let at = pointer_position(page, item)?;
        page.copy_within(at..lower, at + POINTER_BYTES);
    }
    set_lower(page, new_lower);
    set_upper(page, start);
    set_pointer(
        page,
        item,
        Pointer {
            state: State::Normal,
            start,
            len,
        },
    )?;
    Ok(start)
}

pub(crate) fn u16_at(page: &Page, at: usize) -> Result<u16, Fault> {
    let bytes = page.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u16::from_le_bytes).ok_or(Fault::PageHeader)
}

pub(crate) fn u32_at(page: &Page, at: usize) -> Result<u32, Fault> {
    let bytes = page.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_le_bytes).ok_or(Fault::PageHeader)
}

/// Writes `bytes` at `at`, which must lie on the page.
pub(crate) fn put(page: &mut Page, at: usize, bytes: &[u8]) -> Result<(), Fault> {
    let end = at.checked_add(bytes.len()).ok_or(Fault::PageFull)?;
    page.get_mut(at..end)
        .ok_or(Fault::PageFull)?
        .copy_from_slice(bytes);
    Ok(())
}
