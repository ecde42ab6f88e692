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

use self::bucket::{Delete, Move, Split, Squeeze, VacuumOnePage};
use self::meta::Overflow;
use self::page::NEEDS_SPLIT_CLEANUP;
use crate::fault::Fault;
use crate::fields::Fields;
use crate::page_item::{Page, Place, add_item};

pub(crate) fn redo(
    version: PgMajor,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    let (mut main, mut data) = (Fields::new(record.main_data), Fields::new(block.data));
    let change = change(version, record, block.id, &mut main, &mut data, page)?;
    main.expect_end()?;
    data.expect_end()?;
    if change == Change::Some {
        set_lsn(page, record.end);
    }
    Ok(())
}

/// Whether a record changes a page that it names.
#[derive(PartialEq, Eq)]
enum Change {
    None,
    Some,
}

fn change(
    version: PgMajor,
    record: &Record,
    id: u8,
    main: &mut Fields<'_>,
    data: &mut Fields<'_>,
    page: &mut Page,
) -> Result<Change, Fault> {
    match (record.op(), id) {
        (0x00, 0) => meta::init(main, page)?,
        (0x10, 0) => bitmap::init(main.u16()?, page)?,
        (0x10, 1) => {
            main.skip(2)?; // the length of the bitmap
            meta::add_first_bitmap(page)?;
        }
        (0x20, 0) => add_item(page, &[data.rest()], main.u16()?, Place::Insert)?,
        (0x20, 1) => {
            main.skip(2)?; // the number of the item
            meta::count(page, 1.0)?;
        }
        (0x30, id) => Overflow::read(record, main)?.redo(id, data, page)?,
        (0x40, id) => Split::read(main)?.redo(id, data, page)?,
        (0x50, 0) => return Err(Fault::Image),
        (0x60, id @ 0..=1) => {
            let (old, new) = (main.u16()?, main.u16()?);
            page::set_flags(page, if id == 0 { old } else { new })?;
        }
        (0x70, id) => return Move::read(main)?.redo(id, data, page),
        (0x80, id) => return Squeeze::read(main)?.redo(version, id, data, page),
        (0x90, id) => return Delete::read(main)?.redo(id, data, page),
        (0xA0, 0) => page::clear_flags(page, NEEDS_SPLIT_CLEANUP)?,
        (0xB0, 0) => meta::set_count(page, main.u64()?)?,
        (0xC0, id) => VacuumOnePage::read(version, main)?.redo(id, page)?,
        _ => return Err(Fault::Unsupported),
    }
    Ok(Change::Some)
}
