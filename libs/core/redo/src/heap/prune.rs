//! Pruning and vacuuming: two records up to 16, one from 17 on, which freezes too.

use pg::PgMajor;
use pg::wal::{Block, Record};

use super::freeze::Plans;
use crate::fault::Fault;
use crate::fields::{Fields, Offsets};
use crate::page_compact::{repair_fragmentation, truncate_line_pointers};
use crate::page_item::{Page, Pointer, set_pointer};

/// `XLOG_HEAP2_PRUNE`, up to 16.
pub(super) fn prune(
    version: PgMajor,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    main.skip(4)?; // the conflict horizon
    let (redirects, dead) = (usize::from(main.u16()?), usize::from(main.u16()?));
    if version >= PgMajor::V16 {
        main.flags(1)?; // whether the table is a catalogue
    }
    main.expect_end()?;
    let mut data = Fields::new(block.data);
    redirect(page, data.offsets(redirects * 2)?)?;
    set_all(page, data.offsets(dead)?, Pointer::DEAD)?;
    // The rest is not counted.
    let unused = (block.data.len() / 2).saturating_sub(redirects * 2 + dead);
    set_all(page, data.offsets(unused)?, Pointer::UNUSED)?;
    data.expect_end()?;
    repair_fragmentation(page, version)
}

/// `XLOG_HEAP2_VACUUM`, up to 16.
pub(super) fn vacuum(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let count = main.u16()?;
    main.expect_end()?;
    let mut data = Fields::new(block.data);
    set_all(page, data.offsets(usize::from(count))?, Pointer::UNUSED)?;
    data.expect_end()?;
    truncate_line_pointers(page)
}

const IS_CATALOG: u8 = 0x02;
const CLEANUP_LOCK: u8 = 0x04;
const HAS_HORIZON: u8 = 0x08;
const HAS_PLANS: u8 = 0x10;
const HAS_REDIRECTS: u8 = 0x20;
const HAS_DEAD: u8 = 0x40;
const HAS_UNUSED: u8 = 0x80;
const FLAGS: u8 = 0xfe;
const _: () = assert!(
    FLAGS
        == IS_CATALOG
            | CLEANUP_LOCK
            | HAS_HORIZON
            | HAS_PLANS
            | HAS_REDIRECTS
            | HAS_DEAD
            | HAS_UNUSED
);

/// `XLOG_HEAP2_PRUNE_*`, 17 on: every part is there only if its flag says so.
pub(super) fn combined(
    version: PgMajor,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    let flags = read_flags(record)?;
    let mut data = Fields::new(block.data);
    let mut plans = Plans::default();
    if flags & HAS_PLANS != 0 {
        let count = data.u16()?;
        data.skip(2)?;
        plans = Plans::take(&mut data, count)?;
    }
    if flags & HAS_REDIRECTS != 0 {
        let count = usize::from(data.u16()?);
        redirect(page, data.offsets(count * 2)?)?;
    }
    for (flag, to) in [(HAS_DEAD, Pointer::DEAD), (HAS_UNUSED, Pointer::UNUSED)] {
        if flags & flag != 0 {
            let count = usize::from(data.u16()?);
            set_all(page, data.offsets(count)?, to)?;
        }
    }
    if flags & (HAS_REDIRECTS | HAS_DEAD | HAS_UNUSED) != 0 {
        if flags & CLEANUP_LOCK != 0 {
            repair_fragmentation(page, version)?;
        } else {
            truncate_line_pointers(page)?;
        }
    }
    plans.apply(page, &mut data)?;
    data.expect_end()
}

fn read_flags(record: &Record) -> Result<u8, Fault> {
    let mut main = Fields::new(record.main_data);
    main.skip(1)?; // the reason, which says nothing that the flags do not
    let flags = main.flags(FLAGS)?;
    if flags & HAS_HORIZON != 0 {
        main.skip(4)?;
    }
    main.expect_end()?;
    if flags & CLEANUP_LOCK == 0 && flags & (HAS_REDIRECTS | HAS_DEAD) != 0 {
        return Err(Fault::RecordValue("pruning without the lock it needs"));
    }
    Ok(flags)
}

fn redirect(page: &mut Page, pairs: Offsets<'_>) -> Result<(), Fault> {
    let mut numbers = pairs.iter();
    while let (Some(from), Some(to)) = (numbers.next(), numbers.next()) {
        set_pointer(page, from, Pointer::redirect(to))?;
    }
    Ok(())
}

fn set_all(page: &mut Page, items: Offsets<'_>, to: Pointer) -> Result<(), Fault> {
    items
        .iter()
        .try_for_each(|item| set_pointer(page, item, to))
}
