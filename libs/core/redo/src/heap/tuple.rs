//! The header of a table's tuple (`htup_details.h`), on a page and in a record.

use crate::fault::Fault;
use crate::fields::Fields;
use crate::index_tuple::tid;
use crate::page_item::{Page, State, item_range, pointer, put, u16_at};

/// The fixed part of a tuple header.
pub(crate) const HEADER_BYTES: usize = 23;

pub(crate) const COMBO_CID: u16 = 0x0020;
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

    pub(crate) fn bytes(self, page: &Page) -> &[u8] {
        page.get(self.start..self.start + self.len)
            .unwrap_or_default()
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
    pub(crate) fn replace_xmax(&mut self, infobits: u8) {
        self.infomask &= !(XMAX_BITS | MOVED);
        self.infomask2 &= !KEYS_UPDATED;
        for (bit, flag) in [
            (1, IS_MULTI),
            (2, LOCK_ONLY),
            (4, EXCLUSIVE_LOCK),
            (8, KEY_SHARE_LOCK),
        ] {
            if infobits & bit != 0 {
                self.infomask |= flag;
            }
        }
        if infobits & 0x10 != 0 {
            self.infomask2 |= KEYS_UPDATED;
        }
    }

    pub(crate) const fn is_only_locked(self) -> bool {
        self.infomask & LOCK_ONLY != 0 || self.infomask & (IS_MULTI | 0x0050) == EXCLUSIVE_LOCK
    }
}

/// The part of a tuple header that a record carries (`xl_heap_header`).
#[derive(Clone, Copy)]
pub(crate) struct LoggedHeader {
    infomask2: u16,
    infomask: u16,
    pub(crate) data_offset: u8,
}

impl LoggedHeader {
    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        let (infomask2, infomask) = (fields.u16()?, fields.u16()?);
        Ok(Self {
            infomask2,
            infomask,
            data_offset: fields.u8()?,
        })
    }

    /// The whole header of the tuple as it was written first.
    pub(crate) fn expand(self, xmin: u32, xmax: u32, block: u32, item: u16) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&xmin.to_le_bytes());
        bytes[4..8].copy_from_slice(&xmax.to_le_bytes());
        bytes[12..18].copy_from_slice(&tid(block, item));
        bytes[18..20].copy_from_slice(&self.infomask2.to_le_bytes());
        bytes[20..22].copy_from_slice(&(self.infomask & !COMBO_CID).to_le_bytes());
        bytes[22] = self.data_offset;
        bytes
    }
}
