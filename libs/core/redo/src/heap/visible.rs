//! A page of a table became visible to everyone: `XLOG_HEAP2_VISIBLE`.

use pg::PgMajor;
use pg::page::set_lsn;
use pg::wal::{Block, Record};

use crate::Settings;
use crate::fault::Fault;
use crate::fields::{Fields, expect_no_data};
use crate::page_item::{ALL_VISIBLE, Page, bounds, set_flag};
use crate::vm;

/// From 16 on: the table is a catalogue, which matters to logical decoding on standbys.
const IS_CATALOG: u8 = 0x04;

/// Block 0 is the map's page, block 1 the table's.
pub(super) fn redo(
    settings: Settings,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    expect_no_data(block)?;
    let mut main = Fields::new(record.main_data);
    main.skip(4)?; // the conflict horizon
    let is_catalog = if settings.version >= PgMajor::V16 {
        IS_CATALOG
    } else {
        0
    };
    let flags = main.flags(vm::ALL | is_catalog)? & vm::ALL;
    main.expect_end()?;
    if block.id == 1 {
        bounds(page)?;
        set_flag(page, ALL_VISIBLE, true);
        if settings.logs_hints {
            set_lsn(page, record.end);
        }
        return Ok(());
    }
    let heap_block = record.block(1).ok_or(Fault::NoSuchBlock)?.blkno;
    if block.id != 0 || vm::map_block(heap_block) != block.blkno {
        return Err(Fault::RecordValue("map page"));
    }
    if vm::set(page, heap_block, flags) {
        set_lsn(page, record.end);
    }
    Ok(())
}
