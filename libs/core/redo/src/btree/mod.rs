//! B-tree indexes: `btree_redo`.

use pg::page::set_lsn;
use pg::wal::{Block, Record};

use crate::fault::Fault;
use crate::fields::Fields;
use crate::page_item::{Page, Place, add_item, bounds, put, u16_at};

const INSERT_LEAF: u8 = 0x00;
const INSERT_UPPER: u8 = 0x10;
const INCOMPLETE_SPLIT: u16 = 0x80;

pub(crate) fn redo(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    match (record.op(), block.id) {
        (INSERT_LEAF | INSERT_UPPER, 0) => {
            let item = Fields::new(&record.main_data).u16()?;
            add_item(page, &[&block.data], item, Place::Insert)?;
        }
        (INSERT_UPPER, 1) => clear_incomplete_split(page)?,
        _ => return Err(Fault::Unsupported),
    }
    set_lsn(page, record.end);
    Ok(())
}

/// The parent now has the downlink that this page's split was missing.
fn clear_incomplete_split(page: &mut Page) -> Result<(), Fault> {
    let at = bounds(page)?.special + 12;
    let flags = u16_at(page, at)? & !INCOMPLETE_SPLIT;
    put(page, at, &flags.to_le_bytes())
}
