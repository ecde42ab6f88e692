//! Pruning, vacuuming and freezing: three records up to 16, one from 17 on.

use pg::PgMajor;
use pg::wal::{Block, Record};

use super::tuple::{Masks, Tuple};
use crate::fault::Fault;
use crate::fields::{Fields, Offsets};
use crate::page_compact::{repair_fragmentation, truncate_line_pointers};
use crate::page_item::{Page, Pointer, set_pointer};

pub(super) fn prune(
    version: PgMajor,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    main.skip(4)?; // the conflict horizon
    let (redirects, dead) = (usize::from(main.u16()?), usize::from(main.u16()?));
    let mut data = Fields::new(block.data);
    redirect(page, data.offsets(redirects * 2)?)?;
    set_all(page, data.offsets(dead)?, Pointer::DEAD)?;
    set_all(
        page,
        data.offsets(data_left(block, redirects * 2 + dead))?,
        Pointer::UNUSED,
    )?;
    data.expect_end()?;
    repair_fragmentation(page, version)
}

/// The item numbers of a block's payload after the first `taken`.
fn data_left(block: &Block, taken: usize) -> usize {
    (block.data.len() / 2).saturating_sub(taken)
}

pub(super) fn vacuum(block: &Block, page: &mut Page) -> Result<(), Fault> {
    let unused = Fields::new(block.data).offsets(data_left(block, 0))?;
    set_all(page, unused, Pointer::UNUSED)?;
    truncate_line_pointers(page)
}

/// 14 and 15: a plan for each tuple.
pub(super) fn freeze(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    main.skip(4)?;
    let mut data = Fields::new(block.data);
    for _ in 0..main.u16()? {
        let (xmax, item) = (data.u32()?, data.u16()?);
        let masks = Masks {
            infomask2: data.u16()?,
            infomask: data.u16()?,
        };
        let plan = Plan {
            xmax,
            masks,
            flags: data.u8()?,
            count: 1,
        };
        data.skip(1)?;
        plan.apply(page, item)?;
    }
    data.expect_end()
}

/// 16: plans, then the tuples of each.
pub(super) fn freeze_plans(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    main.skip(4)?;
    let count = main.u16()?;
    let mut data = Fields::new(block.data);
    let plans = Plan::read_many(&mut data, count)?;
    Plan::apply_many(page, &plans, &mut data)?;
    data.expect_end()
}

const CLEANUP_LOCK: u8 = 0x04;
const HAS_PLANS: u8 = 0x10;
const HAS_REDIRECTS: u8 = 0x20;
const HAS_DEAD: u8 = 0x40;
const HAS_UNUSED: u8 = 0x80;

/// 17 on: every part is there only if its flag says so.
pub(super) fn combined(
    version: PgMajor,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    main.skip(1)?; // the reason
    let flags = main.u8()?;
    let mut data = Fields::new(block.data);
    let mut plans = Vec::new();
    if flags & HAS_PLANS != 0 {
        let count = data.u16()?;
        data.skip(2)?;
        plans = Plan::read_many(&mut data, count)?;
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
    Plan::apply_many(page, &plans, &mut data)?;
    data.expect_end()
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

/// What freezing makes of a tuple's header.
struct Plan {
    xmax: u32,
    masks: Masks,
    flags: u8,
    count: u16,
}

impl Plan {
    const FREEZE_XVAC: u8 = 0x02;
    const INVALID_XVAC: u8 = 0x04;
    const FROZEN_XID: u32 = 2;

    fn read_many(data: &mut Fields<'_>, count: u16) -> Result<Vec<Self>, Fault> {
        (0..count)
            .map(|_| {
                let xmax = data.u32()?;
                let masks = Masks {
                    infomask2: data.u16()?,
                    infomask: data.u16()?,
                };
                let flags = data.u8()?;
                data.skip(1)?;
                Ok(Self {
                    xmax,
                    masks,
                    flags,
                    count: data.u16()?,
                })
            })
            .collect()
    }

    fn apply_many(page: &mut Page, plans: &[Self], data: &mut Fields<'_>) -> Result<(), Fault> {
        for plan in plans {
            for _ in 0..plan.count {
                plan.apply(page, data.u16()?)?;
            }
        }
        Ok(())
    }

    fn apply(&self, page: &mut Page, item: u16) -> Result<(), Fault> {
        let tuple = Tuple::find(page, item)?;
        tuple.set_xmax(page, self.xmax)?;
        if self.flags & Self::FREEZE_XVAC != 0 {
            tuple.set_field3(page, Self::FROZEN_XID)?;
        }
        if self.flags & Self::INVALID_XVAC != 0 {
            tuple.set_field3(page, 0)?;
        }
        tuple.set_masks(page, self.masks)
    }
}
