//! Immutable objects: layers, manifests, documents and WAL segments in the bucket
//! (FORMAT.md, part 2).

mod chunks;
mod rehome;
mod writer;

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use ids::{FileId, Generation, TenantId, TimelineId, WRAP_SLOT_BYTES, WrapSlot};

use crate::cipher;
use crate::header::{HEADER_BYTES, Header, HeaderError, name_digest};
use crate::{Dek, ObjectKind};
use chunks::Chunks;

pub use rehome::{NewHome, rehome};
pub use writer::{Attempt, Finished, ObjectWriter};

/// What an object is to say about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectSpec {
    /// What it is.
    pub kind: ObjectKind,
    /// Whose it is.
    pub tenant: TenantId,
    /// The timeline that it belongs to.
    pub timeline: TimelineId,
    /// The generation that writes it.
    pub generation: Generation,
    /// Its canonical name; readers must ask for it by the same.
    pub name: String,
    /// A number whose meaning depends on the kind.
    pub aux: u64,
    /// Seconds since 1970; for people only.
    pub created_unix: u64,
    /// Random, and new for every attempt to write: see [`new_file_id`](crate::new_file_id).
    pub file_id: FileId,
}

impl ObjectSpec {
    pub(crate) fn header(&self, slot: &WrapSlot, plaintext_len: Option<u64>) -> Header {
        Header {
            kind: self.kind,
            file_id: self.file_id,
            tenant: self.tenant,
            timeline: self.timeline,
            shard_number: 0,
            shard_count: 1,
            generation: self.generation,
            name_digest: name_digest(&self.name),
            aux: self.aux,
            plaintext_len,
            created_unix: self.created_unix,
            slots: [slot.clone(), WrapSlot([0; WRAP_SLOT_BYTES])],
            commitment: [0; 32],
        }
    }
}

/// What a reader asked for; an object that says otherwise is not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// What it is.
    pub kind: ObjectKind,
    /// Whose it is.
    pub tenant: TenantId,
    /// The timeline that it belongs to.
    pub timeline: TimelineId,
    /// Its canonical name.
    pub name: String,
}

/// Why an object, or a part of it, was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The header is not one.
    #[error("the header was refused")]
    Header(#[from] HeaderError),
    /// The data key is another one, or the header was changed.
    #[error("the header does not belong to this data key")]
    Commitment,
    /// The object is sound, but not the one that was asked for.
    #[error("the object is another one than was asked for: its {0} differs")]
    Other(&'static str),
    /// The kind is not made of chunks, or its length is not in the header.
    #[error("not an object of chunks with a known length")]
    NotAnObject,
    /// A document: its place in its series is its freshness (D3), so it is written anew.
    #[error("documents are written anew at another place, never moved")]
    NotMovable,
    /// The file was cut or extended.
    #[error("the object has {have} bytes; its header says {expected}")]
    Length {
        /// How many there are.
        have: u64,
        /// How many there should be.
        expected: u64,
    },
    /// A range outside the object, or bytes that are not those of the range.
    #[error("the range is outside the object, or its bytes are of another length")]
    Range,
    /// A chunk that was not sealed at this place of this object.
    #[error("chunk {index} of the object is damaged or was put there from elsewhere")]
    Chunk {
        /// Its number.
        index: u64,
    },
}

/// Seals a whole object.
///
/// # Panics
/// Where the kind of `spec` is not that of an immutable object.
#[must_use]
pub fn seal(spec: &ObjectSpec, dek: &Dek, slot: &WrapSlot, plaintext: &[u8]) -> Bytes {
    seal_pieces(spec, dek, slot, plaintext.len() as u64, [plaintext])
}

/// Seals an object of `plaintext_len` bytes that come in pieces, each of which is dropped when it is
/// sealed: at no time are plaintext and ciphertext both whole in memory.
///
/// # Panics
/// Where the kind of `spec` is not that of an immutable object, or the pieces have another length.
#[must_use]
pub fn seal_pieces(
    spec: &ObjectSpec,
    dek: &Dek,
    slot: &WrapSlot,
    plaintext_len: u64,
    pieces: impl IntoIterator<Item: AsRef<[u8]>>,
) -> Bytes {
    let total = chunks::sealed_len(spec.kind, plaintext_len);
    let total = usize::try_from(total).expect("the plaintext is in memory");
    let mut out = BytesMut::with_capacity(total);
    out.resize(HEADER_BYTES, 0);
    let attempt = Attempt::of(spec.file_id, dek, slot.clone());
    let mut writer = ObjectWriter::new(attempt, spec.kind);
    for piece in pieces {
        writer.push(piece.as_ref(), &mut out);
    }
    let finished = writer.finish(spec, &mut out);
    out[..HEADER_BYTES].copy_from_slice(&finished.header);
    assert_eq!(
        (out.len(), total as u64),
        (total, finished.sealed_len),
        "the length formula and the writer must agree"
    );
    out.freeze()
}

/// Opens a whole object.
///
/// # Errors
/// As [`Reader::open`] and [`Reader::open_range`].
pub fn open_all(bytes: &[u8], dek: &Dek, expected: &Expected) -> Result<Bytes, OpenError> {
    let reader = Reader::open(bytes, bytes.len() as u64, dek, expected)?;
    let body = bytes.get(HEADER_BYTES..).ok_or(OpenError::Range)?;
    reader.chunks.open_run(0, reader.chunks.count(), body)
}

/// An object whose header is proven to be genuine and to be the one that was asked for.
pub struct Reader {
    header: Header,
    chunks: Chunks,
}

impl Reader {
    /// Checks the header, which is at the beginning of `header`, of an object of `sealed_len`
    /// bytes.
    ///
    /// # Errors
    /// An object that is not sealed, was cut or extended, belongs to another key, or is not the
    /// one that was asked for, is refused.
    pub fn open(
        header: &[u8],
        sealed_len: u64,
        dek: &Dek,
        expected: &Expected,
    ) -> Result<Self, OpenError> {
        let header = open_header(header, dek, expected)?;
        if !header.kind.is_object() || header.plaintext_len.is_none() {
            return Err(OpenError::NotAnObject);
        }
        let chunks = Chunks::new(&header, dek);
        if chunks.sealed_len() != sealed_len {
            return Err(OpenError::Length {
                have: sealed_len,
                expected: chunks.sealed_len(),
            });
        }
        Ok(Self { header, chunks })
    }

    /// The header, now proven: the caller compares generation and file id with its manifest.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The length of the plaintext.
    #[must_use]
    pub fn plaintext_len(&self) -> u64 {
        self.chunks.plaintext_len
    }

    /// The bytes of the object that [`Reader::open_range`] needs for `plaintext`.
    #[must_use]
    pub fn sealed_range(&self, plaintext: Range<u64>) -> Range<u64> {
        let run = self.chunks.run(&plaintext);
        self.chunks.sealed_at(run.start)..self.chunks.sealed_at(run.end)
    }

    /// Opens `plaintext` out of the bytes of [`Reader::sealed_range`].
    ///
    /// # Errors
    /// Bytes that were not sealed at this place of this object are refused, as are ranges
    /// outside the object.
    pub fn open_range(&self, plaintext: Range<u64>, sealed: &[u8]) -> Result<Bytes, OpenError> {
        if plaintext.start > plaintext.end || plaintext.end > self.chunks.plaintext_len {
            return Err(OpenError::Range);
        }
        if plaintext.is_empty() {
            return Ok(Bytes::new());
        }
        let run = self.chunks.run(&plaintext);
        let opened = self.chunks.open_run(run.start, run.end, sealed)?;
        let skip = plaintext.start - run.start * self.chunks.chunk_bytes();
        let (Ok(start), Ok(len)) = (
            usize::try_from(skip),
            usize::try_from(plaintext.end - plaintext.start),
        ) else {
            return Err(OpenError::Range);
        };
        Ok(opened.slice(start..start + len))
    }
}

/// Checks a header against the key and what was asked for.
pub(crate) fn open_header(
    bytes: &[u8],
    dek: &Dek,
    expected: &Expected,
) -> Result<Header, OpenError> {
    let header = Header::decode(bytes)?;
    if !header.is_committed(&header.prk(dek)) {
        return Err(OpenError::Commitment);
    }
    let name = cipher::same(&header.name_digest, &name_digest(&expected.name));
    for (same, what) in [
        (header.kind == expected.kind, "kind"),
        (header.tenant == expected.tenant, "tenant"),
        (header.timeline == expected.timeline, "timeline"),
        (name, "name"),
    ] {
        if !same {
            return Err(OpenError::Other(what));
        }
    }
    Ok(header)
}
