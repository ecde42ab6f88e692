//! Reads the fields of a record's payload; a short payload is a fault, never a panic.

use pg::wal::Block;

use crate::fault::Fault;

/// A position in a payload.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let end = self
            .position
            .checked_add(len)
            .ok_or(Fault::RecordTooShort)?;
        let taken = self
            .bytes
            .get(self.position..end)
            .ok_or(Fault::RecordTooShort)?;
        self.position = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.take(N)?.try_into().map_err(|_| Fault::RecordTooShort)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Fault> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// A byte of flags, of which only `known` may be set.
    pub(crate) fn flags(&mut self, known: u8) -> Result<u8, Fault> {
        match self.u8()? {
            flags if flags & !known == 0 => Ok(flags),
            _ => Err(Fault::RecordValue("flag")),
        }
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Fault> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A C `bool`: any other value means that this is not what it is taken for.
    pub(crate) fn bool(&mut self) -> Result<bool, Fault> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Fault::RecordValue("bool")),
        }
    }

    pub(crate) fn skip(&mut self, len: usize) -> Result<(), Fault> {
        self.take(len).map(|_| ())
    }

    /// Moves to the next multiple of two, counted from the start of the payload.
    pub(crate) fn align2(&mut self) -> Result<(), Fault> {
        self.skip(self.position & 1)
    }

    /// `count` 16-bit numbers.
    pub(crate) fn offsets(&mut self, count: usize) -> Result<Offsets<'a>, Fault> {
        let len = count.checked_mul(2).ok_or(Fault::RecordTooShort)?;
        Ok(Offsets(self.take(len)?))
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        self.position = self.bytes.len();
        rest
    }

    pub(crate) const fn len_left(&self) -> usize {
        self.bytes.len() - self.position
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.position >= self.bytes.len()
    }

    pub(crate) fn expect_end(&self) -> Result<(), Fault> {
        if self.is_at_end() {
            Ok(())
        } else {
            Err(Fault::RecordTooLong)
        }
    }
}

/// Holds a block to have no payload of its own.
pub(crate) fn expect_no_data(block: &Block) -> Result<(), Fault> {
    Fields::new(block.data).expect_end()
}

/// An array of item numbers in a record.
#[derive(Clone, Copy)]
pub(crate) struct Offsets<'a>(&'a [u8]);

impl<'a> Offsets<'a> {
    pub(crate) fn iter(self) -> impl DoubleEndedIterator<Item = u16> + 'a {
        self.0
            .chunks_exact(2)
            .map(|pair| u16::from(pair[0]) | (u16::from(pair[1]) << 8))
    }
}
