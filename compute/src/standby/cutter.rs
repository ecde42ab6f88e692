//! Cuts the stream of Postgres into pieces of whole records.

use bytes::{Bytes, BytesMut};
use ids::Lsn;
use pg::wal::{Decoder, WalShape};

use super::StandbyError;

/// Holds what is not a whole record yet.
#[derive(Debug)]
pub(super) struct Cutter {
    decoder: Decoder,
    /// WAL from `begin` on.
    held: BytesMut,
    begin: Lsn,
    /// The end of the last whole record; with its padding it can lie above what has arrived.
    end: Lsn,
}

impl Cutter {
    /// A stream that begins at `from`, where a record begins.
    pub(super) fn new(shape: WalShape, from: Lsn) -> Self {
        Self {
            decoder: Decoder::new(shape, from),
            held: BytesMut::new(),
            begin: from,
            end: from,
        }
    }

    /// Takes WAL, and gives what is whole by now: where it begins, and its bytes as they arrived.
    pub(super) fn take(
        &mut self,
        at: Lsn,
        wal: Bytes,
    ) -> Result<Option<(Lsn, Bytes)>, StandbyError> {
        let expected = self.decoder.position();
        if at != expected {
            return Err(StandbyError::Gap { expected, got: at });
        }
        self.decoder.feed(&wal);
        let arrived = self.decoder.position();
        // Only the last record can end above what has arrived, by its padding or as a switch.
        let mut whole = match self.end <= arrived {
            true => self.end,
            false => self.begin,
        };
        while let Some((_, end, _)) = self.decoder.next()? {
            self.end = end;
            if end <= arrived {
                whole = end;
            }
        }
        let length = (whole - self.begin) as usize;
        let begin = self.begin;
        self.begin = whole;
        if self.held.is_empty() && length == wal.len() {
            return Ok(Some((begin, wal)).filter(|(_, w)| !w.is_empty()));
        }
        self.held.extend_from_slice(&wal);
        let piece = self.held.split_to(length).freeze();
        Ok(Some((begin, piece)).filter(|(_, p)| !p.is_empty()))
    }
}
