//! The chunks of an object: their places, their key and their nonces.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use ids::FileId;

use super::OpenError;
use crate::cipher::{self, Aead, Forged, NONCE_BYTES, Prk, TAG_BYTES};
use crate::header::{self, HEADER_BYTES, Header};
use crate::{Dek, ObjectKind};

const FINAL: u8 = 0x80;

/// The length of an object of `plaintext_len` bytes. Saturating: a header with an absurd length
/// matches no file.
pub(super) fn sealed_len(kind: ObjectKind, plaintext_len: u64) -> u64 {
    // At least one: an empty object is one empty chunk.
    let chunks = plaintext_len.div_ceil(chunk_bytes(kind)).max(1);
    let tags = chunks.saturating_mul(TAG_BYTES as u64);
    plaintext_len
        .saturating_add(tags)
        .saturating_add(HEADER_BYTES as u64)
}

pub(super) const fn chunk_bytes(kind: ObjectKind) -> u64 {
    1 << kind.chunk_log2()
}

/// What seals and opens the chunks of one file. Index and last flag are in nonce and context, so
/// a chunk opens at its own place alone.
pub(super) struct ChunkKey {
    key: Aead,
    base_nonce: [u8; NONCE_BYTES],
    file_id: FileId,
    kind: ObjectKind,
}

impl ChunkKey {
    pub(super) fn new(kind: ObjectKind, file_id: FileId, prk: &Prk) -> Self {
        let (key, base_nonce) = header::data_key(kind, prk);
        Self {
            key,
            base_nonce,
            file_id,
            kind,
        }
    }

    /// Seals what `out` holds from `start` on, in place, and appends its tag.
    pub(super) fn seal(&self, index: u64, last: bool, start: usize, out: &mut BytesMut) {
        let (nonce, context) = self.nonce_and_context(index, last);
        let tag = self.key.seal(&nonce, &context, &mut out[start..]);
        out.extend_from_slice(&tag);
    }

    fn open(
        &self,
        index: u64,
        last: bool,
        buffer: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Forged> {
        let (nonce, context) = self.nonce_and_context(index, last);
        self.key.open(&nonce, &context, buffer, tag)
    }

    fn nonce_and_context(&self, index: u64, last: bool) -> ([u8; NONCE_BYTES], [u8; 27]) {
        let mut nonce = cipher::numbered(&self.base_nonce, index);
        nonce[0] ^= if last { FINAL } else { 0 };
        let mut context = [0; 27];
        context[..16].copy_from_slice(self.file_id.as_bytes());
        context[16] = self.kind as u8;
        context[17] = self.kind.chunk_log2();
        context[18] = u8::from(last);
        context[19..].copy_from_slice(&index.to_le_bytes());
        (nonce, context)
    }
}

/// The chunks of an object whose length is known.
pub(super) struct Chunks {
    key: ChunkKey,
    pub(super) plaintext_len: u64,
}

impl Chunks {
    pub(super) fn new(header: &Header, dek: &Dek) -> Self {
        Self {
            key: ChunkKey::new(header.kind, header.file_id, &header.prk(dek)),
            plaintext_len: header.plaintext_len.unwrap_or(0),
        }
    }

    pub(super) fn chunk_bytes(&self) -> u64 {
        chunk_bytes(self.key.kind)
    }

    pub(super) fn count(&self) -> u64 {
        self.plaintext_len.div_ceil(self.chunk_bytes()).max(1)
    }

    pub(super) fn sealed_len(&self) -> u64 {
        sealed_len(self.key.kind, self.plaintext_len)
    }

    /// The plaintext of chunk `index`.
    fn plain(&self, index: u64) -> Range<u64> {
        let start = index * self.chunk_bytes();
        start..(start + self.chunk_bytes()).min(self.plaintext_len)
    }

    /// Where chunk `index` begins in the file.
    pub(super) fn sealed_at(&self, index: u64) -> u64 {
        let stride = self.chunk_bytes() + TAG_BYTES as u64;
        index
            .saturating_mul(stride)
            .saturating_add(HEADER_BYTES as u64)
            .min(self.sealed_len())
    }

    /// The chunks that hold a range, cut to the object.
    pub(super) fn run(&self, plaintext: &Range<u64>) -> Range<u64> {
        let end = plaintext.end.min(self.plaintext_len);
        let first = plaintext.start.min(end) / self.chunk_bytes();
        if plaintext.start >= end {
            first..first
        } else {
            first..end.div_ceil(self.chunk_bytes())
        }
    }

    /// Opens chunks `first..end`, whose sealed bytes are exactly `sealed`.
    pub(super) fn open_run(&self, first: u64, end: u64, sealed: &[u8]) -> Result<Bytes, OpenError> {
        if self.sealed_at(end) - self.sealed_at(first) != sealed.len() as u64 {
            return Err(OpenError::Range);
        }
        let mut out = BytesMut::with_capacity(sealed.len());
        let mut rest = sealed;
        for index in first..end {
            let plain = self.plain(index);
            let length = usize::try_from(plain.end - plain.start).map_err(|_| OpenError::Range)?;
            let (ciphertext, after) = rest.split_at_checked(length).ok_or(OpenError::Range)?;
            let (tag, after) = after.split_first_chunk().ok_or(OpenError::Range)?;
            let start = out.len();
            out.extend_from_slice(ciphertext);
            let last = index + 1 == self.count();
            self.key
                .open(index, last, &mut out[start..], tag)
                .map_err(|_| OpenError::Chunk { index })?;
            rest = after;
        }
        Ok(out.freeze())
    }
}
