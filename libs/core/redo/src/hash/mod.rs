//! Hash indexes: `hash_redo`.

mod bitmap;
mod bucket;
mod meta;
mod page;
#[cfg(test)]
mod tests;

use pg::PgMajor;
use pg::page::set_lsn;
use pg::wal::{Block, Record};

use self::bucket::{Split, Squeeze};
use self::meta::Overflow;
use self::page::{HAS_DEAD_TUPLES, NEEDS_SPLIT_CLEANUP};
use crate::fault::Fault;
use crate::fields::Fields;
use crate::page_item::{Page, Place, add_item};

pub(crate) fn redo(
    version: PgMajor,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    match (record.op(), block.id) {
        (0x00, 0) => meta::init(&mut main, page)?,
        (0x10, 0) => bitmap::init(main.u16()?, page)?,
        (0x10, 1) => meta::add_first_bitmap(page)?,
        (0x20, 0) => add_item(page, &[block.data], main.u16()?, Place::Insert)?,
        (0x20, 1) => meta::count(page, 1.0)?,
        (0x30, id) => {
            let overflow = Overflow::read(record)?;
            match id {
                0 => overflow.page(block, page)?,
                1 => page::set_next(page, overflow.block)?,
                2 => bitmap::put(block, page, true)?,
                3 => bitmap::init(overflow.bitmap_bytes, page)?,
                4 => overflow.meta(block, page)?,
                _ => return Err(Fault::Unsupported),
            }
        }
        (0x40, id) => {
            let split = Split::read(&mut main)?;
            match id {
                0 => split.old_bucket(page)?,
                1 => split.new_bucket(page)?,
                2 => meta::split(&split, block, page)?,
                _ => return Err(Fault::Unsupported),
            }
        }
        (0x50, 0) => return Err(Fault::Image),
        (0x60, 0) => page::set_flags(page, main.u16()?)?,
        (0x60, 1) => {
            main.skip(2)?;
            page::set_flags(page, main.u16()?)?;
        }
        // A bucket's first page is named so that recovery locks it, and stays as it is.
        (0x70 | 0x80 | 0x90, 0) => return Ok(()),
        (0x70, 1) => bucket::move_in(main.u16()?, block, page)?,
        (0x70, 2) => bucket::remove(&mut Fields::new(block.data), page)?,
        // 17 began to leave the page alone that nothing is moved to.
        (0x80, _) if version >= PgMajor::V17 => return Err(Fault::Unsupported),
        (0x80, id) => {
            let squeeze = Squeeze::read(&mut main)?;
            match id {
                1 => squeeze.write_page(block, page)?,
                2 => page::init_unused(page)?,
                3 => page::set_next(page, squeeze.next)?,
                4 => page::set_prev(page, squeeze.prev)?,
                5 => bitmap::put(block, page, false)?,
                6 => meta::set_first_free(page, Fields::new(block.data).u32()?)?,
                _ => return Err(Fault::Unsupported),
            }
        }
        (0x90, 1) => {
            bucket::remove(&mut Fields::new(block.data), page)?;
            if main.u8()? != 0 {
                page::clear_flags(page, HAS_DEAD_TUPLES)?;
            }
        }
        (0xA0, 0) => page::clear_flags(page, NEEDS_SPLIT_CLEANUP)?,
        (0xB0, 0) => meta::set_count(page, main.u64()?)?,
        // 16 began to tell tables of the catalog apart here, in other fields.
        (0xC0, _) if version >= PgMajor::V16 => return Err(Fault::Unsupported),
        (0xC0, id) => {
            main.skip(4)?; // the newest transaction whose rows go
            let count = main.u32()?;
            match id {
                0 => {
                    bucket::remove(&mut main, page)?;
                    page::clear_flags(page, HAS_DEAD_TUPLES)?;
                }
                1 => meta::count(page, -f64::from(count))?,
                _ => return Err(Fault::Unsupported),
            }
        }
        _ => return Err(Fault::Unsupported),
    }
    set_lsn(page, record.end);
    Ok(())
}
