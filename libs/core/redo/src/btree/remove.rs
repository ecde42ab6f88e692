//! Deduplication, deletion of items, deletion of pages.

use pg::PgMajor;
use pg::wal::{Block, Record};

use super::page::{
    DELETED, HALF_DEAD, HAS_FULL_XID, HAS_GARBAGE, LEAF, Opaque, Posting, emptied, form_posting,
    without_tids,
};
use crate::fault::Fault;
use crate::fields::{Fields, expect_no_data};
use crate::index_tuple::{block_bytes, tuple_len};
use crate::page_compact::{delete_item, delete_items, overwrite_item};
use crate::page_item::{
    HEADER_BYTES, Page, Place, add_item, item_bytes, item_count, item_range, put, set_lower,
};

/// Merges the runs of equal keys that the record names into posting lists.
pub(super) fn dedup(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let count = main.u16()?;
    main.expect_end()?;
    let mut intervals = Fields::new(block.data);
    let mut fresh = emptied(page)?;
    let mut opaque = Opaque::read(page)?;
    let mut item = 1;
    let mut at = 0;
    let mut push = |tuple: &[u8]| {
        at += 1;
        add_item(&mut fresh, &[tuple], at, Place::Insert)
    };
    for _ in 0..count {
        let (base, merged) = (intervals.u16()?, intervals.u16()?);
        if base < item.max(opaque.first_data_item()) || merged == 0 {
            return Err(Fault::RecordValue("deduplication interval"));
        }
        while item < base {
            push(item_bytes(page, item)?)?;
            item += 1;
        }
        let key = Posting::read(item_bytes(page, base)?)?.key;
        let mut tids = Vec::new();
        for _ in 0..merged {
            tids.extend_from_slice(Posting::read(item_bytes(page, item)?)?.tids);
            item += 1;
        }
        push(&form_posting(key, &tids)?)?;
    }
    intervals.expect_end()?;
    while item <= item_count(page)? {
        let tuple = item_bytes(page, item)?;
        push(
            tuple
                .get(..tuple_len(tuple)?)
                .ok_or(Fault::Item(item, "it is cut off"))?,
        )?;
        item += 1;
    }
    *page = fresh;
    opaque.flags &= !HAS_GARBAGE;
    opaque.write(page)
}

/// Deletes items, and rows out of lists, that a scan or an insertion found to be dead.
pub(super) fn delete(
    version: PgMajor,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    main.skip(4)?; // the conflict horizon
    let counts = (main.u16()?, main.u16()?);
    if version >= PgMajor::V16 {
        main.bool()?; // whether it is of a catalog
    }
    main.expect_end()?;
    remove(counts, block, page)
}

/// Deletes items, and rows out of lists, that `VACUUM` removes.
pub(super) fn vacuum(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let counts = (main.u16()?, main.u16()?);
    main.expect_end()?;
    remove(counts, block, page)
}

fn remove((deleted, updated): (u16, u16), block: &Block, page: &mut Page) -> Result<(), Fault> {
    let mut data = Fields::new(block.data);
    let deleted: Vec<u16> = data.offsets(usize::from(deleted))?.iter().collect();
    let updated = data.offsets(usize::from(updated))?;
    for item in updated.iter() {
        let doomed = usize::from(data.u16()?);
        let doomed = data.offsets(doomed)?;
        let tuple = without_tids(item_bytes(page, item)?, doomed.iter())?;
        overwrite_item(page, item, &tuple)?;
    }
    data.expect_end()?;
    delete_items(page, &deleted)?;
    let mut opaque = Opaque::read(page)?;
    opaque.flags &= !HAS_GARBAGE;
    opaque.write(page)
}

/// A leaf that begins to die, which the tree no longer leads to.
pub(super) struct MarkHalfDead {
    parent_item: u16,
    prev: u32,
    next: u32,
    top_parent: u32,
}

impl MarkHalfDead {
    pub(super) fn read(record: &Record) -> Result<Self, Fault> {
        let mut main = Fields::new(record.main_data);
        let parent_item = main.u16()?;
        main.skip(2 + 4)?; // padding, and the leaf's own number
        let (prev, next, top_parent) = (main.u32()?, main.u32()?, main.u32()?);
        main.expect_end()?;
        Ok(Self {
            parent_item,
            prev,
            next,
            top_parent,
        })
    }

    pub(super) fn leaf(&self, block: &Block, page: &mut Page) -> Result<(), Fault> {
        expect_no_data(block)?;
        half_dead_leaf(page, self.prev, self.next, self.top_parent)
    }

    /// Its parent: the item's downlink is taken from the next item, which goes.
    pub(super) fn parent(&self, block: &Block, page: &mut Page) -> Result<(), Fault> {
        expect_no_data(block)?;
        let item = self.parent_item;
        let next = item.checked_add(1).ok_or(Fault::NoSuchItem(item))?;
        let link = item_bytes(page, next)?
            .get(..4)
            .ok_or(Fault::NoSuchItem(next))?
            .to_vec();
        let start = item_range(page, item)?.start;
        put(page, start, &link)?;
        delete_item(page, next)
    }
}

/// An empty leaf whose high key points to the top of the subtree that goes with it.
fn half_dead_leaf(page: &mut Page, prev: u32, next: u32, top_parent: u32) -> Result<(), Fault> {
    Opaque {
        prev,
        next,
        level: 0,
        flags: HALF_DEAD | LEAF,
        cycle: 0,
    }
    .init(page)?;
    let mut high_key = [0; 8];
    high_key[..4].copy_from_slice(&block_bytes(top_parent));
    // Its own length, and "the row pointer holds something else".
    high_key[6..].copy_from_slice(&(8_u16 | 0x2000).to_le_bytes());
    add_item(page, &[&high_key], 1, Place::Insert)
}

pub(super) fn unlink(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let (prev, next, level) = (main.u32()?, main.u32()?, main.u32()?);
    main.skip(4)?; // padding
    let safe_xid = main.u64()?;
    let (leaf_prev, leaf_next, leaf_top) = (main.u32()?, main.u32()?, main.u32()?);
    main.expect_end()?;
    expect_no_data(block)?;
    match block.id {
        0 => {
            let leaf = if level == 0 { LEAF } else { 0 };
            let flags = DELETED | HAS_FULL_XID | leaf;
            Opaque {
                prev,
                next,
                level,
                flags,
                cycle: 0,
            }
            .init(page)?;
            put(page, HEADER_BYTES, &safe_xid.to_le_bytes())?;
            set_lower(page, HEADER_BYTES + 8);
            Ok(())
        }
        1 => Opaque {
            next,
            ..Opaque::read(page)?
        }
        .write(page),
        2 => Opaque {
            prev,
            ..Opaque::read(page)?
        }
        .write(page),
        3 => half_dead_leaf(page, leaf_prev, leaf_next, leaf_top),
        _ => Err(Fault::Unsupported),
    }
}
