//! Posting lists: rows in ascending order, as the first one and the distances to each next one
//! (`ginpostinglist.c`).

use super::page::take_block;
use crate::fault::Fault;
use crate::fields::Fields;
use crate::index_tuple::{TID_BYTES, block_bytes};

const DAMAGED: Fault = Fault::RecordValue("posting list");

/// The bits of a row's number that say which item of its block it is.
const ITEM_BITS: u32 = 11;
/// The bits of a row's number.
const ROW_BITS: u32 = 32 + ITEM_BITS;
/// The bytes before the distances: the first row, and how many bytes there are.
const HEADER_BYTES: usize = TID_BYTES + 2;
/// The length of the longest list.
const BYTES_MAX: usize = pg::page::BLOCK;

/// The number of a row, which ascends as rows do.
pub(super) fn take_row(fields: &mut Fields<'_>) -> Result<u64, Fault> {
    let (block, item) = (take_block(fields)?, fields.u16()?);
    if item >> ITEM_BITS != 0 {
        return Err(DAMAGED);
    }
    Ok(u64::from(block) << ITEM_BITS | u64::from(item))
}

/// Takes a list off the front, with the byte that makes its length even.
pub(super) fn take_list<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], Fault> {
    let mut ahead = *fields;
    ahead.skip(TID_BYTES)?;
    let len = usize::from(ahead.u16()?).next_multiple_of(2);
    fields.take(HEADER_BYTES + len)
}

/// The rows of a list.
pub(super) fn rows(list: &[u8]) -> Result<Rows<'_>, Fault> {
    let mut fields = Fields::new(list);
    let first = take_row(&mut fields)?;
    let len = usize::from(fields.u16()?);
    Ok(Rows {
        next: Some(first),
        distances: Fields::new(fields.take(len)?),
    })
}

pub(super) struct Rows<'a> {
    next: Option<u64>,
    distances: Fields<'a>,
}

impl Rows<'_> {
    fn after(&mut self, row: u64) -> Result<Option<u64>, Fault> {
        if self.distances.is_at_end() {
            return Ok(None);
        }
        let mut distance = 0;
        for shift in (0..ROW_BITS).step_by(7) {
            let byte = self.distances.u8()?;
            distance |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let next = row + distance;
                return if next >> ROW_BITS == 0 {
                    Ok(Some(next))
                } else {
                    Err(DAMAGED)
                };
            }
        }
        Err(DAMAGED)
    }

    pub(super) const fn peek(&self) -> Option<u64> {
        self.next
    }

    pub(super) fn advance(&mut self) -> Result<(), Fault> {
        if let Some(row) = self.next {
            self.next = self.after(row)?;
        }
        Ok(())
    }
}

/// A list that is being made.
pub(super) struct ListWriter {
    bytes: Vec<u8>,
    last: u64,
}

impl ListWriter {
    pub(super) fn begin(row: u64) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend(block_bytes((row >> ITEM_BITS) as u32));
        bytes.extend(((row as u16) & ((1 << ITEM_BITS) - 1)).to_le_bytes());
        bytes.extend([0; 2]);
        Self { bytes, last: row }
    }

    /// Adds a row, which comes after those before.
    pub(super) fn push(&mut self, row: u64) -> Result<(), Fault> {
        let distance = row.checked_sub(self.last).filter(|distance| *distance > 0);
        let mut distance = distance.ok_or(DAMAGED)?;
        self.last = row;
        while distance > 0x7f {
            self.bytes.push(distance as u8 | 0x80);
            distance >>= 7;
        }
        self.bytes.push(distance as u8);
        if self.bytes.len() > BYTES_MAX {
            return Err(Fault::PageFull);
        }
        Ok(())
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        let len = (self.bytes.len() - HEADER_BYTES) as u16;
        self.bytes[TID_BYTES..HEADER_BYTES].copy_from_slice(&len.to_le_bytes());
        if !len.is_multiple_of(2) {
            self.bytes.push(0);
        }
        self.bytes
    }
}
