//! Writes an object as its plaintext comes, with less than a chunk of it in memory.
//!
//!   O1  an attempt to write seals each chunk once: what begins it is spent by the writer, and the
//!       writer by its end, so that whatever was given up is followed by a new file id;
//!   O2  the header is made at the end, when length and name are known. Until it is there, the
//!       chunks are no object;
//!   O3  the same plaintext gives the same bytes, however it was cut on its way in.

use bytes::BytesMut;
use ids::{FileId, WrapSlot};

use super::ObjectSpec;
use super::chunks::{ChunkKey, chunk_bytes, sealed_len};
use crate::cipher::Prk;
use crate::header::HEADER_BYTES;
use crate::{Dek, Entropy, ObjectKind, new_file_id};

/// At most as many chunks are sealed under one key (FORMAT.md, limits).
const CHUNKS_MAX: u64 = 1 << 32;

/// One attempt to write one file: a file id that was never used, and what follows from it and the
/// data key. It cannot be copied, and is spent by [`ObjectWriter::new`] (O1).
///
/// ```compile_fail
/// # use sealed::{ObjectKind, object::{Attempt, ObjectWriter}};
/// fn again(attempt: Attempt) {
///     let given_up = ObjectWriter::new(attempt, ObjectKind::ImageLayer);
///     let retried = ObjectWriter::new(attempt, ObjectKind::ImageLayer);
/// }
/// ```
pub struct Attempt {
    file_id: FileId,
    prk: Prk,
    slot: WrapSlot,
}

impl Attempt {
    /// Begins one under a data key that was made for it, and was wrapped in `slot`.
    #[must_use]
    pub fn begin(dek: &Dek, slot: WrapSlot, entropy: &mut dyn Entropy) -> Self {
        Self::of(new_file_id(entropy), dek, slot)
    }

    pub(super) fn of(file_id: FileId, dek: &Dek, slot: WrapSlot) -> Self {
        Self {
            prk: Prk::extract(file_id.as_bytes(), dek.expose()),
            file_id,
            slot,
        }
    }

    /// The file that it makes, for its name.
    #[must_use]
    pub const fn file_id(&self) -> FileId {
        self.file_id
    }
}

/// An object that is being written. The caller keeps the first [`HEADER_BYTES`] of the file free,
/// and appends what comes out.
pub struct ObjectWriter {
    attempt: Attempt,
    kind: ObjectKind,
    key: ChunkKey,
    /// Plaintext that is not sealed yet, for the last chunk is sealed as such: at most a chunk.
    held: BytesMut,
    plaintext_len: u64,
    sealed_chunks: u64,
}

/// What makes an object of the chunks: its header, to be written at the beginning.
pub struct Finished {
    /// The header.
    pub header: [u8; HEADER_BYTES],
    /// The length of the whole file.
    pub sealed_len: u64,
}

impl ObjectWriter {
    /// Begins an object.
    ///
    /// # Panics
    /// Where `kind` is not that of an immutable object.
    #[must_use]
    pub fn new(attempt: Attempt, kind: ObjectKind) -> Self {
        assert!(
            kind.is_object(),
            "only immutable objects are made of chunks"
        );
        Self {
            key: ChunkKey::new(kind, attempt.file_id, &attempt.prk),
            attempt,
            kind,
            held: BytesMut::new(),
            plaintext_len: 0,
            sealed_chunks: 0,
        }
    }

    /// The file that is being written.
    #[must_use]
    pub const fn file_id(&self) -> FileId {
        self.attempt.file_id
    }

    /// The length of the plaintext so far.
    #[must_use]
    pub const fn plaintext_len(&self) -> u64 {
        self.plaintext_len
    }

    /// Takes more plaintext in, and appends to `out` the chunks that are full and not the last.
    pub fn push(&mut self, mut plaintext: &[u8], out: &mut BytesMut) {
        self.plaintext_len += plaintext.len() as u64;
        let chunk = self.chunk_len();
        while !plaintext.is_empty() {
            if self.held.len() == chunk {
                let held = std::mem::take(&mut self.held);
                self.seal(&held, false, out);
                // Its memory serves again.
                self.held = held;
                self.held.clear();
            }
            let straight = self.held.is_empty() && plaintext.len() > chunk;
            let room = chunk - self.held.len();
            let (taken, rest) = plaintext.split_at(room.min(plaintext.len()));
            if straight {
                self.seal(taken, false, out);
            } else {
                self.held.extend_from_slice(taken);
            }
            plaintext = rest;
        }
    }

    /// Appends the last chunk to `out` and gives the header.
    ///
    /// # Panics
    /// Where `spec` is of another file or kind than was begun.
    #[must_use]
    pub fn finish(mut self, spec: &ObjectSpec, out: &mut BytesMut) -> Finished {
        let begun = (self.attempt.file_id, self.kind);
        assert!((spec.file_id, spec.kind) == begun, "O1");
        let held = std::mem::take(&mut self.held);
        self.seal(&held, true, out);
        let mut header = spec.header(&self.attempt.slot, Some(self.plaintext_len));
        header.commit(&self.attempt.prk);
        Finished {
            header: header.encode(),
            sealed_len: sealed_len(self.kind, self.plaintext_len),
        }
    }

    fn seal(&mut self, chunk: &[u8], last: bool, out: &mut BytesMut) {
        assert!(self.sealed_chunks < CHUNKS_MAX, "one key seals no more");
        let start = out.len();
        out.extend_from_slice(chunk);
        self.key.seal(self.sealed_chunks, last, start, out);
        self.sealed_chunks += 1;
    }

    fn chunk_len(&self) -> usize {
        usize::try_from(chunk_bytes(self.kind)).expect("a chunk has at most 64 KiB")
    }
}
