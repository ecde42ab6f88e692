//! The bytes of a stream that have come and are not read yet.

use std::ops::Range;

use ids::Lsn;

/// They, and where they stand in the stream.
#[derive(Debug)]
pub(super) struct Input {
    bytes: Vec<u8>,
    /// How many of `bytes` are read. They stay until new ones need the room.
    read: usize,
    /// The position of the first byte that is not read.
    at: Lsn,
}

impl Input {
    pub(super) const fn new(at: Lsn) -> Self {
        Self {
            bytes: Vec::new(),
            read: 0,
            at,
        }
    }

    pub(super) const fn at(&self) -> Lsn {
        self.at
    }

    /// The position after the last byte that has come.
    pub(super) fn end(&self) -> Lsn {
        Lsn(self.at.0.saturating_add(self.ahead().len() as u64))
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        // No byte is moved more often than another is read.
        if self.read >= self.bytes.len() - self.read {
            self.bytes.copy_within(self.read.., 0);
            self.bytes.truncate(self.bytes.len() - self.read);
            self.read = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// What is not read yet.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.bytes[self.read..]
    }

    /// Reads so many bytes, or what there is; answers where they stand, for [`Self::taken`].
    pub(super) fn skip(&mut self, bytes: u64) -> Range<usize> {
        let taken = bytes.min(self.ahead().len() as u64);
        let from = self.read;
        self.read += taken as usize;
        self.at = Lsn(self.at.0.saturating_add(taken));
        from..self.read
    }

    /// Bytes that were read; they stay until something is fed.
    pub(super) fn taken(&self, place: Range<usize>) -> &[u8] {
        &self.bytes[place]
    }
}
