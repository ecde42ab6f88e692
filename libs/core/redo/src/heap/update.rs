//! Updates: block 0 is the page of the new tuple, block 1 that of the old one where they differ.

use pg::wal::{Block, Record};

use super::tuple::{COMBO_CID, HEADER_BYTES, HOT_UPDATED, LoggedHeader, Tuple};
use crate::fault::Fault;
use crate::fields::Fields;
use crate::page_item::{ALL_VISIBLE, Page, Place, add_item, set_flag, set_prunable};

const OLD_ALL_VISIBLE_CLEARED: u8 = 0x01;
const NEW_ALL_VISIBLE_CLEARED: u8 = 0x02;
const PREFIX_FROM_OLD: u8 = 0x20;
const SUFFIX_FROM_OLD: u8 = 0x40;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Hot,
}

struct Update {
    old_xmax: u32,
    old_item: u16,
    old_infobits: u8,
    flags: u8,
    new_xmax: u32,
    new_item: u16,
}

impl Update {
    fn read(record: &Record) -> Result<Self, Fault> {
        let mut main = Fields::new(record.main_data);
        Ok(Self {
            old_xmax: main.u32()?,
            old_item: main.u16()?,
            old_infobits: main.u8()?,
            flags: main.u8()?,
            new_xmax: main.u32()?,
            new_item: main.u16()?,
        })
    }
}

pub(super) fn redo(
    record: &Record,
    block: &Block,
    page: &mut Page,
    kind: Kind,
) -> Result<(), Fault> {
    let update = Update::read(record)?;
    let is_one_page = record.block(1).is_none();
    if block.id == 1 || is_one_page {
        retire_old(record, &update, page, kind)?;
    }
    if block.id == 0 {
        add_new(record, block, &update, page, is_one_page)?;
    }
    Ok(())
}

fn retire_old(record: &Record, update: &Update, page: &mut Page, kind: Kind) -> Result<(), Fault> {
    let new_block = record.block(0).ok_or(Fault::NoSuchBlock)?.blkno;
    let tuple = Tuple::find(page, update.old_item)?;
    let mut masks = tuple.masks(page)?;
    masks.replace_xmax(update.old_infobits);
    masks.infomask &= !COMBO_CID;
    masks.infomask2 &= !HOT_UPDATED;
    if kind == Kind::Hot {
        masks.infomask2 |= HOT_UPDATED;
    }
    tuple.set_masks(page, masks)?;
    tuple.set_xmax(page, update.old_xmax)?;
    tuple.set_field3(page, 0)?;
    tuple.set_ctid(page, new_block, update.new_item)?;
    set_prunable(page, record.xid);
    if update.flags & OLD_ALL_VISIBLE_CLEARED != 0 {
        set_flag(page, ALL_VISIBLE, false);
    }
    Ok(())
}

fn add_new(
    record: &Record,
    block: &Block,
    update: &Update,
    page: &mut Page,
    is_one_page: bool,
) -> Result<(), Fault> {
    let mut data = Fields::new(block.data);
    let mut shared_len = |flag| {
        if update.flags & flag == 0 {
            Ok(0)
        } else {
            data.u16().map(usize::from)
        }
    };
    let (prefix, suffix) = (shared_len(PREFIX_FROM_OLD)?, shared_len(SUFFIX_FROM_OLD)?);
    let (prefix, suffix) = if prefix + suffix == 0 {
        (Vec::new(), Vec::new())
    } else if is_one_page {
        shared_with_old(page, update.old_item, prefix, suffix)?
    } else {
        // Servers share bytes only inside a page: redo needs no other page.
        return Err(Fault::RecordValue("prefix or suffix from another page"));
    };
    let logged = LoggedHeader::read(&mut data)?;
    let bitmap = usize::from(logged.data_offset).checked_sub(HEADER_BYTES);
    let bitmap = bitmap.ok_or(Fault::RecordValue("tuple header length"))?;
    let header = logged.expand(record.xid, update.new_xmax, block.blkno, update.new_item);
    // The prefix begins after the null bitmap, which is always in the record.
    let bitmap = if prefix.is_empty() {
        &[][..]
    } else {
        data.take(bitmap)?
    };
    let parts = [&header[..], bitmap, &prefix, data.rest(), &suffix];
    add_item(page, &parts, update.new_item, Place::Reuse)?;
    if update.flags & NEW_ALL_VISIBLE_CLEARED != 0 {
        set_flag(page, ALL_VISIBLE, false);
    }
    Ok(())
}

fn shared_with_old(
    page: &Page,
    item: u16,
    prefix: usize,
    suffix: usize,
) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    let tuple = Tuple::find(page, item)?;
    let bytes = tuple.bytes(page).get(tuple.data_offset(page)..);
    let bytes = bytes.ok_or(Fault::Item(item, "its header is longer than itself"))?;
    let suffix_at = bytes
        .len()
        .checked_sub(suffix)
        .ok_or(Fault::RecordValue("suffix"))?;
    let prefix = bytes.get(..prefix).ok_or(Fault::RecordValue("prefix"))?;
    Ok((prefix.to_vec(), bytes[suffix_at..].to_vec()))
}
