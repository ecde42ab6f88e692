//! Tables: `heap_redo`, `heap2_redo`, and `neon_rm_redo` of Neon's servers.

mod change;
mod freeze;
mod insert;
mod modify;
mod prune;
#[cfg(test)]
mod rare_tests;
#[cfg(test)]
mod tests;
mod tuple;
mod update;
mod visible;

use ids::Fork;
use pg::PgMajor;
use pg::page::set_lsn;
use pg::wal::{Block, Record};

use crate::Settings;
use crate::fault::Fault;
use crate::fields::expect_no_data;
use crate::page_item::{Page, init};
use crate::vm;

pub(crate) use change::{Change, Dialect};

/// Records of the resource managers `Heap`, and 134 of Neon's servers from 16 on.
pub(crate) fn redo(
    version: PgMajor,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    if let Some(change) = Change::of(record) {
        return redo_change(change, record, block, page);
    }
    if record.rmid == pg::wal::rmgr::NEON {
        return Err(Fault::UnknownOp);
    }
    match (record.op(), block.id) {
        (0x50, 0) => modify::confirm(record, block, page)?,
        (0x70, 0) => modify::inplace(version, record, block, page)?,
        _ => return Err(Fault::Unsupported),
    }
    set_lsn(page, record.end);
    Ok(())
}

/// Records of the resource manager `Heap2`.
pub(crate) fn redo2(
    settings: Settings,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    if let Some(change) = Change::of(record) {
        return redo_change(change, record, block, page);
    }
    let version = settings.version;
    match (record.op(), block.id) {
        (0x10..=0x30, 0) if version >= PgMajor::V17 => {
            prune::combined(version, record, block, page)?
        }
        (0x10, 0) => prune::prune(version, record, block, page)?,
        (0x20, 0) => prune::vacuum(record, block, page)?,
        (0x30, 0) => freeze::redo(version, record, block, page)?,
        // It stamps the page itself, or does not.
        (0x40, 0 | 1) => return visible::redo(settings, record, block, page),
        _ => return Err(Fault::Unsupported),
    }
    set_lsn(page, record.end);
    Ok(())
}

fn redo_change(
    (change, dialect): (Change, Dialect),
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    // All that a block may bring is a new tuple.
    if block.rel.fork == Fork::Vm || block.id != 0 || !change.adds_tuples() {
        expect_no_data(block)?;
    }
    if block.rel.fork == Fork::Vm {
        return vm::redo_clears(record, block, page);
    }
    if change.is_init(record)? && block.id == 0 {
        init(page, 0);
    }
    match (change, block.id) {
        (Change::Insert, 0) => insert::insert(dialect, record, block, page)?,
        (Change::MultiInsert, 0) => insert::multi_insert(dialect, record, block, page)?,
        (Change::Delete, 0) => modify::delete(dialect, record, block, page)?,
        (Change::Update | Change::HotUpdate, 0 | 1) => {
            update::redo((change, dialect), record, block, page)?
        }
        (Change::Lock, 0) => modify::lock(dialect, record, block, page)?,
        (Change::LockUpdated, 0) => modify::lock_updated(record, page)?,
        _ => return Err(Fault::Unsupported),
    }
    set_lsn(page, record.end);
    Ok(())
}
