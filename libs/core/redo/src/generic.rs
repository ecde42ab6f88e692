//! Generic records: pieces of bytes to write over a page.

use pg::page::set_lsn;
use pg::wal::{Block, Record};

use crate::fault::Fault;
use crate::fields::Fields;
use crate::page_item::{Page, bounds, put};

pub(crate) fn redo(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let mut pieces = Fields::new(block.data);
    while !pieces.is_at_end() {
        let (at, len) = (pieces.u16()?, pieces.u16()?);
        put(page, usize::from(at), pieces.take(usize::from(len))?)?;
    }
    // The pieces do not cover the hole; the writer zeroed it.
    let hole = bounds(page)?;
    page[hole.lower..hole.upper].fill(0);
    set_lsn(page, record.end);
    Ok(())
}
