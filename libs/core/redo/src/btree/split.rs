//! Insertion and page splits.

use pg::wal::{Block, Record};

use super::page::{INCOMPLETE_SPLIT, LEAF, Opaque, emptied, swap_posting};
use crate::fault::Fault;
use crate::fields::{Fields, expect_no_data};
use crate::index_tuple::take_tuple;
use crate::page_item::{Page, Place, add_item, item_bytes, item_range, put};

pub(super) fn insert(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    add_item(page, &[block.data], item(record)?, Place::Insert)
}

/// The number that the new item gets, all that the record says of itself.
fn item(record: &Record) -> Result<u16, Fault> {
    let mut main = Fields::new(record.main_data);
    let item = main.u16()?;
    main.expect_end()?;
    Ok(item)
}

/// The new row falls into the middle of the list in the item before.
pub(super) fn insert_post(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let item = item(record)?;
    let mut data = Fields::new(block.data);
    let at = data.u16()?;
    let before = item.checked_sub(1).ok_or(Fault::NoSuchItem(0))?;
    let (new, list) = swap_posting(data.rest(), item_bytes(page, before)?, at)?;
    let start = item_range(page, before)?.start;
    put(page, start, &list)?;
    add_item(page, &[&new], item, Place::Insert)
}

/// The parent now has the downlink that this page's split was missing.
pub(super) fn clear_incomplete_split(block: &Block, page: &mut Page) -> Result<(), Fault> {
    expect_no_data(block)?;
    let mut opaque = Opaque::read(page)?;
    opaque.flags &= !INCOMPLETE_SPLIT;
    opaque.write(page)
}

pub(super) struct Split {
    level: u32,
    first_right: u16,
    new_item: u16,
    posting_at: u16,
    new_is_left: bool,
}

impl Split {
    pub(super) fn read(record: &Record, new_is_left: bool) -> Result<Self, Fault> {
        let mut main = Fields::new(record.main_data);
        let split = Self {
            level: main.u32()?,
            first_right: main.u16()?,
            new_item: main.u16()?,
            posting_at: main.u16()?,
            new_is_left,
        };
        main.expect_end()?;
        Ok(split)
    }

    const fn leaf_flag(&self) -> u16 {
        if self.level == 0 { LEAF } else { 0 }
    }

    /// The new right page: everything on it is in the record.
    pub(super) fn right(
        &self,
        record: &Record,
        block: &Block,
        page: &mut Page,
    ) -> Result<(), Fault> {
        let prev = record.block(0).ok_or(Fault::NoSuchBlock)?.blkno;
        let next = record.block(2).map_or(0, |block| block.blkno);
        let (level, flags) = (self.level, self.leaf_flag());
        Opaque {
            prev,
            next,
            level,
            flags,
            cycle: 0,
        }
        .init(page)?;
        restore_items(page, block.data)
    }

    /// The old page keeps the items before the split point, under a new high key.
    pub(super) fn left(
        &self,
        record: &Record,
        block: &Block,
        page: &mut Page,
    ) -> Result<(), Fault> {
        let mut data = Fields::new(block.data);
        let mut new = None;
        let mut replaced = None;
        if self.new_is_left || self.posting_at != 0 {
            let tuple = take_tuple(&mut data)?;
            new = Some(tuple.to_vec());
            if self.posting_at != 0 {
                let item = self.new_item.checked_sub(1).ok_or(Fault::NoSuchItem(0))?;
                let (tuple, list) = swap_posting(tuple, item_bytes(page, item)?, self.posting_at)?;
                new = Some(tuple);
                replaced = Some((item, list));
            }
        }
        let new = new.filter(|_| self.new_is_left);
        let high_key = take_tuple(&mut data)?;
        data.expect_end()?;
        let mut opaque = Opaque::read(page)?;
        let mut left = emptied(page)?;
        let mut at = 1;
        let mut push = |tuple: &[u8]| {
            at += 1;
            add_item(&mut left, &[tuple], at - 1, Place::Insert)
        };
        push(high_key)?;
        for item in opaque.first_data_item()..self.first_right {
            if let Some(new) = new.as_ref().filter(|_| item == self.new_item) {
                push(new)?;
            }
            match &replaced {
                Some((replaced, list)) if *replaced == item => push(list)?,
                _ => push(item_bytes(page, item)?)?,
            }
        }
        if let Some(new) = new.as_ref().filter(|_| self.first_right == self.new_item) {
            push(new)?;
        }
        *page = left;
        opaque.flags = INCOMPLETE_SPLIT | self.leaf_flag();
        opaque.next = record.block(1).ok_or(Fault::NoSuchBlock)?.blkno;
        opaque.cycle = 0;
        opaque.write(page)
    }
}

/// Adds items that the record holds as they lay on the page: the last one first.
pub(super) fn restore_items(page: &mut Page, data: &[u8]) -> Result<(), Fault> {
    let mut fields = Fields::new(data);
    let mut tuples = Vec::new();
    while !fields.is_at_end() {
        tuples.push(take_tuple(&mut fields)?);
    }
    for (item, tuple) in (1..).zip(tuples.into_iter().rev()) {
        add_item(page, &[tuple], item, Place::Insert)?;
    }
    Ok(())
}
