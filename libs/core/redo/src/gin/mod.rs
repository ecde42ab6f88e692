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

/// The length of what a split says of itself.
const SPLIT_BYTES: usize = 28;

pub(crate) fn redo(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let (mut main, mut data) = (Fields::new(record.main_data), Fields::new(block.data));
    match (record.op(), block.id) {
        (0x10, 0) => data::create(&mut main, page)?,
        (0x20, id @ 0..=1) => {
            let insert = Insert::read(&mut main)?;
            match id {
                0 => insert.redo(&mut data, page)?,
                _ => note_downlink(page)?,
            }
        }
        (0x30, 3) => {
            main.skip(SPLIT_BYTES)?;
            note_downlink(page)?;
        }
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
                0 => {
                    main.skip(12)?; // what happens to the end of the list
                    pending::meta(meta, page)?;
                }
                _ => pending::change_tail(&mut main, &mut data, page)?,
            }
            main.skip(4)?; // padding
        }
        (0x70, 0) => pending::add_page(&mut main, &mut data, page)?,
        (0x80, id @ 0..=16) => {
            let meta = main.take(pending::META_BYTES)?;
            main.skip(8)?; // how many pages go, and padding
            match id {
                0 => pending::meta(meta, page)?,
                _ => page::init_page(page, page::DELETED)?,
            }
        }
        (0x90, 0) => recompress::recompress(&mut data, page)?,
        _ => return Err(Fault::Unsupported),
    }
    main.expect_end()?;
    data.expect_end()?;
    set_lsn(page, record.end);
    Ok(())
}

const IS_DATA: u16 = 1;
const IS_LEAF: u16 = 2;

/// An entry, a row or a child that is added to a page.
struct Insert {
    is_data: bool,
    /// The right page of the split below, of which a page that is no leaf now knows.
    split: Option<u32>,
}

impl Insert {
    fn read(main: &mut Fields<'_>) -> Result<Self, Fault> {
        let flags = main.u16()?;
        if flags & !(IS_DATA | IS_LEAF) != 0 {
            return Err(Fault::RecordValue("insert flags"));
        }
        let mut split = None;
        if flags & IS_LEAF == 0 {
            main.skip(4)?; // the left page
            split = Some(page::take_block(main)?);
        }
        let is_data = flags & IS_DATA != 0;
        Ok(Self { is_data, split })
    }

    fn redo(&self, data: &mut Fields<'_>, page: &mut Page) -> Result<(), Fault> {
        match (self.is_data, self.split) {
            (true, None) => recompress::recompress(data, page),
            (true, Some(right)) => data::insert_child(data, right, page),
            (false, split) => entry::insert(data, split, page),
        }
    }
}

/// A page that was split: the one above it knows now.
fn note_downlink(page: &mut Page) -> Result<(), Fault> {
    page::clear_flags(page, INCOMPLETE_SPLIT)
}
