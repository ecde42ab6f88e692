//! Tables: `heap_redo` and `heap2_redo`.

mod insert;
mod modify;
mod prune;
mod tuple;
mod update;

use ids::Fork;
use pg::PgMajor;
use pg::page::{is_new, set_lsn};
use pg::wal::{Block, Record};

use crate::fault::Fault;
use crate::fields::Fields;
use crate::page_item::{ALL_VISIBLE, Page, init, set_flag};
use crate::vm;

/// `XLOG_HEAP_INIT_PAGE`: the page is empty before this record.
const INIT_PAGE: u8 = 0x80;
const OP: u8 = 0x70;

pub(crate) fn redo(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let op = record.op() & OP;
    if block.rel.fork == Fork::Vm && matches!(op, 0x00 | 0x10 | 0x20 | 0x40 | 0x60) {
        vm::redo_clears(record, block, page);
        return Ok(());
    }
    if record.op() & INIT_PAGE != 0 && block.id == 0 {
        init(page, 0);
    }
    match (op, block.id) {
        (0x00, 0) => insert::insert(record, block, page)?,
        (0x10, 0) => modify::delete(record, block, page)?,
        (0x20, 0 | 1) => update::redo(record, block, page, update::Kind::Plain)?,
        (0x40, 0 | 1) => update::redo(record, block, page, update::Kind::Hot)?,
        (0x50, 0) => modify::confirm(record, block, page)?,
        (0x60, 0) => modify::lock(record, block, page)?,
        (0x70, 0) => modify::inplace(record, block, page)?,
        _ => return Err(Fault::Unsupported),
    }
    set_lsn(page, record.end);
    Ok(())
}

pub(crate) fn redo2(
    version: PgMajor,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    let op = record.op() & OP;
    if op == 0x40 {
        return visible(record, block, page);
    }
    if block.rel.fork == Fork::Vm && op == 0x50 {
        vm::redo_clears(record, block, page);
        return Ok(());
    }
    if record.op() & INIT_PAGE != 0 && block.id == 0 {
        init(page, 0);
    }
    match (op, block.id) {
        (0x10..=0x30, 0) if version >= PgMajor::V17 => {
            prune::combined(version, record, block, page)?
        }
        (0x10, 0) => prune::prune(version, record, block, page)?,
        (0x20, 0) => prune::vacuum(block, page)?,
        (0x30, 0) if version == PgMajor::V16 => prune::freeze_plans(record, block, page)?,
        (0x30, 0) => prune::freeze(record, block, page)?,
        (0x50, 0) => insert::multi_insert(record, block, page)?,
        (0x60, 0) => modify::lock_updated(record, page)?,
        _ => return Err(Fault::Unsupported),
    }
    set_lsn(page, record.end);
    Ok(())
}

/// Block 0 is the map's page, block 1 the table's. The table page keeps its LSN, as in a cluster
/// without checksums and `wal_log_hints`.
fn visible(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    if block.id == 1 {
        set_flag(page, ALL_VISIBLE, true);
        return Ok(());
    }
    let heap_block = record.block(1).ok_or(Fault::NoSuchBlock)?.blkno;
    if block.id != 0 || vm::map_block(heap_block) != block.blkno {
        return Err(Fault::RecordValue("map page"));
    }
    let mut fields = Fields::new(record.main_data);
    fields.skip(4)?; // the conflict horizon
    let flags = fields.u8()?;
    if is_new(page) {
        init(page, 0);
    }
    if vm::set(page, heap_block, flags & (vm::ALL_VISIBLE | vm::ALL_FROZEN)) {
        set_lsn(page, record.end);
    }
    Ok(())
}
