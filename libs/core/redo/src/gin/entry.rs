//! The tree of entries, which is a B-tree of index tuples.

use super::page::{DATA, DELETED, LIST, META, expect};
use crate::fault::Fault;
use crate::fields::Fields;
use crate::index_tuple::{tid, tuple_len};
use crate::page_compact::delete_item;
use crate::page_item::{Page, Place, add_item, item_range, put};

/// Puts an entry on a page, in the place of an older form of itself where the record says so.
/// Where a page below was split, the item that led to it leads to its right half now.
pub(super) fn insert(
    data: &mut Fields<'_>,
    split: Option<u32>,
    page: &mut Page,
) -> Result<(), Fault> {
    let (item, replaces) = (data.u16()?, data.bool()?);
    data.skip(1)?; // padding
    let tuple = data.rest();
    if tuple_len(tuple)? != tuple.len() {
        return Err(Fault::RecordValue("index tuple length"));
    }
    expect(page, 0, DATA | DELETED | META | LIST)?;
    if let Some(right) = split {
        let link = item_range(page, item)?.start;
        put(page, link, &tid(right, 0))?;
    }
    if replaces {
        delete_item(page, item)?;
    }
    add_item(page, &[tuple], item, Place::Insert)
}
