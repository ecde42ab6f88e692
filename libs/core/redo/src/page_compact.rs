//! Removes items from a page and closes the gaps.
//!
//! The order in which items are packed, and the old bytes that stay in the hole, are those of
//! PostgreSQL's recovery, so that a page comes out equal byte for byte.

#[cfg(test)]
mod tests;

use pg::PgMajor;
use pg::page::BLOCK;

use crate::fault::Fault;
use crate::page_item::{
    Bounds, HAS_FREE_LINES, HEADER_BYTES, Page, Pointer, State, align8, bounds, item_count,
    item_range, pointer, put, set_flag, set_lower, set_pointer, set_upper, u32_at,
};

/// Packs the items of a table page after pruning (`PageRepairFragmentation`).
///
/// 15 began to drop unused line pointers at the end; 14 keeps them.
pub(crate) fn repair_fragmentation(page: &mut Page, version: PgMajor) -> Result<(), Fault> {
    let lower = bounds(page)?.lower;
    let (mut count, mut last_used) = (0, 0);
    for raw in page[HEADER_BYTES..lower].as_chunks_mut().0 {
        count += 1;
        if Pointer::from_bytes(*raw).state == State::Unused {
            *raw = Pointer::UNUSED.to_bytes();
        } else {
            last_used = count;
        }
    }
    pack(page)?;
    let kept = if version == PgMajor::V14 {
        count
    } else {
        last_used
    };
    set_lower(page, HEADER_BYTES + 4 * kept);
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
    let pointers = page[HEADER_BYTES..bounds(page)?.lower].as_chunks().0;
    let is_free = |raw: &[u8; 4]| Pointer::from_bytes(*raw).state == State::Unused;
    let has_free = pointers.iter().any(is_free);
    set_flag(page, HAS_FREE_LINES, has_free);
    Ok(())
}

/// Moves every item up against the end of the page, in the order of the line pointers.
fn pack(page: &mut Page) -> Result<(), Fault> {
    let limits = bounds(page)?;
    // Items that lie in the order of their pointers move up without one touching another: only
    // others need a copy of the page to move from.
    let whole;
    let copy = if descend(page, limits)? {
        None
    } else {
        whole = *page;
        Some(&whole)
    };
    let pointers_end = HEADER_BYTES + 4 * usize::from(item_count(page)?);
    let mut upper = limits.special;
    let mut run = Run::default();
    for at in (HEADER_BYTES..pointers_end).step_by(4) {
        let old = Pointer::from_raw(u32_at(page, at)?);
        if old.len == 0 {
            continue;
        }
        let len = align8(old.len);
        // Overlapping items could claim more than the space there is.
        let room = upper.checked_sub(len).filter(|to| *to >= limits.lower);
        upper = room.ok_or(Fault::Item(item_at(at), "it overlaps another"))?;
        if upper != old.start {
            put(
                page,
                at,
                &Pointer {
                    start: upper,
                    ..old
                }
                .to_bytes(),
            )?;
        }
        if !run.take(old.start, upper, len) {
            run.carry(page, copy)?;
            run = Run {
                from: old.start,
                to: upper,
                len,
            };
        }
    }
    run.carry(page, copy)?;
    set_upper(page, upper);
    Ok(())
}

/// Checks that every item lies where items do; answers whether each begins below the one before.
fn descend(page: &Page, limits: Bounds) -> Result<bool, Fault> {
    let mut is_descending = true;
    let mut above = BLOCK;
    for (raw, at) in page[HEADER_BYTES..limits.lower]
        .as_chunks()
        .0
        .iter()
        .zip((HEADER_BYTES..).step_by(4))
    {
        let Pointer { start, len, .. } = Pointer::from_bytes(*raw);
        if len == 0 {
            continue;
        }
        if start < limits.upper || start + len > limits.special {
            return Err(Fault::Item(
                item_at(at),
                "it does not lie in the item space",
            ));
        }
        let end = start + align8(len);
        if end > BLOCK {
            return Err(Fault::Item(item_at(at), "it overruns the page"));
        }
        is_descending &= end <= above;
        above = start;
    }
    Ok(is_descending)
}

/// The number of the item whose pointer is there.
const fn item_at(at: usize) -> u16 {
    ((at - HEADER_BYTES) / 4 + 1) as u16
}

/// Items that lie next to each other before and after they move.
#[derive(Clone, Copy, Default)]
struct Run {
    from: usize,
    to: usize,
    len: usize,
}

impl Run {
    /// Adds an item that is right below, and goes there; answers false for any other.
    const fn take(&mut self, from: usize, to: usize, len: usize) -> bool {
        if from + len != self.from || to + len != self.to {
            return false;
        }
        *self = Self {
            from,
            to,
            len: self.len + len,
        };
        true
    }

    fn carry(self, page: &mut Page, copy: Option<&Page>) -> Result<(), Fault> {
        let from = self.from..self.from + self.len;
        match copy {
            _ if self.from == self.to => Ok(()),
            Some(copy) => put(page, self.to, copy.get(from).ok_or(Fault::PageFull)?),
            None if self.from < self.to && self.to + self.len <= BLOCK => {
                page.copy_within(from, self.to);
                Ok(())
            }
            None => Err(Fault::PageFull),
        }
    }
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
