//! Updates: block 0 is the page of the new tuple, block 1 that of the old one where they differ.

use pg::wal::{Block, Record};

use super::change::{Change, Dialect, Infobits};
use super::tuple::{HEADER_BYTES, HOT_UPDATED, LoggedHeader, Tuple};
use crate::fault::Fault;
use crate::fields::Fields;
use crate::page_item::{ALL_VISIBLE, Page, Place, claim_item, put, set_flag, set_prunable};

const OLD_ALL_VISIBLE_CLEARED: u8 = 0x01;
const NEW_ALL_VISIBLE_CLEARED: u8 = 0x02;
/// The main data goes on with the old tuple, or its key, for logical decoding.
const CONTAINS_OLD: u8 = 0x0c;
const PREFIX_FROM_OLD: u8 = 0x20;
const SUFFIX_FROM_OLD: u8 = 0x40;
/// With the above: the whole new tuple was kept for logical decoding.
const FLAGS: u8 = 0x7f;

struct Update {
    old_xmax: u32,
    old_item: u16,
    old_infobits: Infobits,
    flags: u8,
    old_command: u32,
    new_xmax: u32,
    new_item: u16,
}

impl Update {
    fn read(dialect: Dialect, record: &Record) -> Result<Self, Fault> {
        let mut main = Fields::new(record.main_data);
        let update = Self {
            old_xmax: main.u32()?,
            old_item: main.u16()?,
            old_infobits: dialect.infobits(&mut main)?,
            flags: main.flags(FLAGS)?,
            old_command: dialect.command(&mut main)?,
            new_xmax: main.u32()?,
            new_item: main.u16()?,
        };
        if update.flags & CONTAINS_OLD == 0 {
            main.expect_end()?;
        }
        Ok(update)
    }
}

pub(super) fn redo(
    (change, dialect): (Change, Dialect),
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    let update = Update::read(dialect, record)?;
    let is_one_page = record.block(1).is_none();
    if change == Change::HotUpdate && !is_one_page {
        return Err(Fault::RecordValue("second page of a HOT update"));
    }
    if block.id == 1 || is_one_page {
        retire_old(change, record, &update, page)?;
    }
    if block.id == 0 {
        add_new(dialect, record, block, &update, page)?;
    }
    Ok(())
}

fn retire_old(
    change: Change,
    record: &Record,
    update: &Update,
    page: &mut Page,
) -> Result<(), Fault> {
    let new_block = record.block(0).ok_or(Fault::NoSuchBlock)?.blkno;
    let tuple = Tuple::find(page, update.old_item)?;
    let mut masks = tuple.masks(page)?;
    masks.replace_xmax(update.old_infobits);
    masks.set_combo(update.old_infobits.has(Infobits::COMBO));
    masks.infomask2 &= !HOT_UPDATED;
    if change == Change::HotUpdate {
        masks.infomask2 |= HOT_UPDATED;
    }
    tuple.set_masks(page, masks)?;
    tuple.set_xmax(page, update.old_xmax)?;
    tuple.set_field3(page, update.old_command)?;
    tuple.set_ctid(page, new_block, update.new_item)?;
    set_prunable(page, record.xid);
    if update.flags & OLD_ALL_VISIBLE_CLEARED != 0 {
        set_flag(page, ALL_VISIBLE, false);
    }
    Ok(())
}

fn add_new(
    dialect: Dialect,
    record: &Record,
    block: &Block,
    update: &Update,
    page: &mut Page,
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
    let shared = Shared::find(record, update, page, prefix, suffix)?;
    let logged = LoggedHeader::read(dialect, &mut data)?;
    let bitmap = usize::from(logged.data_offset).checked_sub(HEADER_BYTES);
    let bitmap = bitmap.ok_or(Fault::RecordValue("tuple header length"))?;
    let header = logged.expand(record.xid, update.new_xmax, block.blkno, update.new_item);
    // The prefix begins after the null bitmap, which is always in the record.
    let bitmap = data.take(if prefix == 0 { 0 } else { bitmap })?;
    let rest = data.rest();
    let len = HEADER_BYTES + bitmap.len() + prefix + rest.len() + suffix;
    let mut at = claim_item(page, update.new_item, len, Place::Reuse)?;
    for part in [&header, bitmap] {
        put(page, at, part)?;
        at += part.len();
    }
    // The old tuple lies above what was claimed: nothing of it has been written over.
    page.copy_within(shared.prefix_at..shared.prefix_at + prefix, at);
    at += prefix;
    put(page, at, rest)?;
    at += rest.len();
    page.copy_within(shared.suffix_at..shared.suffix_at + suffix, at);
    if update.flags & NEW_ALL_VISIBLE_CLEARED != 0 {
        set_flag(page, ALL_VISIBLE, false);
    }
    Ok(())
}

/// Where the bytes lie that the new tuple has in common with the old one.
struct Shared {
    prefix_at: usize,
    suffix_at: usize,
}

impl Shared {
    fn find(
        record: &Record,
        update: &Update,
        page: &Page,
        prefix: usize,
        suffix: usize,
    ) -> Result<Self, Fault> {
        if prefix + suffix == 0 {
            return Ok(Self {
                prefix_at: 0,
                suffix_at: 0,
            });
        }
        if record.block(1).is_some() {
            // Servers share bytes only inside a page: redo needs no other page.
            return Err(Fault::RecordValue("prefix or suffix from another page"));
        }
        let tuple = Tuple::find(page, update.old_item)?;
        let data_offset = tuple.data_offset(page);
        let data = tuple.len.checked_sub(data_offset);
        let data = data.ok_or(Fault::Item(
            update.old_item,
            "its header is longer than itself",
        ))?;
        if prefix > data || suffix > data {
            return Err(Fault::RecordValue("prefix or suffix length"));
        }
        Ok(Self {
            prefix_at: tuple.start + data_offset,
            suffix_at: tuple.start + tuple.len - suffix,
        })
    }
}
