//! Insertion of one tuple or many.

use pg::wal::{Block, Record};

use super::change::Dialect;
use super::tuple::LoggedHeader;
use crate::fault::Fault;
use crate::fields::Fields;
use crate::page_item::{ALL_VISIBLE, Page, Place, add_item, set_flag};

const ALL_VISIBLE_CLEARED: u8 = 0x01;
const ALL_FROZEN_SET: u8 = 0x20;
/// With the above: last of several, speculative, whole tuple kept for decoding, in a TOAST table.
const FLAGS: u8 = 0x3f;

pub(super) fn insert(
    dialect: Dialect,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let (item, flags) = (main.u16()?, main.flags(FLAGS)?);
    main.expect_end()?;
    let mut data = Fields::new(block.data);
    let header = LoggedHeader::read(dialect, &mut data)?.expand(record.xid, 0, block.blkno, item);
    add_item(page, &[&header, data.rest()], item, Place::Reuse)?;
    set_visibility(page, flags);
    Ok(())
}

pub(super) fn multi_insert(
    dialect: Dialect,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let flags = main.flags(FLAGS)?;
    main.skip(1)?;
    let count = main.u16()?;
    let command = dialect.command(&mut main)?;
    let mut data = Fields::new(block.data);
    for number in 1..=count {
        // A new page is filled from its first item on.
        let item = if block.will_init() {
            number
        } else {
            main.u16()?
        };
        data.align2()?;
        let len = data.u16()?;
        let header = LoggedHeader::read_of_many(dialect, command, &mut data)?;
        let header = header.expand(record.xid, 0, block.blkno, item);
        add_item(
            page,
            &[&header, data.take(usize::from(len))?],
            item,
            Place::Reuse,
        )?;
    }
    main.expect_end()?;
    data.expect_end()?;
    set_visibility(page, flags);
    Ok(())
}

fn set_visibility(page: &mut Page, flags: u8) {
    if flags & ALL_VISIBLE_CLEARED != 0 {
        set_flag(page, ALL_VISIBLE, false);
    }
    if flags & ALL_FROZEN_SET != 0 {
        set_flag(page, ALL_VISIBLE, true);
    }
}
