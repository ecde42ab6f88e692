//! Big-endian fields of a message, read without trust and written back.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A message that is not what its tag promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends inside a field.
    #[error("the message ends inside {field}: {wanted} bytes wanted, {left} left")]
    Short {
        /// The field.
        field: &'static str,
        /// Its length.
        wanted: usize,
        /// What was left of the message.
        left: usize,
    },
    /// The message goes on after its last field.
    #[error("{left} bytes follow the last field of the message")]
    TrailingBytes {
        /// How many.
        left: usize,
    },
    /// No message of this protocol has this tag.
    #[error("unknown message tag {tag}")]
    UnknownTag {
        /// The tag.
        tag: u8,
    },
    /// A field holds a value that it cannot have.
    #[error("{field} has the impossible value {value}")]
    BadValue {
        /// The field.
        field: &'static str,
        /// The value as a number; for text its length.
        value: u64,
    },
}

/// Reads fields off the front of a message.
pub(super) struct Fields(pub(super) Bytes);

impl Fields {
    pub(super) fn bytes(&mut self, field: &'static str, n: usize) -> Result<Bytes, WireError> {
        let left = self.0.len();
        if left < n {
            return Err(WireError::Short {
                field,
                wanted: n,
                left,
            });
        }
        Ok(self.0.split_to(n))
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        Ok(self.bytes(field, 1)?.get_u8())
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        Ok(self.bytes(field, 2)?.get_u16())
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        Ok(self.bytes(field, 4)?.get_u32())
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        Ok(self.bytes(field, 8)?.get_u64())
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64, WireError> {
        Ok(self.bytes(field, 8)?.get_i64())
    }

    /// A byte that is 0 or 1 and nothing else.
    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool, WireError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(WireError::BadValue {
                field,
                value: u64::from(other),
            }),
        }
    }

    /// Text up to a zero byte.
    pub(super) fn text(&mut self, field: &'static str) -> Result<String, WireError> {
        let left = self.0.len();
        let end = self.0.iter().position(|b| *b == 0);
        let end = end.ok_or(WireError::Short {
            field,
            wanted: left + 1,
            left,
        })?;
        let bytes = self.bytes(field, end)?;
        self.0.advance(1);
        String::from_utf8(bytes.to_vec()).map_err(|_| WireError::BadValue {
            field,
            value: end as u64,
        })
    }

    /// A count of entries of at least `entry_bytes`, refused before anything of that size is kept.
    pub(super) fn count(
        &mut self,
        field: &'static str,
        entry_bytes: usize,
    ) -> Result<usize, WireError> {
        let n = self.u32(field)? as usize;
        let (wanted, left) = (n.saturating_mul(entry_bytes), self.0.len());
        if wanted > left {
            Err(WireError::Short {
                field,
                wanted,
                left,
            })
        } else {
            Ok(n)
        }
    }

    pub(super) fn end(self) -> Result<(), WireError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(WireError::TrailingBytes { left }),
        }
    }
}

/// Writes text and its closing zero. Text with a zero inside would be read as something else, so
/// it is cut there.
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    out.put_slice(text.split('\0').next().unwrap_or_default().as_bytes());
    out.put_u8(0);
}
