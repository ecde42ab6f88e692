//! What is known of a log in memory: its epochs with their keys, and where its frames are.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ids::{FileId, Lsn, NodeId, Term};
use zeroize::Zeroizing;

use super::record::{self, Control, FRAME_BOUND, FRAME_HEADER_BYTES, FRAME_OVERHEAD, Parsed};
use crate::Dek;
use crate::cipher::{self, Aead, NONCE_BYTES, Prk, TAG_BYTES};
use crate::header::{HEADER_BYTES, Header, split_key};

/// An epoch of a log: what one writer wrote between opening it and losing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// Its number; one more than that of the epoch before it.
    pub number: u32,
    /// The term that it was begun for.
    pub term: Term,
    /// All older data at and after this position is void.
    pub start_lsn: Lsn,
    /// What its key is derived with.
    pub salt: [u8; 32],
    /// The node that wrote it.
    pub node: NodeId,
    /// The boot of that node.
    pub boot_nonce: u64,
}

/// A frame whose WAL is still valid, perhaps with its end cut off by a later epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The position of its first byte of WAL.
    pub start_lsn: Lsn,
    /// The end of its valid WAL.
    pub end_lsn: Lsn,
    /// The epoch that wrote it.
    pub epoch: u32,
    /// Where it begins in the file.
    pub offset: u64,
    pub(super) payload_len: u32,
    pub(super) sequence: u64,
}

impl Frame {
    /// The bytes of the file that [`Log::read`] needs: the frame and the tag before it.
    #[must_use]
    pub fn sealed_range(&self) -> Range<u64> {
        self.offset.saturating_sub(TAG_BYTES as u64)..self.end_offset()
    }

    pub(super) fn end_offset(&self) -> u64 {
        self.offset + u64::from(self.payload_len) + FRAME_OVERHEAD as u64
    }
}

/// A frame was not opened: it is not what was written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the frame at offset {offset} of the log is damaged")]
pub struct FrameError {
    /// Where it begins.
    pub offset: u64,
}

struct EpochKey {
    epoch: Epoch,
    aead: Aead,
    base_nonce: [u8; NONCE_BYTES],
}

/// An open log: enough to read any part of it, and to go on writing it.
pub struct Log {
    header: Header,
    prk: Prk,
    control_key: Zeroizing<[u8; 32]>,
    epochs: Vec<Arc<EpochKey>>,
    frames: Vec<Frame>,
    pub(super) end_offset: u64,
    pub(super) last_tag: [u8; TAG_BYTES],
    pub(super) next_sequence: u64,
    pub(super) sealed: bool,
    pub(super) torn: bool,
    end_lsn: Lsn,
}

impl Log {
    pub(super) fn new(header: Header, dek: &Dek) -> Self {
        let prk = header.prk(dek);
        Self {
            control_key: prk.expand(&[b"redoubt1/walctl"]),
            header,
            prk,
            epochs: Vec::new(),
            frames: Vec::new(),
            end_offset: HEADER_BYTES as u64,
            last_tag: [0; TAG_BYTES],
            next_sequence: 0,
            sealed: false,
            torn: false,
            end_lsn: Lsn::INVALID,
        }
    }

    /// The header of the file.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The epochs, oldest first.
    pub fn epochs(&self) -> impl DoubleEndedIterator<Item = &Epoch> + ExactSizeIterator {
        self.epochs.iter().map(|e| &e.epoch)
    }

    /// The frames with valid WAL, in the order of their positions and without gaps.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The frame that holds the byte at `lsn`.
    #[must_use]
    pub fn frame_at(&self, lsn: Lsn) -> Option<&Frame> {
        let after = self.frames.partition_point(|f| f.end_lsn <= lsn);
        self.frames.get(after).filter(|f| f.start_lsn <= lsn)
    }

    /// The end of the valid WAL.
    #[must_use]
    pub fn end_lsn(&self) -> Lsn {
        self.end_lsn
    }

    /// The end of the valid records: where the next one goes, and where a torn file is cut.
    #[must_use]
    pub fn end_offset(&self) -> u64 {
        self.end_offset
    }

    /// Whether the segment was declared complete.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Whether a write that was never acknowledged lies behind [`Log::end_offset`]: cut the file
    /// there and sync it before an epoch is begun.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// Opens `frame` out of the bytes of [`Frame::sealed_range`] and gives its valid WAL.
    ///
    /// # Errors
    /// Bytes that are not the ones that were written there.
    pub fn read(&self, frame: &Frame, sealed: &[u8]) -> Result<Bytes, FrameError> {
        let damaged = FrameError {
            offset: frame.offset,
        };
        let (previous_tag, bytes) = sealed.split_first_chunk().ok_or(damaged)?;
        let mut payload = self.open(frame, previous_tag, bytes).ok_or(damaged)?;
        let valid = frame.end_lsn.checked_sub(frame.start_lsn).ok_or(damaged)?;
        payload.truncate(usize::try_from(valid).map_err(|_| damaged)?);
        Ok(payload.into())
    }

    /// Opens a frame whose bytes are exactly `bytes`.
    pub(super) fn open(
        &self,
        frame: &Frame,
        previous_tag: &[u8; TAG_BYTES],
        bytes: &[u8],
    ) -> Option<Vec<u8>> {
        let Parsed::Frame(header) = record::parse(bytes, self.file())? else {
            return None;
        };
        let same = header.payload_len == frame.payload_len
            && header.start_lsn == frame.start_lsn
            && header.sequence == frame.sequence
            && header.epoch == frame.epoch;
        let key = self.key(frame.epoch)?;
        let (head, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>()?;
        let (ciphertext, tag) = rest.split_last_chunk()?;
        if !same || ciphertext.len() as u64 != u64::from(frame.payload_len) {
            return None;
        }
        let mut buffer = ciphertext.to_vec();
        let nonce = cipher::numbered(&key.base_nonce, frame.sequence);
        let context = context(self.file(), head, previous_tag);
        key.aead.open(&nonce, &context, &mut buffer, tag).ok()?;
        Some(buffer)
    }

    /// Seals the payload behind `out`'s header, in place, with the key of the last epoch.
    pub(super) fn seal(
        &self,
        sequence: u64,
        header: &[u8; FRAME_HEADER_BYTES],
        payload: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let key = self
            .epochs
            .last()
            .expect("a log that is written has an epoch");
        let nonce = cipher::numbered(&key.base_nonce, sequence);
        key.aead.seal(
            &nonce,
            &context(self.file(), header, &self.last_tag),
            payload,
        )
    }

    pub(super) fn file(&self) -> FileId {
        self.header.file_id
    }

    pub(super) fn control_key(&self) -> &[u8; 32] {
        &self.control_key
    }

    pub(super) fn last_epoch(&self) -> Option<&Epoch> {
        self.epochs.last().map(|e| &e.epoch)
    }

    /// Takes up an epoch that was written, or found genuine.
    pub(super) fn push_epoch(&mut self, control: &Control, tag: [u8; TAG_BYTES]) {
        let okm = self.prk.expand::<44>(&[
            b"redoubt1/walepoch",
            &control.epoch.to_le_bytes(),
            &control.term.0.to_le_bytes(),
            &control.salt,
        ]);
        let (aead, base_nonce) = split_key(&okm);
        let epoch = Epoch {
            number: control.epoch,
            term: control.term,
            start_lsn: control.lsn,
            salt: control.salt,
            node: control.node,
            boot_nonce: control.boot_nonce,
        };
        self.epochs.push(Arc::new(EpochKey {
            epoch,
            aead,
            base_nonce,
        }));
        self.clip(control.lsn);
        self.next_sequence = 0;
        self.sealed = false;
        self.advance(record::CONTROL_BYTES as u64, tag);
    }

    pub(super) fn push_frame(&mut self, frame: Frame, tag: [u8; TAG_BYTES]) {
        self.end_lsn = frame.end_lsn;
        self.next_sequence = frame.sequence + 1;
        if frame.payload_len > 0 {
            self.frames.push(frame);
        }
        self.advance(u64::from(frame.payload_len) + FRAME_OVERHEAD as u64, tag);
    }

    pub(super) fn push_seal(&mut self, tag: [u8; TAG_BYTES]) {
        self.sealed = true;
        self.advance(record::CONTROL_BYTES as u64, tag);
    }

    fn advance(&mut self, by: u64, tag: [u8; TAG_BYTES]) {
        self.end_offset += by;
        self.last_tag = tag;
    }

    /// W2: what a later epoch makes void is left where it is and no longer listed.
    fn clip(&mut self, at: Lsn) {
        self.frames
            .truncate(self.frames.partition_point(|f| f.start_lsn < at));
        if let Some(last) = self.frames.last_mut() {
            last.end_lsn = last.end_lsn.min(at);
        }
        self.end_lsn = at;
    }

    /// Epochs are numbered without gaps, so their place follows from their number.
    fn key(&self, epoch: u32) -> Option<&EpochKey> {
        let first = self.epochs.first()?.epoch.number;
        let at = usize::try_from(epoch.checked_sub(first)?).ok()?;
        self.epochs.get(at).map(Arc::as_ref)
    }
}

/// W3: the tag of the record before is part of what a frame's own tag proves.
fn context(
    file: FileId,
    header: &[u8; FRAME_HEADER_BYTES],
    previous_tag: &[u8; TAG_BYTES],
) -> [u8; 60] {
    let mut out = [0; 60];
    out[..16].copy_from_slice(file.as_bytes());
    out[16..44].copy_from_slice(&header[FRAME_BOUND]);
    out[44..].copy_from_slice(previous_tag);
    out
}
