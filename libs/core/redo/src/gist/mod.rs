//! GiST indexes: `gist_redo`.

mod page;
#[cfg(test)]
mod tests;

use pg::PgMajor;
use pg::page::set_lsn;
use pg::wal::{Block, Record};

use self::page::{DELETED, FOLLOW_RIGHT, HAS_GARBAGE, LEAF, NO_BLOCK, Opaque, TUPLES_DELETED};
use crate::fault::Fault;
use crate::fields::{Fields, expect_no_data};
use crate::index_tuple::take_tuple;
use crate::page_compact::{delete_item, delete_items, overwrite_item};
use crate::page_item::{HEADER_BYTES, Page, Place, add_item, bounds, item_count, put, set_lower};

const PAGE_UPDATE: u8 = 0x00;
const DELETE: u8 = 0x10;
const PAGE_SPLIT: u8 = 0x30;
const PAGE_DELETE: u8 = 0x60;

const ROOT: u32 = 0;

pub(crate) fn redo(
    version: PgMajor,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    match (record.op(), block.id) {
        (PAGE_UPDATE, 0) => update(version, record, block, page)?,
        (PAGE_UPDATE, 1) | (PAGE_SPLIT, 0) => {
            expect_no_data(block)?;
            note_downlink(record, page)?;
        }
        (DELETE, 0) => delete(version, record, block, page)?,
        (PAGE_SPLIT, id) => Split::read(record)?.redo(record, id, block, page)?,
        (PAGE_DELETE, id @ 0..=1) => {
            expect_no_data(block)?;
            let delete = PageDelete::read(record)?;
            match id {
                0 => delete.mark(page)?,
                _ => delete_item(page, delete.downlink)?,
            }
        }
        // The reuse of a page and a new LSN name no page.
        _ => return Err(Fault::Unsupported),
    }
    set_lsn(page, record.end);
    Ok(())
}

/// What is left to do after an image of the page: it was taken before its downlink was noted.
pub(crate) fn after_image(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    match (record.op(), block.id) {
        (PAGE_UPDATE, 1) | (PAGE_SPLIT, 0) => note_downlink(record, page),
        _ => Ok(()),
    }
}

/// The parent now has a downlink to the page on the right of this one, which a split made.
fn note_downlink(record: &Record, page: &mut Page) -> Result<(), Fault> {
    let mut opaque = Opaque::read(page)?;
    opaque.split_lsn = record.end.0;
    opaque.flags &= !FOLLOW_RIGHT;
    opaque.write(page)
}

/// Deletes items and adds others.
fn update(version: PgMajor, record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let (deleted, inserted) = (main.u16()?, main.u16()?);
    main.expect_end()?;
    let mut data = Fields::new(block.data);
    let doomed: Vec<u16> = data.offsets(usize::from(deleted))?.iter().collect();
    if let ([item], 1) = (&doomed[..], inserted) {
        // One for one is put in its place, and does not count as deleted.
        overwrite_item(page, *item, take_tuple(&mut data)?)?;
        return data.expect_end();
    }
    delete_items(page, &doomed)?;
    if !doomed.is_empty() {
        note_deleted(version, page)?;
    }
    add_tuples(page, &mut data, u32::from(inserted))
}

/// Adds so many tuples at the end, which are all that is left of the data.
fn add_tuples(page: &mut Page, data: &mut Fields, count: u32) -> Result<(), Fault> {
    for _ in 0..count {
        let tuple = take_tuple(data)?;
        let item = item_count(page)? + 1;
        add_item(page, &[tuple], item, Place::Insert)?;
    }
    data.expect_end()
}

/// Removes items of a leaf that scans had found to be dead.
fn delete(version: PgMajor, record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    expect_no_data(block)?;
    let mut main = Fields::new(record.main_data);
    main.skip(4)?; // the conflict horizon
    let count = usize::from(main.u16()?);
    if version >= PgMajor::V16 {
        main.bool()?; // whether it is of a catalog
        main.skip(1)?; // padding
    }
    let doomed: Vec<u16> = main.offsets(count)?.iter().collect();
    main.expect_end()?;
    let mut opaque = Opaque::read(page)?;
    delete_items(page, &doomed)?;
    opaque.flags &= !HAS_GARBAGE;
    opaque.write(page)?;
    note_deleted(version, page)
}

fn note_deleted(version: PgMajor, page: &mut Page) -> Result<(), Fault> {
    let mut opaque = Opaque::read(page)?;
    if version != PgMajor::V15 && opaque.flags & LEAF != 0 {
        opaque.flags |= TUPLES_DELETED;
    }
    opaque.write(page)
}

struct Split {
    old_right: u32,
    old_split_lsn: u64,
    is_leaf: bool,
    pages: u16,
    follow_right: bool,
}

impl Split {
    fn read(record: &Record) -> Result<Self, Fault> {
        let mut main = Fields::new(record.main_data);
        let old_right = main.u32()?;
        main.skip(4)?; // padding
        let old_split_lsn = main.u64()?;
        let is_leaf = main.bool()?;
        main.skip(1)?; // padding
        let pages = main.u16()?;
        let follow_right = main.bool()?;
        main.skip(3)?; // padding
        main.expect_end()?;
        Ok(Self {
            old_right,
            old_split_lsn,
            is_leaf,
            pages,
            follow_right,
        })
    }

    /// One of the pages that the old one becomes, number `id` of them from 1 on: all of what is
    /// on it is in the record. The root stays where it is, and becomes the parent of the others.
    fn redo(&self, record: &Record, id: u8, block: &Block, page: &mut Page) -> Result<(), Fault> {
        if u16::from(id) > self.pages {
            return Err(Fault::NoSuchBlock);
        }
        let is_root = block.blkno == ROOT;
        let is_last = u16::from(id) == self.pages;
        let first = record.block(1).ok_or(Fault::NoSuchBlock)?;
        let right = match id.checked_add(1).filter(|_| !is_last) {
            Some(next) => record.block(next).ok_or(Fault::NoSuchBlock)?.blkno,
            None => self.old_right,
        };
        let mut flags = if self.is_leaf && !is_root { LEAF } else { 0 };
        // Only where the parent has its downlinks not yet.
        if self.follow_right && !is_last && first.blkno != ROOT {
            flags |= FOLLOW_RIGHT;
        }
        Opaque {
            split_lsn: self.old_split_lsn,
            right: if is_root { NO_BLOCK } else { right },
            flags,
        }
        .init(page)?;
        let mut data = Fields::new(block.data);
        let count = data.u32()?;
        add_tuples(page, &mut data, count)
    }
}

struct PageDelete {
    xid: u64,
    downlink: u16,
}

impl PageDelete {
    fn read(record: &Record) -> Result<Self, Fault> {
        let mut main = Fields::new(record.main_data);
        let (xid, downlink) = (main.u64()?, main.u16()?);
        main.expect_end()?;
        Ok(Self { xid, downlink })
    }

    /// An empty leaf goes: it holds the last transaction that may come to it, and nothing else.
    fn mark(&self, page: &mut Page) -> Result<(), Fault> {
        let mut opaque = Opaque::read(page)?;
        if bounds(page)?.upper < HEADER_BYTES + 8 {
            return Err(Fault::PageFull);
        }
        opaque.flags |= DELETED;
        opaque.write(page)?;
        set_lower(page, HEADER_BYTES + 8);
        put(page, HEADER_BYTES, &self.xid.to_le_bytes())
    }
}
