//! Freezing: what becomes of the headers of tuples that all can see.

use pg::PgMajor;
use pg::wal::{Block, Record};

use super::tuple::{Masks, Tuple};
use crate::fault::Fault;
use crate::fields::Fields;
use crate::page_item::Page;

/// `XLOG_HEAP2_FREEZE_PAGE`, up to 16.
pub(super) fn redo(
    version: PgMajor,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    main.skip(4)?; // the conflict horizon
    let count = main.u16()?;
    let mut data = Fields::new(block.data);
    if version >= PgMajor::V16 {
        main.flags(1)?; // whether the table is a catalogue
        let plans = Plans::take(&mut data, count)?;
        plans.apply(page, &mut data)?;
    } else {
        for _ in 0..count {
            freeze_one(page, &mut data)?;
        }
    }
    main.expect_end()?;
    data.expect_end()
}

/// 14 and 15: a plan for each tuple, with the tuple inside it.
fn freeze_one(page: &mut Page, data: &mut Fields<'_>) -> Result<(), Fault> {
    let (xmax, item) = (data.u32()?, data.u16()?);
    let plan = Plan::read(xmax, data)?;
    data.skip(1)?;
    plan.apply(page, item)
}

/// From 16 on: plans, and elsewhere the tuples of each.
#[derive(Default)]
pub(super) struct Plans<'a>(&'a [u8]);

impl<'a> Plans<'a> {
    const PLAN_BYTES: usize = 12;

    pub(super) fn take(data: &mut Fields<'a>, count: u16) -> Result<Self, Fault> {
        data.take(usize::from(count) * Self::PLAN_BYTES).map(Self)
    }

    /// Carries the plans out on the tuples that `items` names, in order.
    pub(super) fn apply(&self, page: &mut Page, items: &mut Fields<'_>) -> Result<(), Fault> {
        for plan in self.0.chunks_exact(Self::PLAN_BYTES) {
            let mut fields = Fields::new(plan);
            let xmax = fields.u32()?;
            let plan = Plan::read(xmax, &mut fields)?;
            fields.skip(1)?;
            for _ in 0..fields.u16()? {
                plan.apply(page, items.u16()?)?;
            }
        }
        Ok(())
    }
}

/// What freezing makes of a tuple's header.
struct Plan {
    xmax: u32,
    masks: Masks,
    flags: u8,
}

impl Plan {
    const FREEZE_XVAC: u8 = 0x02;
    const INVALID_XVAC: u8 = 0x04;
    const FROZEN_XID: u32 = 2;

    /// Reads what follows `xmax` and, where it is inside, the tuple.
    fn read(xmax: u32, fields: &mut Fields<'_>) -> Result<Self, Fault> {
        let masks = Masks {
            infomask2: fields.u16()?,
            infomask: fields.u16()?,
        };
        let flags = fields.flags(Self::FREEZE_XVAC | Self::INVALID_XVAC)?;
        Ok(Self { xmax, masks, flags })
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
