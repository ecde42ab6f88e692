//! Reads the fields of a payload, and names the one that is wrong.

use bytes::Bytes;
use ids::{Fork, Lsn, RelTag};

use super::xact::RelFile;
use crate::PgMajor;
use crate::cursor::Cursor;
use crate::wal::Malformed;

/// The unread rest of a payload.
pub(super) struct Fields<'a> {
    all: &'a [u8],
    cursor: Cursor<'a>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(all: &'a [u8]) -> Self {
        Self {
            all,
            cursor: Cursor::new(all),
        }
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.cursor.u8().ok_or(Malformed::Truncated(what))
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        self.cursor.u16().ok_or(Malformed::Truncated(what))
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.cursor.u32().ok_or(Malformed::Truncated(what))
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.cursor.u64().ok_or(Malformed::Truncated(what))
    }

    pub(super) fn i64(&mut self, what: &'static str) -> Result<i64, Malformed> {
        self.u64(what).map(u64::cast_signed)
    }

    pub(super) fn lsn(&mut self, what: &'static str) -> Result<Lsn, Malformed> {
        self.u64(what).map(Lsn)
    }

    /// A C `bool`: any other value means that this is not what it is taken for.
    pub(super) fn bool(&mut self, what: &'static str) -> Result<bool, Malformed> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(Malformed::Field {
                what,
                value: u64::from(value),
            }),
        }
    }

    /// A C `int` that is never negative.
    pub(super) fn count(&mut self, what: &'static str) -> Result<u32, Malformed> {
        let value = self.u32(what)?;
        if value > i32::MAX as u32 {
            return Err(Malformed::Field {
                what,
                value: u64::from(value),
            });
        }
        Ok(value)
    }

    /// The page of an SLRU: an `int` before 17, an `int64` since. None has more pages than either
    /// can count.
    pub(super) fn slru_page(
        &mut self,
        version: PgMajor,
        what: &'static str,
    ) -> Result<u32, Malformed> {
        if version < PgMajor::V17 {
            return self.count(what);
        }
        let value = self.u64(what)?;
        u32::try_from(value).map_err(|_| Malformed::Field { what, value })
    }

    /// A `wal_level`: 0 minimal, 1 replica, 2 logical.
    pub(super) fn wal_level(&mut self) -> Result<u32, Malformed> {
        let value = self.u32("wal_level")?;
        if value > 2 {
            return Err(Malformed::Field {
                what: "wal_level",
                value: u64::from(value),
            });
        }
        Ok(value)
    }

    /// Padding of a C struct; its content is whatever stood on the stack.
    pub(super) fn skip(&mut self, bytes: usize, what: &'static str) -> Result<(), Malformed> {
        self.slice(bytes, what).map(|_| ())
    }

    pub(super) fn slice(
        &mut self,
        bytes: usize,
        what: &'static str,
    ) -> Result<&'a [u8], Malformed> {
        self.cursor.take(bytes).ok_or(Malformed::Truncated(what))
    }

    /// A copy of the next bytes.
    pub(super) fn bytes(&mut self, bytes: usize, what: &'static str) -> Result<Bytes, Malformed> {
        self.slice(bytes, what).map(Bytes::copy_from_slice)
    }

    /// An array. The length is held to what is there before anything is allocated for it.
    pub(super) fn array<T>(
        &mut self,
        count: u32,
        item_bytes: usize,
        what: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let needed = (count as usize).checked_mul(item_bytes);
        if needed.is_none_or(|needed| needed > self.cursor.remaining()) {
            return Err(Malformed::Truncated(what));
        }
        (0..count).map(|_| read(self)).collect()
    }

    pub(super) fn xids(&mut self, count: u32, what: &'static str) -> Result<Vec<u32>, Malformed> {
        self.array(count, 4, what, |fields| fields.u32(what))
    }

    pub(super) fn rel_file(&mut self, what: &'static str) -> Result<RelFile, Malformed> {
        Ok(RelFile {
            spc: self.u32(what)?,
            db: self.u32(what)?,
            rel: self.u32(what)?,
        })
    }

    pub(super) fn fork_of(
        &mut self,
        file: RelFile,
        what: &'static str,
    ) -> Result<RelTag, Malformed> {
        let value = self.u32(what)?;
        let fork = u8::try_from(value).ok().and_then(Fork::from_number);
        let fork = fork.ok_or(Malformed::Field {
            what,
            value: u64::from(value),
        })?;
        Ok(file.fork(fork))
    }

    /// A string that ends with a NUL, without it.
    pub(super) fn c_string(&mut self, what: &'static str) -> Result<Bytes, Malformed> {
        let rest = self.all.len() - self.cursor.remaining();
        let rest = self.all.get(rest..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == 0);
        let text = self.bytes(length.ok_or(Malformed::Truncated(what))?, what)?;
        self.skip(1, what)?;
        Ok(text)
    }

    /// The multiple of 8 that follows: what `MAXALIGN` pads to.
    pub(super) fn align8(&mut self, what: &'static str) -> Result<(), Malformed> {
        let at = self.all.len() - self.cursor.remaining();
        self.skip(at.next_multiple_of(8) - at, what)
    }

    pub(super) fn finish(self, what: &'static str) -> Result<(), Malformed> {
        match self.cursor.remaining() {
            0 => Ok(()),
            bytes => Err(Malformed::Trailing { bytes, what }),
        }
    }
}
