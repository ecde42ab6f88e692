//! The list of entries that wait to be put into the tree, and the metapage, which knows its ends.

use super::page::{
    LIST, LIST_FULL_ROW, META, NONE, count, expect, init_page, set_count, set_flags, set_right,
};
use crate::fault::Fault;
use crate::fields::Fields;
use crate::index_tuple::take_packed_tuple;
use crate::page_item::{HEADER_BYTES, Page, Place, add_item, item_count, put, set_lower};

/// The length of the metapage's content.
pub(super) const META_BYTES: usize = 56;

/// Makes the metapage, which every change of it writes anew.
pub(super) fn meta(content: &[u8], page: &mut Page) -> Result<(), Fault> {
    init_page(page, META)?;
    put(page, HEADER_BYTES, content)?;
    set_lower(page, HEADER_BYTES + META_BYTES);
    Ok(())
}

/// What happens to the last page of the list: it gets the entries of a row, or a next page.
pub(super) fn change_tail(
    main: &mut Fields<'_>,
    data: &mut Fields<'_>,
    page: &mut Page,
) -> Result<(), Fault> {
    let (old_tail, new_right) = (main.u32()?, main.u32()?);
    let tuples = main.u32()?.cast_signed();
    expect(page, LIST, META)?;
    if tuples > 0 {
        add_tuples(tuples, data, page)?;
        let rows = count(page)?;
        return set_count(page, rows.wrapping_add(1));
    }
    if old_tail == NONE {
        return Err(Fault::RecordValue("change of a list's end"));
    }
    set_right(page, new_right)
}

/// Makes a page of the list.
pub(super) fn add_page(
    main: &mut Fields<'_>,
    data: &mut Fields<'_>,
    page: &mut Page,
) -> Result<(), Fault> {
    let (right, tuples) = (main.u32()?, main.u32()?.cast_signed());
    init_page(page, LIST)?;
    set_right(page, right)?;
    if right == NONE {
        set_flags(page, LIST_FULL_ROW)?;
        set_count(page, 1)?;
    }
    add_tuples(tuples, data, page)
}

fn add_tuples(tuples: i32, data: &mut Fields<'_>, page: &mut Page) -> Result<(), Fault> {
    for _ in 0..tuples {
        let item = item_count(page)? + 1;
        add_item(page, &[take_packed_tuple(data)?], item, Place::Insert)?;
    }
    Ok(())
}
