//! What an SP-GiST index keeps on its pages (`spgist_private.h`): counts in the special space, and
//! tuples that are live or stand where a live one was.

use crate::fault::Fault;
use crate::fields::Fields;
use crate::index_tuple::{TID_BYTES, tid, tuple_len};
use crate::page_compact::{delete_item, delete_items};
use crate::page_item::{
    Page, Place, add_item, bounds, init, item_bytes, item_count, item_range, put, u16_at,
};

const LEAF: u16 = 0x04;
const NULLS: u16 = 0x08;
const SPECIAL_BYTES: usize = 8;
const PAGE_ID: u16 = 0xFF82;

const TUPLE_HEADER_BYTES: usize = 8;
const DEAD_BYTES: usize = 16;
const STATE_MASK: u8 = 3;
/// Where a leaf tuple has the number of the next one; two higher bits are flags.
const NEXT_AT: usize = 4;
const NEXT_MASK: u16 = 0x3fff;
/// Where a dead tuple has its pointer.
const POINTER_AT: usize = 6;

/// What a page is for.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Inner,
    Leaf,
}

/// Makes an empty page, of the tree of nulls or of the other one.
pub(super) fn make(page: &mut Page, kind: Kind, nulls: bool) -> Result<(), Fault> {
    init(page, SPECIAL_BYTES);
    let kind = match kind {
        Kind::Inner => 0,
        Kind::Leaf => LEAF,
    };
    let flags = if nulls { kind | NULLS } else { kind };
    let special = page.len() - SPECIAL_BYTES;
    put(page, special, &flags.to_le_bytes())?;
    put(page, special + 6, &PAGE_ID.to_le_bytes())
}

/// What stands where a live tuple was.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// A scan that comes here goes on elsewhere.
    Redirect = 1,
    /// Links lead here, and nothing is here.
    Dead = 2,
    /// It keeps the numbers of the others, and may be replaced.
    Placeholder = 3,
}

/// Where a tuple is.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) block: u32,
    pub(super) item: u16,
}

impl Target {
    pub(super) const NONE: Self = Self {
        block: u32::MAX,
        item: 0,
    };

    fn to_bytes(self) -> [u8; TID_BYTES] {
        tid(self.block, self.item)
    }
}

/// A move: where to, and who moved it.
#[derive(Clone, Copy)]
pub(super) struct Moved {
    pub(super) to: Target,
    pub(super) xid: u32,
}

impl State {
    fn tuple(self, moved: Moved) -> [u8; DEAD_BYTES] {
        let (to, xid) = match self {
            Self::Redirect => (moved.to, moved.xid),
            Self::Dead | Self::Placeholder => (Target::NONE, 0),
        };
        let mut tuple = [0; DEAD_BYTES];
        tuple[0] = self as u8 | (DEAD_BYTES as u8) << 2;
        tuple[POINTER_AT..12].copy_from_slice(&to.to_bytes());
        tuple[12..].copy_from_slice(&xid.to_le_bytes());
        tuple
    }
}

/// Takes a leaf tuple off a payload, where it has no padding.
pub(super) fn take_leaf<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], Fault> {
    let len = Fields::u32(&mut { *fields })? >> 2;
    if (len as usize) < DEAD_BYTES {
        return Err(Fault::RecordValue("leaf tuple length"));
    }
    fields.take(len as usize)
}

/// Takes an inner tuple off a payload, where it has no padding.
pub(super) fn take_inner<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], Fault> {
    let mut ahead = *fields;
    ahead.skip(4)?; // state, number of nodes, length of the prefix
    let len = usize::from(ahead.u16()?);
    if len < TUPLE_HEADER_BYTES {
        return Err(Fault::RecordValue("inner tuple length"));
    }
    fields.take(len)
}

/// Adds a tuple, where nothing was or a placeholder.
pub(super) fn add(page: &mut Page, tuple: &[u8], item: u16) -> Result<(), Fault> {
    if item <= item_count(page)? {
        if item_bytes(page, item)?[0] & STATE_MASK != State::Placeholder as u8 {
            return Err(Fault::Item(item, "it is no placeholder"));
        }
        count(page, State::Placeholder, -1)?;
        delete_item(page, item)?;
    }
    add_item(page, &[tuple], item, Place::Insert)
}

/// Puts a tuple in the place of another.
pub(super) fn replace(page: &mut Page, tuple: &[u8], item: u16) -> Result<(), Fault> {
    delete_item(page, item)?;
    add_item(page, &[tuple], item, Place::Insert)
}

/// Leaves something else in the place of a live tuple.
pub(super) fn bury(page: &mut Page, item: u16, state: State, moved: Moved) -> Result<(), Fault> {
    replace(page, &state.tuple(moved), item)?;
    count(page, state, 1)
}

/// Leaves something else in the place of tuples: of one state for the first that is named, of
/// another for the rest (`spgPageIndexMultiDelete`).
pub(super) fn bury_all(
    page: &mut Page,
    items: &[u16],
    (first_state, state): (State, State),
    moved: Moved,
) -> Result<(), Fault> {
    let Some(first) = items.first() else {
        return Ok(());
    };
    let mut sorted = items.to_vec();
    sorted.sort_unstable();
    delete_items(page, &sorted)?;
    for item in sorted {
        let state = if item == *first { first_state } else { state };
        add_item(page, &[&state.tuple(moved)], item, Place::Insert)?;
        count(page, state, 1)?;
    }
    Ok(())
}

/// Makes placeholders of redirections.
pub(super) fn forget_redirections(
    page: &mut Page,
    items: impl Iterator<Item = u16>,
) -> Result<(), Fault> {
    for item in items {
        let state = item_bytes(page, item)?[0];
        if state & STATE_MASK != State::Redirect as u8 {
            return Err(Fault::Item(item, "it is no redirection"));
        }
        patch(page, item, 0, &[state | State::Placeholder as u8])?;
        patch(page, item, POINTER_AT, &Target::NONE.to_bytes())?;
        count(page, State::Redirect, -1)?;
        count(page, State::Placeholder, 1)?;
    }
    Ok(())
}

/// Removes the placeholders that stand at the end of a page.
pub(super) fn drop_placeholders_from(page: &mut Page, first: u16) -> Result<(), Fault> {
    let doomed: Vec<u16> = (first..=item_count(page)?).collect();
    count(page, State::Placeholder, -(doomed.len() as i32))?;
    delete_items(page, &doomed)
}

/// Lets a leaf tuple be followed by another one of its page.
pub(super) fn chain(page: &mut Page, item: u16, next: u16) -> Result<(), Fault> {
    let at = item_range(page, item)?.start + NEXT_AT;
    let flags = u16_at(page, at)? & !NEXT_MASK;
    let next = flags | next & NEXT_MASK;
    patch(page, item, NEXT_AT, &next.to_le_bytes())
}

/// Points a node of an inner tuple to where its tuples are now.
pub(super) fn point(page: &mut Page, item: u16, node: u16, to: Target) -> Result<(), Fault> {
    const DAMAGED: &str = "it has no such node";
    let tuple = item_bytes(page, item)?;
    let mut header = Fields::new(tuple);
    let (nodes, prefix) = (header.u16()? >> 3, usize::from(header.u16()?));
    if node >= nodes {
        return Err(Fault::Item(item, DAMAGED));
    }
    let mut at = TUPLE_HEADER_BYTES + prefix;
    for _ in 0..node {
        at += tuple_len(tuple.get(at..).ok_or(Fault::Item(item, DAMAGED))?)?;
    }
    patch(page, item, at, &to.to_bytes())
}

/// Writes over a part of an item.
fn patch(page: &mut Page, item: u16, at: usize, bytes: &[u8]) -> Result<(), Fault> {
    let range = item_range(page, item)?;
    if at + bytes.len() > range.len() {
        return Err(Fault::Item(item, "it is too short"));
    }
    put(page, range.start + at, bytes)
}

/// Keeps the counts of redirections and placeholders.
fn count(page: &mut Page, state: State, change: i32) -> Result<(), Fault> {
    let at = match state {
        State::Redirect => 2,
        State::Placeholder => 4,
        State::Dead => return Ok(()),
    };
    let at = bounds(page)?.special + at;
    let counted = i32::from(u16_at(page, at)?) + change;
    let counted = u16::try_from(counted).map_err(|_| Fault::PageHeader)?;
    put(page, at, &counted.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuple_is_as_long_as_its_header_at_least() {
        for (len, taken) in [(7, false), (8, true), (9, false)] {
            let tuple = [0, 0, 0, 0, len, 0, 0, 0];
            assert_eq!(take_inner(&mut Fields::new(&tuple)).is_ok(), taken, "{len}");
        }
        for (len, taken) in [(15, false), (16, true), (17, false)] {
            let mut tuple = [0; 16];
            tuple[0] = len << 2;
            assert_eq!(take_leaf(&mut Fields::new(&tuple)).is_ok(), taken, "{len}");
        }
    }

    /// An inner tuple of two nodes of eight bytes, without a prefix.
    #[test]
    fn only_nodes_that_a_tuple_has_are_pointed_elsewhere() {
        let mut tuple = [0; 24];
        tuple[0] = 2 << 3;
        (tuple[14], tuple[22]) = (8, 8);
        let mut page = [0; pg::page::BLOCK];
        make(&mut page, Kind::Inner, false).unwrap();
        add(&mut page, &tuple, 1).unwrap();
        for (node, there) in [(0, true), (1, true), (2, false), (3, false)] {
            let to = Target { block: 7, item: 3 };
            assert_eq!(point(&mut page, 1, node, to).is_ok(), there, "{node}");
        }
        for (at, fits) in [(16, true), (18, true), (19, false), (24, false)] {
            assert_eq!(patch(&mut page, 1, at, &[9; 6]).is_ok(), fits, "{at}");
        }
    }
}
