//! Changes to one tuple that is there: delete, lock, confirm, in-place update.

use pg::wal::{Block, Record};

use super::tuple::{COMBO_CID, HOT_UPDATED, Tuple};
use crate::fault::Fault;
use crate::fields::Fields;
use crate::page_item::{ALL_VISIBLE, Page, put, set_flag, set_prunable};

const ALL_VISIBLE_CLEARED: u8 = 0x01;
/// The tuple was inserted speculatively and is taken back.
const IS_SUPER: u8 = 0x08;
const IS_PARTITION_MOVE: u8 = 0x10;
/// Where the ctid of a tuple that moved to another partition points.
const MOVED_PARTITIONS: (u32, u16) = (u32::MAX, 0xfffd);

pub(super) fn delete(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let (xmax, item, infobits, flags) = (main.u32()?, main.u16()?, main.u8()?, main.u8()?);
    let tuple = Tuple::find(page, item)?;
    let mut masks = tuple.masks(page)?;
    masks.replace_xmax(infobits);
    masks.infomask &= !COMBO_CID;
    masks.infomask2 &= !HOT_UPDATED;
    tuple.set_masks(page, masks)?;
    if flags & IS_SUPER == 0 {
        tuple.set_xmax(page, xmax)?;
    } else {
        tuple.set_xmin(page, 0)?;
    }
    tuple.set_field3(page, 0)?;
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

pub(super) fn lock(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let (xid, item, infobits) = (main.u32()?, main.u16()?, main.u8()?);
    let tuple = Tuple::find(page, item)?;
    let mut masks = tuple.masks(page)?;
    masks.replace_xmax(infobits);
    if masks.is_only_locked() {
        masks.infomask2 &= !HOT_UPDATED;
        tuple.set_ctid(page, block.blkno, item)?;
    }
    masks.infomask &= !COMBO_CID;
    tuple.set_xmax(page, xid)?;
    tuple.set_field3(page, 0)?;
    tuple.set_masks(page, masks)
}

pub(super) fn lock_updated(record: &Record, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let (xmax, item, infobits) = (main.u32()?, main.u16()?, main.u8()?);
    let tuple = Tuple::find(page, item)?;
    let mut masks = tuple.masks(page)?;
    masks.replace_xmax(infobits);
    tuple.set_xmax(page, xmax)?;
    tuple.set_masks(page, masks)
}

pub(super) fn confirm(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let item = Fields::new(record.main_data).u16()?;
    Tuple::find(page, item)?.set_ctid(page, block.blkno, item)
}

pub(super) fn inplace(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let item = Fields::new(record.main_data).u16()?;
    let tuple = Tuple::find(page, item)?;
    let data_offset = tuple.data_offset(page);
    if data_offset + block.data.len() != tuple.len {
        return Err(Fault::Item(item, "its length is not that of the new data"));
    }
    put(page, tuple.start + data_offset, block.data)
}
