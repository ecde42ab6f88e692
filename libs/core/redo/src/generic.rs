//! Generic records: pieces of bytes to write over a page.

use pg::page::{lower, set_lsn, upper};
use pg::wal::{Block, Record};

use crate::fault::Fault;
use crate::fields::Fields;
use crate::page_item::{Page, put};

pub(crate) fn redo(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    if record.op() != 0 {
        return Err(Fault::Unsupported);
    }
    Fields::new(record.main_data).expect_end()?;
    let mut pieces = Fields::new(block.data);
    while !pieces.is_at_end() {
        let (at, len) = (pieces.u16()?, pieces.u16()?);
        put(page, usize::from(at), pieces.take(usize::from(len))?)?;
    }
    // The pieces do not cover the hole; the writer zeroed it. A page without a header has none.
    let hole = usize::from(lower(page))..usize::from(upper(page));
    page.get_mut(hole).ok_or(Fault::PageHeader)?.fill(0);
    set_lsn(page, record.end);
    Ok(())
}
