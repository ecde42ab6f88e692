//! What a key can hold at an LSN: either its whole content, or a change of what it held before.
//!
//! Encoding: `tag 1 | length 4 | body`, little-endian, one after the other. A record of WAL may
//! change one key more than once (two VM bits of one page), so what a layer stores for a
//! (key, LSN) is a sequence of values in the order in which they apply.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ids::{Key, Lsn};

/// The status of a transaction in `pg_xact`; the numbers are PostgreSQL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum XidStatus {
    Committed = 1,
    Aborted = 2,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// The whole content.
    Image(Bytes),
    /// The whole content of a page: zeros.
    Zeros,
    /// The key names nothing from here on.
    Gone,
    /// What another key held at an LSN before: a read goes on there.
    CopyOf { key: Key, at: Lsn },
    /// No content comes of what is below, which is still needed: found in images alone.
    Below,
    /// A record that changes a page; with `will_init` it does not look at what was there.
    /// `logs_hints`: as [`redo::Settings`] has it.
    Record {
        will_init: bool,
        logs_hints: bool,
        block: u8,
        start: Lsn,
        record: Bytes,
    },
    /// Bits of the visibility map that a heap record clears without saying so in a block.
    VmClear { heap_block: u32, flags: u8 },
    /// A truncated heap: the bits of blocks from `heap_blocks` on are cleared.
    VmTruncate { heap_blocks: u32 },
    /// The end of transactions, on one page of `pg_xact`.
    ClogSet { status: XidStatus, xids: Vec<u32> },
    /// Bytes written into a page of an SLRU.
    Patch { offset: u16, bytes: Bytes },
    /// An item added to a sorted list of items of equal length.
    ListAdd(Bytes),
    /// An item removed from such a list.
    ListRemove(Bytes),
}

/// The bytes are not a sequence of values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a value cannot be read: {0}")]
pub(crate) struct ValueError(&'static str);

impl Value {
    /// Whether what was there before does not matter.
    pub(crate) fn is_base(&self) -> bool {
        matches!(
            self,
            Self::Image(_)
                | Self::Zeros
                | Self::Gone
                | Self::CopyOf { .. }
                | Self::Record {
                    will_init: true,
                    ..
                }
        )
    }

    fn encode(&self, out: &mut BytesMut) {
        let at = out.len();
        out.put_u8(0);
        out.put_u32_le(0);
        let tag = match self {
            Self::Image(bytes) => tagged(out, 0, bytes),
            Self::Zeros => 1,
            Self::Gone => 2,
            Self::CopyOf { key, at } => {
                out.put_slice(&key.0);
                out.put_u64_le(at.0);
                10
            }
            Self::Below => 11,
            Self::Record {
                will_init,
                logs_hints,
                block,
                start,
                record,
            } => {
                out.put_u8(u8::from(*will_init) | u8::from(*logs_hints) << 1);
                out.put_u8(*block);
                out.put_u64_le(start.0);
                tagged(out, 3, record)
            }
            Self::VmClear { heap_block, flags } => {
                out.put_u32_le(*heap_block);
                out.put_u8(*flags);
                4
            }
            Self::VmTruncate { heap_blocks } => {
                out.put_u32_le(*heap_blocks);
                5
            }
            Self::ClogSet { status, xids } => {
                out.put_u8(*status as u8);
                for xid in xids {
                    out.put_u32_le(*xid);
                }
                6
            }
            Self::Patch { offset, bytes } => {
                out.put_u16_le(*offset);
                tagged(out, 7, bytes)
            }
            Self::ListAdd(item) => tagged(out, 8, item),
            Self::ListRemove(item) => tagged(out, 9, item),
        };
        // A record is at most 1 GiB (XLogRecordMaxSize), everything else is far smaller.
        let length = u32::try_from(out.len() - at - 5).unwrap_or(u32::MAX);
        out[at] = tag;
        out[at + 1..at + 5].copy_from_slice(&length.to_le_bytes());
    }
}

fn tagged(out: &mut BytesMut, tag: u8, bytes: &[u8]) -> u8 {
    out.put_slice(bytes);
    tag
}

/// The values of one (key, LSN) as bytes.
pub(crate) fn encode(values: &[Value]) -> Bytes {
    let mut out = BytesMut::new();
    for value in values {
        value.encode(&mut out);
    }
    out.freeze()
}

/// The values of one (key, LSN), in the order in which they apply.
pub(crate) fn decode(mut bytes: Bytes) -> Result<Vec<Value>, ValueError> {
    let mut values = Vec::with_capacity(1);
    while !bytes.is_empty() {
        let tag = bytes.try_get_u8().map_err(|_| ValueError("no tag"))?;
        let length = bytes
            .try_get_u32_le()
            .map_err(|_| ValueError("no length"))? as usize;
        if length > bytes.len() {
            return Err(ValueError("longer than its entry"));
        }
        values.push(decode_one(tag, bytes.split_to(length))?);
    }
    Ok(values)
}

fn decode_one(tag: u8, mut body: Bytes) -> Result<Value, ValueError> {
    let short = |_| ValueError("shorter than its kind");
    let value = match tag {
        0 => return Ok(Value::Image(body)),
        1 => Value::Zeros,
        2 => Value::Gone,
        3 => {
            let flags = body.try_get_u8().map_err(short)?;
            if flags > 0b11 {
                return Err(ValueError("unknown flags of a record"));
            }
            let block = body.try_get_u8().map_err(short)?;
            let start = Lsn(body.try_get_u64_le().map_err(short)?);
            return Ok(Value::Record {
                will_init: flags & 1 != 0,
                logs_hints: flags & 2 != 0,
                block,
                start,
                record: body,
            });
        }
        4 => Value::VmClear {
            heap_block: body.try_get_u32_le().map_err(short)?,
            flags: body.try_get_u8().map_err(short)?,
        },
        5 => Value::VmTruncate {
            heap_blocks: body.try_get_u32_le().map_err(short)?,
        },
        6 => {
            let status = match body.try_get_u8().map_err(short)? {
                1 => XidStatus::Committed,
                2 => XidStatus::Aborted,
                _ => return Err(ValueError("unknown transaction status")),
            };
            let mut xids = Vec::with_capacity(body.len() / 4);
            while !body.is_empty() {
                xids.push(body.try_get_u32_le().map_err(short)?);
            }
            Value::ClogSet { status, xids }
        }
        7 => {
            let offset = body.try_get_u16_le().map_err(short)?;
            return Ok(Value::Patch {
                offset,
                bytes: body,
            });
        }
        8 => return Ok(Value::ListAdd(body)),
        9 => return Ok(Value::ListRemove(body)),
        10 => {
            let mut key = [0; Key::BYTES];
            body.try_copy_to_slice(&mut key).map_err(short)?;
            let at = Lsn(body.try_get_u64_le().map_err(short)?);
            Value::CopyOf { key: Key(key), at }
        }
        11 => Value::Below,
        _ => return Err(ValueError("unknown kind")),
    };
    if body.is_empty() {
        Ok(value)
    } else {
        Err(ValueError("longer than its kind"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Value> {
        vec![
            Value::Image(Bytes::from_static(b"whole")),
            Value::Zeros,
            Value::Gone,
            Value::CopyOf {
                key: Key([7; Key::BYTES]),
                at: Lsn(9),
            },
            Value::Below,
            Value::Record {
                will_init: true,
                logs_hints: true,
                block: 3,
                start: Lsn(0x10),
                record: Bytes::from_static(b"record"),
            },
            Value::VmClear {
                heap_block: 70_000,
                flags: 3,
            },
            Value::VmTruncate { heap_blocks: 9 },
            Value::ClogSet {
                status: XidStatus::Aborted,
                xids: vec![3, 700, u32::MAX],
            },
            Value::Patch {
                offset: 8188,
                bytes: Bytes::from_static(&[1, 2, 3, 4]),
            },
            Value::ListAdd(Bytes::from_static(b"item")),
            Value::ListRemove(Bytes::from_static(b"item")),
        ]
    }

    #[test]
    fn values_are_read_back_in_order() {
        assert_eq!(decode(encode(&samples())), Ok(samples()));
        assert_eq!(decode(Bytes::new()), Ok(vec![]));
    }

    #[test]
    fn cut_or_foreign_bytes_are_refused_and_never_panic() {
        for value in samples() {
            let whole = encode(std::slice::from_ref(&value));
            for cut in 1..whole.len() {
                assert!(
                    decode(whole.slice(..cut)).is_err(),
                    "{value:?} cut at {cut}"
                );
            }
            for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut damaged = whole.to_vec();
                damaged[at] ^= 1 << bit;
                let _ = decode(damaged.into());
            }
        }
        assert!(decode(Bytes::from_static(&[200, 0, 0, 0, 0])).is_err());
    }
}
