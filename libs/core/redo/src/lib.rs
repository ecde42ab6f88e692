//! A page and a WAL record make a page.
//!
//! [`apply`] changes one page as PostgreSQL's recovery would. It reads nothing but its arguments:
//! every record of 14 to 18 that is redone here can be redone page by page. Records and pages
//! come from computes, so a bad one is an error and never a panic.
#![forbid(unsafe_code)]

mod brin;
mod btree;
mod fault;
mod fields;
mod generic;
mod gin;
mod gist;
mod hash;
mod heap;
mod index_tuple;
mod page_compact;
mod page_item;
mod sequence;
mod spgist;
#[cfg(test)]
mod test_record;
#[cfg(test)]
mod tests;
pub mod vm;

use pg::PgMajor;
use pg::page::{is_new, lsn, set_lsn};
use pg::wal::{Record, rmgr};

pub use fault::{Fault, RedoError};
pub use page_item::Page;
pub use vm::vm_clears;

/// What redo depends on beside record and page: the server that wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The server's major version.
    pub version: PgMajor,
    /// Whether changes that need no WAL were logged (`XLogHintBitIsNeeded`): the cluster has
    /// checksums (`pg_control`), or `wal_log_hints` was on (the last parameter change before the
    /// record). Then a page that turns all-visible takes the record's LSN.
    pub logs_hints: bool,
}

const XLOG_FPI_FOR_HINT: u8 = 0xA0;
const XLOG_FPI: u8 = 0xB0;

/// Whether the block at this index is made anew, so that no older page is needed.
#[must_use]
pub fn will_init(record: &Record, block_index: usize) -> bool {
    let block = record.blocks.get(block_index);
    block.is_some_and(|block| block.will_init() || block.applied_image().is_some())
}

/// Redoes what `record` does to the block at `block_index` of its blocks.
///
/// As in PostgreSQL, a page whose LSN is at or past the record's end already holds the record
/// and is left alone, unless the record makes the page anew. After an error the page is
/// undefined and must not be served.
pub fn apply(
    settings: Settings,
    record: &Record,
    block_index: usize,
    page: &mut Page,
) -> Result<(), RedoError> {
    apply_block(settings, record, block_index, page).map_err(|fault| RedoError {
        lsn: record.end,
        rmgr: record.rmid,
        info: record.info,
        fault,
    })
}

fn apply_block(
    settings: Settings,
    record: &Record,
    block_index: usize,
    page: &mut Page,
) -> Result<(), Fault> {
    let block = record.blocks.get(block_index).ok_or(Fault::NoSuchBlock)?;
    if let Some(image) = block.applied_image() {
        image.restore_into(page).map_err(|_| Fault::Image)?;
        if !is_new(page) {
            set_lsn(page, record.end);
        }
        if record.rmid == rmgr::GIST {
            gist::after_image(record, block, page)?;
        }
        return Ok(());
    }
    if !block.will_init() && lsn(page) >= record.end {
        return Ok(());
    }
    let version = settings.version;
    match record.rmid {
        // A hint image that is there only for the consistency check changes nothing.
        rmgr::XLOG if record.op() == XLOG_FPI_FOR_HINT => Ok(()),
        rmgr::XLOG if record.op() == XLOG_FPI => Err(Fault::Image),
        rmgr::HEAP => heap::redo(version, record, block, page),
        rmgr::NEON if version >= PgMajor::V16 => heap::redo(version, record, block, page),
        rmgr::HEAP2 => heap::redo2(settings, record, block, page),
        rmgr::BTREE => btree::redo(version, record, block, page),
        rmgr::GIN => gin::redo(record, block, page),
        rmgr::HASH => hash::redo(version, record, block, page),
        rmgr::BRIN => brin::redo(record, block, page),
        rmgr::GIST => gist::redo(version, record, block, page),
        rmgr::SPGIST => spgist::redo(version, record, block, page),
        rmgr::SEQ => sequence::redo(record, block, page),
        rmgr::GENERIC => generic::redo(record, block, page),
        _ => Err(Fault::Unsupported),
    }
}
