//! BRIN indexes: `brin_redo`.
//!
//! Regular pages hold a summary of each range of table blocks. The map at the start of the index
//! says which item is the summary of which range.

use pg::page::set_lsn;
use pg::wal::{Block, Record};

use crate::fault::Fault;
use crate::fields::{Fields, expect_no_data};
use crate::index_tuple::{TID_BYTES, tid};
use crate::page_compact::{delete_item_in_place, overwrite_item};
use crate::page_item::{HEADER_BYTES, Page, Place, add_item, bounds, init, put, set_lower};

/// The page is made anew before the first item is put on it.
const INIT_PAGE: u8 = 0x80;

const META_PAGE: u16 = 0xF091;
const MAP_PAGE: u16 = 0xF092;
const REGULAR_PAGE: u16 = 0xF093;

const SPECIAL_BYTES: usize = 8;
const META_MAGIC: u32 = 0xA810_9CFA;
const META_BYTES: usize = 16;
/// How many ranges one page of the map covers.
const MAP_ITEMS: u32 = ((8192 - HEADER_BYTES - SPECIAL_BYTES) / TID_BYTES) as u32;
/// What the map says of a range without summary: no block, no item.
const NO_SUMMARY: (u32, u16) = (u32::MAX, 0);

pub(crate) fn redo(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    match (record.op(), block.id) {
        (0x10 | 0x20 | 0x30 | 0x90 | 0xA0, 0) => {} // the summary
        _ => expect_no_data(block)?,
    }
    match (record.op(), block.id) {
        (0x00, 0) => create(record, page)?,
        (0x10 | 0x90, 0..=1) => Insert::read(record)?.redo(record, block, page)?,
        (0x20 | 0xA0, 0..=1) => Update::read(record)?.insert.redo(record, block, page)?,
        (0x20 | 0xA0, 2) => delete_item_in_place(page, Update::read(record)?.old_item)?,
        (0x30, 0) => {
            let mut main = Fields::new(record.main_data);
            let item = main.u16()?;
            main.expect_end()?;
            overwrite_item(page, item, block.data)?;
        }
        (0x40, 0) => note_last_map_page(record, page)?,
        (0x40, 1) => make(page, MAP_PAGE)?,
        (0x50, 0) => Desummarize::read(record)?
            .range
            .point_to(page, NO_SUMMARY)?,
        (0x50, 1) => delete_item_in_place(page, Desummarize::read(record)?.item)?,
        _ => return Err(Fault::Unsupported),
    }
    set_lsn(page, record.end);
    Ok(())
}

/// An empty page; its kind is the last number on it.
fn make(page: &mut Page, kind: u16) -> Result<(), Fault> {
    init(page, SPECIAL_BYTES);
    put(page, page.len() - 2, &kind.to_le_bytes())
}

fn create(record: &Record, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let (pages_per_range, version) = (main.u32()?, main.u16()?);
    main.expect_end()?;
    make(page, META_PAGE)?;
    // The last page of the map comes last, and there is none yet.
    let meta = [META_MAGIC, u32::from(version), pages_per_range, 0];
    for (at, word) in (HEADER_BYTES..).step_by(4).zip(meta) {
        put(page, at, &word.to_le_bytes())?;
    }
    set_lower(page, HEADER_BYTES + META_BYTES);
    Ok(())
}

fn note_last_map_page(record: &Record, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let last = main.u32()?;
    main.expect_end()?;
    bounds(page)?;
    put(page, HEADER_BYTES + 12, &last.to_le_bytes())?;
    // Before 11 it could be short of what the page holds.
    set_lower(page, HEADER_BYTES + META_BYTES);
    Ok(())
}

/// A range of table blocks.
struct Range {
    heap_block: u32,
    pages_per_range: u32,
}

impl Range {
    /// Writes into a page of the map where the summary of this range is.
    fn point_to(&self, page: &mut Page, (blkno, item): (u32, u16)) -> Result<(), Fault> {
        let number = self.heap_block.checked_div(self.pages_per_range);
        let number = number.ok_or(Fault::RecordValue("length of a range"))?;
        if bounds(page)?.special != page.len() - SPECIAL_BYTES {
            return Err(Fault::PageHeader);
        }
        let at = HEADER_BYTES + TID_BYTES * (number % MAP_ITEMS) as usize;
        put(page, at, &tid(blkno, item))
    }
}

/// A summary that is added.
struct Insert {
    range: Range,
    item: u16,
}

impl Insert {
    fn read(record: &Record) -> Result<Self, Fault> {
        Self::take(Fields::new(record.main_data))
    }

    fn take(mut main: Fields) -> Result<Self, Fault> {
        let (heap_block, pages_per_range) = (main.u32()?, main.u32()?);
        let item = main.u16()?;
        main.expect_end()?;
        let range = Range {
            heap_block,
            pages_per_range,
        };
        Ok(Self { range, item })
    }

    fn redo(&self, record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
        if block.id == 1 {
            let regular = record.block(0).ok_or(Fault::NoSuchBlock)?;
            return self.range.point_to(page, (regular.blkno, self.item));
        }
        if record.op() & INIT_PAGE != 0 {
            make(page, REGULAR_PAGE)?;
        }
        add_item(page, &[block.data], self.item, Place::Reuse)
    }
}

/// A summary that moves to another page as it changes.
struct Update {
    old_item: u16,
    insert: Insert,
}

impl Update {
    fn read(record: &Record) -> Result<Self, Fault> {
        let mut main = Fields::new(record.main_data);
        let old_item = main.u16()?;
        main.skip(2)?; // padding
        let insert = Insert::take(main)?;
        Ok(Self { old_item, insert })
    }
}

/// A summary that is dropped.
struct Desummarize {
    range: Range,
    item: u16,
}

impl Desummarize {
    fn read(record: &Record) -> Result<Self, Fault> {
        let mut main = Fields::new(record.main_data);
        let (pages_per_range, heap_block) = (main.u32()?, main.u32()?);
        let item = main.u16()?;
        main.expect_end()?;
        let range = Range {
            heap_block,
            pages_per_range,
        };
        Ok(Self { range, item })
    }
}
