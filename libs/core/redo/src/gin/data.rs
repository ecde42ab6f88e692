//! Posting trees: the rows of an entry that are too many for its tuple.

use super::page::{
    COMPRESSED, DATA, DELETED, LEAF, SPECIAL, count, expect, init_page, set_count, set_flags,
};
use crate::fault::Fault;
use crate::fields::Fields;
use crate::index_tuple::block_bytes;
use crate::page_item::{HEADER_BYTES, Page, put, set_lower};

/// Where lists or children begin, after the highest row that the page may have.
pub(super) const CONTENT: usize = HEADER_BYTES + 8;
/// The length of a child: its block, and the highest row that it may have.
const CHILD_BYTES: usize = 10;
const CHILDREN_MAX: u16 = ((SPECIAL - CONTENT) / CHILD_BYTES) as u16;

/// Makes a tree of one page.
pub(super) fn create(main: &mut Fields<'_>, page: &mut Page) -> Result<(), Fault> {
    let len = main.u32()? as usize;
    let lists = main.take(len)?;
    init_page(page, DATA | LEAF | COMPRESSED)?;
    if len > SPECIAL - CONTENT {
        return Err(Fault::PageFull);
    }
    put(page, CONTENT, lists)?;
    set_lower(page, CONTENT + len);
    Ok(())
}

/// Adds a child. The one that stood there was split, and is the right half of it from now on.
pub(super) fn insert_child(
    data: &mut Fields<'_>,
    right: u32,
    page: &mut Page,
) -> Result<(), Fault> {
    let (child, new) = (data.u16()?, data.take(CHILD_BYTES)?);
    data.expect_end()?;
    let (at, end, children) = place(page, child)?;
    if children == CHILDREN_MAX {
        return Err(Fault::PageFull);
    }
    put(page, at, &block_bytes(right))?;
    page.copy_within(at..end, at + CHILD_BYTES);
    put(page, at, new)?;
    set_children(page, children + 1)
}

pub(super) fn remove_child(page: &mut Page, child: u16) -> Result<(), Fault> {
    let (at, end, children) = place(page, child)?;
    page.copy_within(at + CHILD_BYTES..end, at);
    set_children(page, children - 1)
}

/// Where a child is, where the last one ends, and how many there are.
fn place(page: &Page, child: u16) -> Result<(usize, usize, u16), Fault> {
    expect(page, DATA, LEAF)?;
    let children = count(page)?;
    if children > CHILDREN_MAX {
        return Err(Fault::PageHeader);
    }
    if child == 0 || child > children {
        return Err(Fault::NoSuchItem(child));
    }
    let at = |child| CONTENT + CHILD_BYTES * usize::from(child);
    Ok((at(child - 1), at(children), children))
}

fn set_children(page: &mut Page, children: u16) -> Result<(), Fault> {
    set_count(page, children)?;
    set_lower(page, CONTENT + CHILD_BYTES * usize::from(children));
    Ok(())
}

/// Marks a page deleted, which stays as it is for scans that are on their way to it.
pub(super) fn delete_page(page: &mut Page, last_xid: u32) -> Result<(), Fault> {
    expect(page, DATA, 0)?;
    set_flags(page, DELETED)?;
    pg::page::set_prune_xid(page, last_xid);
    Ok(())
}
