//! The header of a table's tuple (`htup_details.h`), on a page and in a record.

use super::change::{Dialect, Infobits};
use crate::fault::Fault;
use crate::fields::Fields;
use crate::index_tuple::tid;
use crate::page_item::{Page, State, item_range, pointer, put, u16_at};

/// The fixed part of a tuple header.
pub(crate) const HEADER_BYTES: usize = 23;

const COMBO_CID: u16 = 0x0020;
pub(crate) const HOT_UPDATED: u16 = 0x4000;
const KEYS_UPDATED: u16 = 0x2000;
const KEY_SHARE_LOCK: u16 = 0x0010;
const EXCLUSIVE_LOCK: u16 = 0x0040;
const LOCK_ONLY: u16 = 0x0080;
const IS_MULTI: u16 = 0x1000;
const XMAX_BITS: u16 = 0x0400 | 0x0800 | IS_MULTI | 0x0050 | LOCK_ONLY;
const MOVED: u16 = 0xC000;

/// A tuple on a page, by where it begins; the whole header lies on the page.
#[derive(Clone, Copy)]
pub(crate) struct Tuple {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Tuple {
    pub(crate) fn find(page: &Page, item: u16) -> Result<Self, Fault> {
        if pointer(page, item)?.state != State::Normal {
            return Err(Fault::Item(item, "it is not a tuple"));
        }
        let range = item_range(page, item)?;
        if range.len() < HEADER_BYTES {
            return Err(Fault::Item(item, "it is shorter than a tuple header"));
        }
        Ok(Self {
            start: range.start,
            len: range.len(),
        })
    }

    pub(crate) fn set_xmin(self, page: &mut Page, xid: u32) -> Result<(), Fault> {
        put(page, self.start, &xid.to_le_bytes())
    }

    pub(crate) fn set_xmax(self, page: &mut Page, xid: u32) -> Result<(), Fault> {
        put(page, self.start + 4, &xid.to_le_bytes())
    }

    /// The field that holds the command id, or `xvac` of a tuple moved by an ancient VACUUM.
    pub(crate) fn set_field3(self, page: &mut Page, value: u32) -> Result<(), Fault> {
        put(page, self.start + 8, &value.to_le_bytes())
    }

    pub(crate) fn set_ctid(self, page: &mut Page, block: u32, item: u16) -> Result<(), Fault> {
        put(page, self.start + 12, &tid(block, item))
    }

    pub(crate) fn masks(self, page: &Page) -> Result<Masks, Fault> {
        Ok(Masks {
            infomask2: u16_at(page, self.start + 18)?,
            infomask: u16_at(page, self.start + 20)?,
        })
    }

    pub(crate) fn set_masks(self, page: &mut Page, masks: Masks) -> Result<(), Fault> {
        put(page, self.start + 18, &masks.infomask2.to_le_bytes())?;
        put(page, self.start + 20, &masks.infomask.to_le_bytes())
    }

    pub(crate) fn data_offset(self, page: &Page) -> usize {
        page.get(self.start + 22).copied().map_or(0, usize::from)
    }
}

/// `t_infomask` and `t_infomask2`.
#[derive(Clone, Copy)]
pub(crate) struct Masks {
    pub(crate) infomask: u16,
    pub(crate) infomask2: u16,
}

impl Masks {
    /// Forgets who updated or locked the tuple, and puts down what the record says.
    pub(super) fn replace_xmax(&mut self, infobits: Infobits) {
        self.infomask &= !(XMAX_BITS | MOVED);
        self.infomask2 &= !KEYS_UPDATED;
        for (bit, flag) in [
            (Infobits::IS_MULTI, IS_MULTI),
            (Infobits::LOCK_ONLY, LOCK_ONLY),
            (Infobits::EXCLUSIVE_LOCK, EXCLUSIVE_LOCK),
            (Infobits::KEY_SHARE_LOCK, KEY_SHARE_LOCK),
        ] {
            if infobits.has(bit) {
                self.infomask |= flag;
            }
        }
        if infobits.has(Infobits::KEYS_UPDATED) {
            self.infomask2 |= KEYS_UPDATED;
        }
    }

    /// Whether the command id stands for that of the insert and that of the delete.
    pub(crate) const fn set_combo(&mut self, is_combo: bool) {
        self.infomask &= !COMBO_CID;
        if is_combo {
            self.infomask |= COMBO_CID;
        }
    }

    pub(crate) const fn is_only_locked(self) -> bool {
        self.infomask & LOCK_ONLY != 0 || self.infomask & (IS_MULTI | 0x0050) == EXCLUSIVE_LOCK
    }
}

/// The part of a tuple header that a record carries (`xl_heap_header`, `xl_neon_heap_header`).
#[derive(Clone, Copy)]
pub(super) struct LoggedHeader {
    masks: Masks,
    command: u32,
    pub(super) data_offset: u8,
}

impl LoggedHeader {
    pub(super) fn read(dialect: Dialect, fields: &mut Fields<'_>) -> Result<Self, Fault> {
        let masks = Self::read_masks(dialect, fields)?;
        Ok(Self {
            masks,
            command: dialect.command(fields)?,
            data_offset: fields.u8()?,
        })
    }

    /// One of many tuples of a record, which are all of one command.
    pub(super) fn read_of_many(
        dialect: Dialect,
        command: u32,
        fields: &mut Fields<'_>,
    ) -> Result<Self, Fault> {
        let masks = Self::read_masks(dialect, fields)?;
        Ok(Self {
            masks,
            command,
            data_offset: fields.u8()?,
        })
    }

    fn read_masks(dialect: Dialect, fields: &mut Fields<'_>) -> Result<Masks, Fault> {
        let mut masks = Masks {
            infomask2: fields.u16()?,
            infomask: fields.u16()?,
        };
        if dialect == Dialect::Stock {
            masks.set_combo(false);
        }
        Ok(masks)
    }

    /// The whole header of the tuple as it was written first.
    pub(crate) fn expand(self, xmin: u32, xmax: u32, block: u32, item: u16) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&xmin.to_le_bytes());
        bytes[4..8].copy_from_slice(&xmax.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.command.to_le_bytes());
        bytes[12..18].copy_from_slice(&tid(block, item));
        bytes[18..20].copy_from_slice(&self.masks.infomask2.to_le_bytes());
        bytes[20..22].copy_from_slice(&self.masks.infomask.to_le_bytes());
        bytes[22] = self.data_offset;
        bytes
    }
}
