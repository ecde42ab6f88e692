//! What a B-tree keeps on its pages: the special space, tuples and posting lists (`nbtree.h`).

use crate::fault::Fault;
use crate::fields::Fields;
use crate::index_tuple::{SIZE_MASK, TID_BYTES, TUPLE_HEADER_BYTES, tuple_len};
use crate::page_item::{Page, align8, bounds, init, put, u16_at, u32_at};

pub(super) const LEAF: u16 = 0x01;
pub(super) const ROOT: u16 = 0x02;
pub(super) const DELETED: u16 = 0x04;
pub(super) const META: u16 = 0x08;
pub(super) const HALF_DEAD: u16 = 0x10;
pub(super) const HAS_GARBAGE: u16 = 0x40;
pub(super) const INCOMPLETE_SPLIT: u16 = 0x80;
pub(super) const HAS_FULL_XID: u16 = 0x100;

pub(super) const SPECIAL_BYTES: usize = 16;
const ALTERNATIVE_TID: u16 = 0x2000;
const IS_POSTING: u16 = 0x2000;
const COUNT_MASK: u16 = 0x0fff;

/// The special space of a page.
#[derive(Clone, Copy)]
pub(super) struct Opaque {
    pub(super) prev: u32,
    pub(super) next: u32,
    pub(super) level: u32,
    pub(super) flags: u16,
    pub(super) cycle: u16,
}

impl Opaque {
    pub(super) fn read(page: &Page) -> Result<Self, Fault> {
        let at = bounds(page)?.special;
        Ok(Self {
            prev: u32_at(page, at)?,
            next: u32_at(page, at + 4)?,
            level: u32_at(page, at + 8)?,
            flags: u16_at(page, at + 12)?,
            cycle: u16_at(page, at + 14)?,
        })
    }

    pub(super) fn write(self, page: &mut Page) -> Result<(), Fault> {
        let at = bounds(page)?.special;
        put(page, at, &self.prev.to_le_bytes())?;
        put(page, at + 4, &self.next.to_le_bytes())?;
        put(page, at + 8, &self.level.to_le_bytes())?;
        put(page, at + 12, &self.flags.to_le_bytes())?;
        put(page, at + 14, &self.cycle.to_le_bytes())
    }

    /// Makes an empty page with this special space.
    pub(super) fn init(self, page: &mut Page) -> Result<(), Fault> {
        init(page, SPECIAL_BYTES);
        self.write(page)
    }

    /// The first item that is not the high key; the rightmost page of a level has none.
    pub(super) const fn first_data_item(self) -> u16 {
        if self.next == 0 { 1 } else { 2 }
    }
}

/// An empty page with the special space of `page`, to fill in its place.
pub(super) fn emptied(page: &Page) -> Result<Page, Fault> {
    let opaque = Opaque::read(page)?;
    if bounds(page)?.special != page.len() - SPECIAL_BYTES {
        return Err(Fault::PageHeader);
    }
    let mut fresh = [0; pg::page::BLOCK];
    opaque.init(&mut fresh)?;
    Ok(fresh)
}

/// A tuple taken apart: the key with the tuple's header, and the table rows it points to.
pub(super) struct Posting<'a> {
    pub(super) key: &'a [u8],
    pub(super) tids: &'a [u8],
    pub(super) is_list: bool,
}

impl<'a> Posting<'a> {
    pub(super) fn read(tuple: &'a [u8]) -> Result<Self, Fault> {
        const DAMAGED: Fault = Fault::RecordValue("posting list");
        let len = tuple_len(tuple)?;
        let mut fields = Fields::new(tuple);
        let (high, low) = (fields.u16()?, fields.u16()?);
        let (count, info) = (fields.u16()?, fields.u16()?);
        if info & ALTERNATIVE_TID == 0 || count & IS_POSTING == 0 {
            let key = tuple.get(..len).ok_or(DAMAGED)?;
            return Ok(Self {
                key,
                tids: &tuple[..TID_BYTES],
                is_list: false,
            });
        }
        let at = (usize::from(high) << 16) | usize::from(low);
        let end = at + usize::from(count & COUNT_MASK) * TID_BYTES;
        let key = tuple
            .get(..at)
            .filter(|key| key.len() >= TUPLE_HEADER_BYTES);
        let tids = tuple.get(at..end).ok_or(DAMAGED)?;
        Ok(Self {
            key: key.ok_or(DAMAGED)?,
            tids,
            is_list: true,
        })
    }

    pub(super) const fn count(&self) -> usize {
        self.tids.len() / TID_BYTES
    }
}

/// Makes a tuple of a key and the rows it points to; a list only where there are several.
pub(super) fn form_posting(key: &[u8], tids: &[u8]) -> Result<Vec<u8>, Fault> {
    let count = tids.len() / TID_BYTES;
    let is_list = count > 1;
    let len = if is_list {
        align8(key.len() + tids.len())
    } else {
        key.len()
    };
    if len > usize::from(SIZE_MASK) || count == 0 || key.len() < TUPLE_HEADER_BYTES {
        return Err(Fault::RecordValue("posting list"));
    }
    let old_info = u16::from_le_bytes([key[6], key[7]]);
    let mut tuple = key.to_vec();
    let mut info = (old_info & !SIZE_MASK & !ALTERNATIVE_TID) | len as u16;
    if is_list {
        info |= ALTERNATIVE_TID;
        tuple[..2].fill(0);
        tuple[2..4].copy_from_slice(&(key.len() as u16).to_le_bytes());
        tuple[4..6].copy_from_slice(&(count as u16 & COUNT_MASK | IS_POSTING).to_le_bytes());
        tuple.extend_from_slice(tids);
        tuple.resize(len, 0);
    } else {
        tuple[..TID_BYTES].copy_from_slice(tids);
    }
    tuple[6..8].copy_from_slice(&info.to_le_bytes());
    Ok(tuple)
}

/// Puts a new tuple's row into the middle of a list, and the list's last row into the new tuple.
pub(super) fn swap_posting(new: &[u8], list: &[u8], at: u16) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    let old = Posting::read(list)?;
    let at = usize::from(at);
    if !old.is_list || at == 0 || at >= old.count() || new.len() < TUPLE_HEADER_BYTES {
        return Err(Fault::RecordValue("posting list offset"));
    }
    let (from, last) = (at * TID_BYTES, old.tids.len() - TID_BYTES);
    let start = old.key.len() + from;
    let mut list = list.to_vec();
    list[start..start + TID_BYTES].copy_from_slice(&new[..TID_BYTES]);
    list[start + TID_BYTES..old.key.len() + old.tids.len()].copy_from_slice(&old.tids[from..last]);
    let mut new = new.to_vec();
    new[..TID_BYTES].copy_from_slice(&old.tids[last..]);
    Ok((new, list))
}

/// The tuple without the rows at these places of its list.
pub(super) fn without_tids(
    tuple: &[u8],
    doomed: impl Iterator<Item = u16>,
) -> Result<Vec<u8>, Fault> {
    let old = Posting::read(tuple)?;
    let mut doomed = doomed.peekable();
    let mut kept = Vec::with_capacity(old.tids.len());
    for (place, tid) in old.tids.chunks_exact(TID_BYTES).enumerate() {
        if doomed.next_if(|next| usize::from(*next) == place).is_none() {
            kept.extend_from_slice(tid);
        }
    }
    if doomed.next().is_some() || !old.is_list {
        return Err(Fault::RecordValue("list of deleted rows"));
    }
    form_posting(old.key, &kept)
}
