//! SP-GiST indexes: `spg_redo`.

mod insert;
mod page;
mod pick_split;
mod vacuum;

use pg::PgMajor;
use pg::page::set_lsn;
use pg::wal::{Block, Record};

use self::insert::{AddLeaf, AddNode, MoveLeafs, SplitTuple};
use self::page::{State, Target};
use self::pick_split::PickSplit;
use crate::fault::Fault;
use crate::fields::{Fields, expect_no_data};
use crate::page_item::Page;

pub(crate) fn redo(
    version: PgMajor,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    // All of it is in the record's own payload.
    expect_no_data(block)?;
    match (record.op(), block.id) {
        (0x10, id @ 0..=1) => AddLeaf::read(record)?.redo(record, id, page)?,
        (0x20, id @ 0..=2) => MoveLeafs::read(record)?.redo(record, id, page)?,
        (0x30, id @ 0..=2) => AddNode::read(record)?.redo(record, id, page)?,
        (0x40, id @ 0..=1) => SplitTuple::read(record)?.redo(id, page)?,
        (0x50, id @ 0..=3) => PickSplit::read(record)?.redo(record, id, page)?,
        (0x60, 0) => vacuum::leaf(record, page)?,
        (0x70, 0) => vacuum::root(record, page)?,
        (0x80, 0) => vacuum::redirections(version, record, page)?,
        _ => return Err(Fault::Unsupported),
    }
    set_lsn(page, record.end);
    Ok(())
}

/// Who changed the index, and whether it was being built: there were no scans then.
#[derive(Clone, Copy)]
struct Origin {
    xid: u32,
    is_build: bool,
}

impl Origin {
    fn take(main: &mut Fields) -> Result<Self, Fault> {
        let origin = Self {
            xid: main.u32()?,
            is_build: main.bool()?,
        };
        main.skip(3)?; // padding
        Ok(origin)
    }

    /// What is left where a tuple moved away.
    const fn state(self) -> State {
        if self.is_build {
            State::Placeholder
        } else {
            State::Redirect
        }
    }
}

fn target(record: &Record, block_id: u8, item: u16) -> Result<Target, Fault> {
    let block = record.block(block_id).ok_or(Fault::NoSuchBlock)?.blkno;
    Ok(Target { block, item })
}
