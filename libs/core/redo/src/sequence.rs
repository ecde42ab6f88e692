//! Sequences: every record holds the whole of the one page.

use pg::page::set_lsn;
use pg::wal::{Block, Record};

use crate::fault::Fault;
use crate::fields::expect_no_data;
use crate::page_item::{Page, Place, add_item, bounds, init, put};

const MAGIC: u32 = 0x1717;
const LOCATOR_BYTES: usize = 12;

pub(crate) fn redo(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    if record.op() != 0 {
        return Err(Fault::Unsupported);
    }
    if block.id != 0 || !block.will_init() {
        return Err(Fault::RecordValue("block of a sequence"));
    }
    expect_no_data(block)?;
    let tuple = record
        .main_data
        .get(LOCATOR_BYTES..)
        .ok_or(Fault::RecordTooShort)?;
    init(page, 4);
    let special = bounds(page)?.special;
    put(page, special, &MAGIC.to_le_bytes())?;
    add_item(page, &[tuple], 1, Place::Insert)?;
    set_lsn(page, record.end);
    Ok(())
}
