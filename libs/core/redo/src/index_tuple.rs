//! Index tuples: a pointer of six bytes, then flags and the length in two (`itup.h`).

use crate::fault::Fault;
use crate::fields::Fields;
use crate::page_item::align8;

/// The length of what stands before a tuple's key.
pub(crate) const TUPLE_HEADER_BYTES: usize = 8;
/// The length of the pointer.
pub(crate) const TID_BYTES: usize = 6;
/// The bits of the last two bytes that are the length.
pub(crate) const SIZE_MASK: u16 = 0x1fff;

/// A block number as pointers have it: the high half first (`block.h`).
pub(crate) const fn block_bytes(block: u32) -> [u8; 4] {
    block.rotate_right(16).to_le_bytes()
}

/// A pointer to an item (`itemptr.h`).
pub(crate) fn tid(block: u32, item: u16) -> [u8; TID_BYTES] {
    let mut bytes = [0; TID_BYTES];
    bytes[..4].copy_from_slice(&block_bytes(block));
    bytes[4..].copy_from_slice(&item.to_le_bytes());
    bytes
}

/// The length that a tuple claims.
pub(crate) fn tuple_len(tuple: &[u8]) -> Result<usize, Fault> {
    let mut fields = Fields::new(tuple);
    fields.skip(TID_BYTES)?;
    let len = usize::from(fields.u16()? & SIZE_MASK);
    if len < TUPLE_HEADER_BYTES {
        return Err(Fault::RecordValue("index tuple length"));
    }
    Ok(len)
}

/// Takes a tuple and its padding off a payload.
pub(crate) fn take_tuple<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], Fault> {
    fields.take(align8(next_len(*fields)?))
}

/// Takes a tuple off a payload that has no padding.
pub(crate) fn take_packed_tuple<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], Fault> {
    fields.take(next_len(*fields)?)
}

fn next_len(mut fields: Fields<'_>) -> Result<usize, Fault> {
    tuple_len(fields.take(TUPLE_HEADER_BYTES)?)
}
