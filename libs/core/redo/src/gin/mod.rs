//! GIN indexes: `gin_redo`.

mod data;
mod entry;
mod page;
mod pending;
mod posting;
mod recompress;
#[cfg(test)]
mod tests;

use pg::page::set_lsn;
use pg::wal::{Block, Record};

use self::page::INCOMPLETE_SPLIT;
use crate::fault::Fault;
use crate::fields::Fields;
use crate::page_item::Page;

pub(crate) fn redo(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    match (record.op(), block.id) {
        (0x10, 0) => data::create(&mut main, page)?,
        (0x20, 0) => insert(&mut main, block, page)?,
        // The page that was split, now that the one above it knows.
        (0x20, 1) | (0x30, 3) => page::clear_flags(page, INCOMPLETE_SPLIT)?,
        // The pages of a split, and those of entries that lost rows, come as images.
        (0x30, 0..=2) | (0x40, 0) => return Err(Fault::Image),
        (0x50, id) => {
            let item = main.u16()?;
            main.skip(2)?; // padding
            let (right, last_xid) = (main.u32()?, main.u32()?);
            match id {
                0 => data::delete_page(page, last_xid)?,
                1 => data::remove_child(page, item)?,
                2 => page::set_right(page, right)?,
                _ => return Err(Fault::Unsupported),
            }
        }
        (0x60, id @ (0 | 1)) => {
            main.skip(16)?; // the relation, and padding
            let meta = main.take(pending::META_BYTES)?;
            match id {
                0 => pending::meta(meta, page)?,
                _ => pending::change_tail(&mut main, block, page)?,
            }
        }
        (0x70, 0) => pending::add_page(&mut main, block, page)?,
        (0x80, 0) => pending::meta(main.take(pending::META_BYTES)?, page)?,
        (0x80, _) => page::init_page(page, page::DELETED)?,
        (0x90, 0) => recompress::recompress(&mut Fields::new(block.data), page)?,
        _ => return Err(Fault::Unsupported),
    }
    set_lsn(page, record.end);
    Ok(())
}

const IS_DATA: u16 = 1;
const IS_LEAF: u16 = 2;

fn insert(main: &mut Fields<'_>, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let flags = main.u16()?;
    if flags & !(IS_DATA | IS_LEAF) != 0 {
        return Err(Fault::RecordValue("insert flags"));
    }
    let mut split = None;
    if flags & IS_LEAF == 0 {
        main.skip(4)?; // the left page of the split below
        split = Some(page::take_block(main)?);
    }
    let mut data = Fields::new(block.data);
    match (flags & IS_DATA != 0, split) {
        (true, None) => recompress::recompress(&mut data, page),
        (true, Some(right)) => data::insert_child(&mut data, right, page),
        (false, split) => entry::insert(&mut data, split, page),
    }
}
