//! Writing a log. Every method returns bytes for the caller to append at
//! [`Log::end_offset`](super::Log::end_offset) as it was before, and to sync.

use bytes::{BufMut, Bytes, BytesMut};
use ids::{FileId, Generation, Lsn, NodeId, TenantId, Term, TimelineId, WrapSlot};

use super::index::{Frame, Log};
use super::record::{
    CONTROL_BYTES, Control, FRAME_HEADER_BYTES, FRAME_OVERHEAD, FrameHeader, PAYLOAD_BYTES_MAX,
};
use crate::cipher::TAG_BYTES;
use crate::header::HEADER_BYTES;
use crate::object::ObjectSpec;
use crate::{Dek, Entropy, ObjectKind};

/// No epoch has more frames than this (FORMAT.md, part 8).
const FRAMES_MAX: u64 = 1 << 32;

/// What a new segment is to say about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSpec {
    /// Whose it is.
    pub tenant: TenantId,
    /// The timeline that it belongs to.
    pub timeline: TimelineId,
    /// The generation that writes it.
    pub generation: Generation,
    /// Its canonical name.
    pub name: String,
    /// The number of the segment.
    pub segment: u64,
    /// Seconds since 1970; for people only.
    pub created_unix: u64,
    /// Random, and new for every file.
    pub file_id: FileId,
}

/// Why and where an epoch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// The term that it is begun for.
    pub term: Term,
    /// The position of the first byte to be written: older data from here on is void.
    pub start_lsn: Lsn,
    /// The node that writes.
    pub node: NodeId,
    /// The boot of that node.
    pub boot_nonce: u64,
}

/// Why nothing was sealed. The log is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The position is not where the log ends (or, for an epoch, is after that).
    #[error("the log ends at {end}; cannot go on at {at}")]
    Gap {
        /// Where the log ends.
        end: Lsn,
        /// Where it was to go on.
        at: Lsn,
    },
    /// More than a frame holds.
    #[error("a frame holds at most 1 MiB, not {0} bytes")]
    TooLong(usize),
    /// An epoch below that of an older one.
    #[error("the log has an epoch of term {have}; cannot begin one of term {given}")]
    OldTerm {
        /// The term of the last epoch.
        have: Term,
        /// The term that was given.
        given: Term,
    },
    /// No more positions, frames or epochs: go on in another file.
    #[error("the log has reached a limit of the format")]
    Full,
    /// A torn write lies at the end and was not cut off.
    #[error("the log is torn at {at}: cut the file there, sync it, then say so")]
    Torn {
        /// Where to cut.
        at: u64,
    },
}

/// The only holder of an epoch's key and sequence (W1). Drop it after a failed write or sync.
pub struct LogWriter {
    log: Log,
}

impl LogWriter {
    /// A new segment, and its first bytes: header and first epoch, whose number is `number`.
    #[must_use]
    pub fn create(
        spec: &SegmentSpec,
        dek: &Dek,
        slot: &WrapSlot,
        number: u32,
        start: &EpochStart,
        entropy: &mut dyn Entropy,
    ) -> (Self, Bytes) {
        let object = ObjectSpec {
            kind: ObjectKind::LocalWal,
            tenant: spec.tenant,
            timeline: spec.timeline,
            generation: spec.generation,
            name: spec.name.clone(),
            aux: spec.segment,
            created_unix: spec.created_unix,
            file_id: spec.file_id,
        };
        let mut header = object.header(slot, None);
        let prk = header.prk(dek);
        header.commit(&prk);
        let mut out = BytesMut::with_capacity(HEADER_BYTES + CONTROL_BYTES);
        out.put_slice(&header.encode());
        let mut writer = Self {
            log: Log::new(header, dek),
        };
        out.put_slice(&writer.epoch_record(number, start, entropy));
        (writer, out.freeze())
    }

    /// Goes on with a scanned log, and the bytes of its new epoch. A torn file must have been
    /// cut first: see [`Log::cut`].
    ///
    /// # Errors
    /// As [`LogWriter::begin_epoch`], or a log that is still torn.
    pub fn resume(
        log: Log,
        start: &EpochStart,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, Bytes), AppendError> {
        if log.is_torn() {
            return Err(AppendError::Torn {
                at: log.end_offset(),
            });
        }
        let mut writer = Self { log };
        let bytes = writer.begin_epoch(start, entropy)?;
        Ok((writer, bytes))
    }

    /// The log as it will be when everything is synced: for reading, and for its ends.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Seals WAL that begins where the log ends. No payload makes a mark, which moves nothing
    /// but proves that the frame before it had been synced (W4).
    ///
    /// # Errors
    /// A position that is not the end, or a limit.
    pub fn append(&mut self, start_lsn: Lsn, payload: &[u8]) -> Result<Bytes, AppendError> {
        let log = &mut self.log;
        if start_lsn != log.end_lsn() {
            return Err(AppendError::Gap {
                end: log.end_lsn(),
                at: start_lsn,
            });
        }
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(AppendError::TooLong(payload.len()));
        }
        let end_lsn = start_lsn
            .checked_add(payload.len() as u64)
            .ok_or(AppendError::Full)?;
        if log.sealed || log.next_sequence >= FRAMES_MAX {
            return Err(AppendError::Full);
        }
        let epoch = log.last_epoch().map_or(0, |e| e.number);
        let header = FrameHeader {
            payload_len: u32::try_from(payload.len()).map_err(|_| AppendError::Full)?,
            start_lsn,
            sequence: log.next_sequence,
            epoch,
        };
        let head = header.encode(log.file());
        let mut out = BytesMut::with_capacity(payload.len() + FRAME_OVERHEAD);
        out.put_slice(&head);
        out.put_slice(payload);
        let tag = log.seal(header.sequence, &head, &mut out[FRAME_HEADER_BYTES..]);
        out.put_slice(&tag);
        let frame = Frame {
            start_lsn,
            end_lsn,
            epoch,
            offset: log.end_offset,
            payload_len: header.payload_len,
            sequence: header.sequence,
        };
        log.push_frame(frame, tag);
        Ok(out.freeze())
    }

    /// Begins an epoch: another term, or truncation to `start.start_lsn`, or both.
    ///
    /// # Errors
    /// A position after the end of the log, an older term, or a limit.
    pub fn begin_epoch(
        &mut self,
        start: &EpochStart,
        entropy: &mut dyn Entropy,
    ) -> Result<Bytes, AppendError> {
        if start.start_lsn > self.log.end_lsn() {
            return Err(AppendError::Gap {
                end: self.log.end_lsn(),
                at: start.start_lsn,
            });
        }
        let last = self.log.last_epoch().ok_or(AppendError::Full)?;
        if start.term < last.term {
            return Err(AppendError::OldTerm {
                have: last.term,
                given: start.term,
            });
        }
        let number = last.number.checked_add(1).ok_or(AppendError::Full)?;
        Ok(Bytes::copy_from_slice(
            &self.epoch_record(number, start, entropy),
        ))
    }

    /// Declares the segment complete, which makes its length authentic.
    #[must_use]
    pub fn finish(mut self) -> (Log, Bytes) {
        let last = *self
            .log
            .last_epoch()
            .expect("a log that is written has an epoch");
        let mut salt = [0; 32];
        salt[..8].copy_from_slice(&self.log.next_sequence.to_le_bytes());
        let control = Control {
            is_seal: true,
            epoch: last.number,
            term: last.term,
            lsn: self.log.end_lsn(),
            offset: self.log.end_offset,
            previous_tag: self.log.last_tag,
            salt,
            node: last.node,
            boot_nonce: last.boot_nonce,
        };
        let record = control.encode(self.log.file(), self.log.control_key());
        self.log.push_seal(tag_of(&record));
        (self.log, Bytes::copy_from_slice(&record))
    }

    fn epoch_record(
        &mut self,
        number: u32,
        start: &EpochStart,
        entropy: &mut dyn Entropy,
    ) -> [u8; CONTROL_BYTES] {
        let mut salt = [0; 32];
        entropy.fill(&mut salt);
        let control = Control {
            is_seal: false,
            epoch: number,
            term: start.term,
            lsn: start.start_lsn,
            offset: self.log.end_offset,
            previous_tag: self.log.last_tag,
            salt,
            node: start.node,
            boot_nonce: start.boot_nonce,
        };
        let record = control.encode(self.log.file(), self.log.control_key());
        self.log.push_epoch(&control, tag_of(&record));
        record
    }
}

impl Log {
    /// Says that the file was cut at [`Log::end_offset`] and synced, so that it may be resumed.
    pub fn cut(&mut self) {
        self.torn = false;
    }
}

fn tag_of(record: &[u8; CONTROL_BYTES]) -> [u8; TAG_BYTES] {
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&record[CONTROL_BYTES - TAG_BYTES..]);
    tag
}
