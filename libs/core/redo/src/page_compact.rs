//! Removes items from a page and closes the gaps.
//!
//! The order in which items are packed, and the old bytes that stay in the hole, are those of
//! PostgreSQL's recovery, so that a page comes out equal byte for byte.

use pg::PgMajor;

use crate::fault::Fault;
use crate::page_item::{
    HAS_FREE_LINES, HEADER_BYTES, Page, Pointer, State, align8, bounds, item_count, item_range,
    pointer, put, set_flag, set_lower, set_pointer, set_upper,
};

/// Packs the items of a table page after pruning (`PageRepairFragmentation`).
///
/// 15 began to drop unused line pointers at the end; 14 keeps them.
pub(crate) fn repair_fragmentation(page: &mut Page, version: PgMajor) -> Result<(), Fault> {
    let count = item_count(page)?;
    let mut last_used = 0;
    for item in 1..=count {
        if pointer(page, item)?.state == State::Unused {
            set_pointer(page, item, Pointer::UNUSED)?;
        } else {
            last_used = item;
        }
    }
    pack(page)?;
    let kept = if version == PgMajor::V14 {
        count
    } else {
        last_used
    };
    set_lower(page, HEADER_BYTES + 4 * usize::from(kept));
    note_free_lines(page)
}

/// Drops unused line pointers at the end, but never the first (`PageTruncateLinePointerArray`).
pub(crate) fn truncate_line_pointers(page: &mut Page) -> Result<(), Fault> {
    let mut count = item_count(page)?;
    while count > 1 && pointer(page, count)?.state == State::Unused {
        count -= 1;
    }
    set_lower(page, HEADER_BYTES + 4 * usize::from(count));
    note_free_lines(page)
}

fn note_free_lines(page: &mut Page) -> Result<(), Fault> {
    let mut has_free = false;
    for item in 1..=item_count(page)? {
        has_free |= pointer(page, item)?.state == State::Unused;
    }
    set_flag(page, HAS_FREE_LINES, has_free);
    Ok(())
}

/// Moves every item up against the end of the page, in the order of the line pointers.
fn pack(page: &mut Page) -> Result<(), Fault> {
    let limits = bounds(page)?;
    let source = *page;
    let mut upper = limits.special;
    for item in 1..=item_count(page)? {
        let old = pointer(page, item)?;
        if old.len == 0 {
            continue;
        }
        let range = item_range(&source, item)?;
        let aligned = range.start..range.start + align8(range.len());
        let bytes = source
            .get(aligned)
            .ok_or(Fault::Item(item, "it overruns the page"))?;
        // Overlapping items could claim more than the space there is.
        let room = upper
            .checked_sub(bytes.len())
            .filter(|start| *start >= limits.lower);
        upper = room.ok_or(Fault::Item(item, "it overlaps another"))?;
        put(page, upper, bytes)?;
        set_pointer(
            page,
            item,
            Pointer {
                start: upper,
                ..old
            },
        )?;
    }
    set_upper(page, upper);
    Ok(())
}

/// Removes one item of an index page and its line pointer (`PageIndexTupleDelete`).
pub(crate) fn delete_item(page: &mut Page, item: u16) -> Result<(), Fault> {
    let range = item_range(page, item)?;
    let limits = bounds(page)?;
    let size = align8(range.len());
    if range.start + size > limits.special {
        return Err(Fault::Item(item, "it overruns the page"));
    }
    let at = HEADER_BYTES + 4 * (usize::from(item) - 1);
    page.copy_within(at + 4..limits.lower, at);
    page.copy_within(limits.upper..range.start, limits.upper + size);
    set_upper(page, limits.upper + size);
    set_lower(page, limits.lower - 4);
    shift_items(page, range.start, |start| start + size)
}

/// Removes one item, but keeps the numbers of the others (`PageIndexTupleDeleteNoCompact`).
pub(crate) fn delete_item_in_place(page: &mut Page, item: u16) -> Result<(), Fault> {
    let range = item_range(page, item)?;
    let limits = bounds(page)?;
    let size = align8(range.len());
    if range.start + size > limits.special {
        return Err(Fault::Item(item, "it overruns the page"));
    }
    if item < item_count(page)? {
        set_pointer(page, item, Pointer::UNUSED)?;
    } else {
        set_lower(page, limits.lower - 4);
    }
    page.copy_within(limits.upper..range.start, limits.upper + size);
    set_upper(page, limits.upper + size);
    shift_items(page, range.start, |start| start + size)
}

/// Removes items of an index page, whose numbers ascend (`PageIndexMultiDelete`).
pub(crate) fn delete_items(page: &mut Page, items: &[u16]) -> Result<(), Fault> {
    // PostgreSQL's own threshold; it decides which bytes stay in the hole.
    if items.len() <= 2 {
        return items
            .iter()
            .rev()
            .try_for_each(|item| delete_item(page, *item));
    }
    let count = item_count(page)?;
    let mut doomed = items.iter().copied().peekable();
    let mut kept = 0;
    for item in 1..=count {
        let old = pointer(page, item)?;
        if doomed.next_if_eq(&item).is_some() {
            continue;
        }
        kept += 1;
        set_pointer(page, kept, old)?;
    }
    if doomed.next().is_some() {
        return Err(Fault::RecordValue("list of deleted items"));
    }
    set_lower(page, HEADER_BYTES + 4 * usize::from(kept));
    pack(page)
}

/// Replaces the bytes of an item of an index page (`PageIndexTupleOverwrite`).
pub(crate) fn overwrite_item(page: &mut Page, item: u16, bytes: &[u8]) -> Result<(), Fault> {
    let range = item_range(page, item)?;
    let limits = bounds(page)?;
    let (old, new) = (align8(range.len()), align8(bytes.len()));
    let room = old + (limits.upper - limits.lower);
    if range.start + old > limits.special || new > room {
        return Err(Fault::PageFull);
    }
    let moved = |start: usize| (start + old).saturating_sub(new);
    if old != new {
        page.copy_within(limits.upper..range.start, moved(limits.upper));
        set_upper(page, moved(limits.upper));
        shift_items(page, range.start, moved)?;
    }
    let start = moved(range.start);
    let state = pointer(page, item)?.state;
    set_pointer(
        page,
        item,
        Pointer {
            state,
            start,
            len: bytes.len(),
        },
    )?;
    put(page, start, bytes)
}

/// Moves the start of every item at or below `limit`, whose bytes have been moved.
fn shift_items(page: &mut Page, limit: usize, moved: impl Fn(usize) -> usize) -> Result<(), Fault> {
    for item in 1..=item_count(page)? {
        let old = pointer(page, item)?;
        if old.len > 0 && old.start <= limit {
            set_pointer(
                page,
                item,
                Pointer {
                    start: moved(old.start),
                    ..old
                },
            )?;
        }
    }
    Ok(())
}
