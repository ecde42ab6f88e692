//! Changes to one tuple that is there: delete, lock, confirm, in-place update.

use pg::PgMajor;
use pg::wal::{Block, Record};

use super::change::{Dialect, Infobits};
use super::tuple::{HOT_UPDATED, Tuple};
use crate::fault::Fault;
use crate::fields::{Fields, expect_no_data};
use crate::page_item::{ALL_VISIBLE, Page, put, set_flag, set_prunable};

const ALL_VISIBLE_CLEARED: u8 = 0x01;
/// The main data goes on with the old tuple, or its key, for logical decoding.
const CONTAINS_OLD: u8 = 0x06;
/// The tuple was inserted speculatively and is taken back.
const IS_SUPER: u8 = 0x08;
const IS_PARTITION_MOVE: u8 = 0x10;
const DELETE_FLAGS: u8 = ALL_VISIBLE_CLEARED | CONTAINS_OLD | IS_SUPER | IS_PARTITION_MOVE;
/// Where the ctid of a tuple that moved to another partition points.
const MOVED_PARTITIONS: (u32, u16) = (u32::MAX, 0xfffd);
/// `XLH_LOCK_ALL_FROZEN_CLEARED`: a matter of the visibility map alone.
const LOCK_FLAGS: u8 = 0x01;

pub(super) fn delete(
    dialect: Dialect,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let (xmax, item) = (main.u32()?, main.u16()?);
    let (infobits, flags) = (dialect.infobits(&mut main)?, main.flags(DELETE_FLAGS)?);
    let command = dialect.command(&mut main)?;
    if flags & CONTAINS_OLD == 0 {
        main.expect_end()?;
    }
    let tuple = Tuple::find(page, item)?;
    let mut masks = tuple.masks(page)?;
    masks.replace_xmax(infobits);
    masks.set_combo(infobits.has(Infobits::COMBO));
    masks.infomask2 &= !HOT_UPDATED;
    tuple.set_masks(page, masks)?;
    if flags & IS_SUPER == 0 {
        tuple.set_xmax(page, xmax)?;
    } else {
        tuple.set_xmin(page, 0)?;
    }
    tuple.set_field3(page, command)?;
    set_prunable(page, record.xid);
    if flags & ALL_VISIBLE_CLEARED != 0 {
        set_flag(page, ALL_VISIBLE, false);
    }
    let moved = flags & IS_PARTITION_MOVE != 0;
    let (to, number) = if moved {
        MOVED_PARTITIONS
    } else {
        (block.blkno, item)
    };
    tuple.set_ctid(page, to, number)
}

pub(super) fn lock(
    dialect: Dialect,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let (xmax, command) = (main.u32()?, dialect.command(&mut main)?);
    let (item, infobits) = (main.u16()?, dialect.infobits(&mut main)?);
    main.flags(LOCK_FLAGS)?;
    main.expect_end()?;
    let tuple = Tuple::find(page, item)?;
    let mut masks = tuple.masks(page)?;
    masks.replace_xmax(infobits);
    masks.set_combo(infobits.has(Infobits::COMBO));
    if masks.is_only_locked() {
        masks.infomask2 &= !HOT_UPDATED;
        tuple.set_ctid(page, block.blkno, item)?;
    }
    tuple.set_xmax(page, xmax)?;
    tuple.set_field3(page, command)?;
    tuple.set_masks(page, masks)
}

/// A lock of a tuple that a locked one was updated to. Its command id stays.
pub(super) fn lock_updated(record: &Record, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let (xmax, item) = (main.u32()?, main.u16()?);
    let infobits = Dialect::Stock.infobits(&mut main)?;
    main.flags(LOCK_FLAGS)?;
    main.expect_end()?;
    let tuple = Tuple::find(page, item)?;
    let mut masks = tuple.masks(page)?;
    masks.replace_xmax(infobits);
    tuple.set_xmax(page, xmax)?;
    tuple.set_masks(page, masks)
}

pub(super) fn confirm(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    expect_no_data(block)?;
    let mut main = Fields::new(record.main_data);
    let item = main.u16()?;
    main.expect_end()?;
    Tuple::find(page, item)?.set_ctid(page, block.blkno, item)
}

pub(super) fn inplace(
    version: PgMajor,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let item = main.u16()?;
    if version >= PgMajor::V18 {
        skip_invalidations(&mut main)?;
    }
    main.expect_end()?;
    let tuple = Tuple::find(page, item)?;
    let data_offset = tuple.data_offset(page);
    if data_offset + block.data.len() != tuple.len {
        return Err(Fault::Item(item, "its length is not that of the new data"));
    }
    put(page, tuple.start + data_offset, block.data)
}

/// 18: what standbys must forget of their caches. No page holds any of it.
fn skip_invalidations(main: &mut Fields<'_>) -> Result<(), Fault> {
    const MESSAGE_BYTES: usize = 16;
    main.skip(2 + 4 + 4)?; // padding, database, tablespace
    main.flags(1)?; // whether the file of the relation cache goes
    main.skip(3)?;
    let messages = main.u32()? as usize;
    let bytes = messages.checked_mul(MESSAGE_BYTES);
    main.skip(bytes.ok_or(Fault::RecordTooShort)?)
}
