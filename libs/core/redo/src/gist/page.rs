//! The special space of a GiST page (`gist.h`).

use crate::fault::Fault;
use crate::page_item::{Page, bounds, init, put, u16_at, u32_at};

pub(super) const LEAF: u16 = 0x01;
pub(super) const DELETED: u16 = 0x02;
/// Items of a leaf were removed. Nothing reads it, and 15 did without it.
pub(super) const TUPLES_DELETED: u16 = 0x04;
/// The page on the right has no downlink yet.
pub(super) const FOLLOW_RIGHT: u16 = 0x08;
pub(super) const HAS_GARBAGE: u16 = 0x10;

pub(super) const NO_BLOCK: u32 = u32::MAX;

const SPECIAL_BYTES: usize = 16;
const PAGE_ID: u16 = 0xFF81;

#[derive(Clone, Copy)]
pub(super) struct Opaque {
    /// The LSN of the last split, by which scans notice it.
    pub(super) split_lsn: u64,
    pub(super) right: u32,
    pub(super) flags: u16,
}

impl Opaque {
    pub(super) fn read(page: &Page) -> Result<Self, Fault> {
        let at = bounds(page)?.special;
        let (high, low) = (u32_at(page, at)?, u32_at(page, at + 4)?);
        Ok(Self {
            split_lsn: u64::from(high) << 32 | u64::from(low),
            right: u32_at(page, at + 8)?,
            flags: u16_at(page, at + 12)?,
        })
    }

    pub(super) fn write(self, page: &mut Page) -> Result<(), Fault> {
        let at = bounds(page)?.special;
        put(page, at, &((self.split_lsn >> 32) as u32).to_le_bytes())?;
        put(page, at + 4, &(self.split_lsn as u32).to_le_bytes())?;
        put(page, at + 8, &self.right.to_le_bytes())?;
        put(page, at + 12, &self.flags.to_le_bytes())
    }

    /// Makes an empty page with this special space.
    pub(super) fn init(self, page: &mut Page) -> Result<(), Fault> {
        init(page, SPECIAL_BYTES);
        put(page, page.len() - 2, &PAGE_ID.to_le_bytes())?;
        self.write(page)
    }
}
