//! Sealed records of a local database (FORMAT.md, part 5).
//!
//! A record is its wrap slot, a random nonce, the ciphertext and the tag. It opens only for the
//! node, timeline, table and key that it was sealed for.

use bytes::{BufMut, Bytes, BytesMut};
use ids::{NodeId, TimelineId, WRAP_SLOT_BYTES, WrapSlot};

use crate::cipher::{Aead, NONCE_BYTES, Prk, TAG_BYTES};
use crate::{Dek, Entropy};

const BODY: usize = WRAP_SLOT_BYTES + NONCE_BYTES;

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The node whose database it is in.
    pub node: NodeId,
    /// The timeline that it is about.
    pub timeline: TimelineId,
    /// The table.
    pub table: &'a str,
    /// The key in that table.
    pub key: &'a [u8],
}

/// Why a record was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than the smallest record has.
    #[error("the record has {have} bytes, fewer than a sealed record")]
    Short {
        /// How many there are.
        have: usize,
    },
    /// Damaged, sealed under another key, or put here from another place.
    #[error("the record is damaged, or was sealed for another place or under another key")]
    Forged,
}

/// Seals `plaintext` for its place. The cipher resists a repeated nonce, so a random one is
/// safe however often a record is updated.
#[must_use]
pub fn seal(
    dek: &Dek,
    slot: &WrapSlot,
    place: &Place<'_>,
    plaintext: &[u8],
    entropy: &mut dyn Entropy,
) -> Bytes {
    let mut nonce = [0; NONCE_BYTES];
    entropy.fill(&mut nonce);
    let mut out = BytesMut::with_capacity(BODY + plaintext.len() + TAG_BYTES);
    out.put_slice(&slot.0);
    out.put_slice(&nonce);
    out.put_slice(plaintext);
    let tag = key(dek).seal(&nonce, &context(place), &mut out[BODY..]);
    out.put_slice(&tag);
    out.freeze()
}

/// The wrapped data key of a record.
///
/// # Errors
/// Bytes that are too short for a record.
pub fn wrap_slot(bytes: &[u8]) -> Result<WrapSlot, RecordError> {
    let slot = bytes
        .first_chunk()
        .ok_or(RecordError::Short { have: bytes.len() })?;
    Ok(WrapSlot(*slot))
}

/// Opens the record that stands at `place`.
///
/// # Errors
/// Anything else than what [`seal`] made for this place under this key.
pub fn open(bytes: &[u8], dek: &Dek, place: &Place<'_>) -> Result<Bytes, RecordError> {
    let short = || RecordError::Short { have: bytes.len() };
    let (_, rest) = bytes
        .split_first_chunk::<WRAP_SLOT_BYTES>()
        .ok_or_else(short)?;
    let (nonce, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let (ciphertext, tag) = rest.split_last_chunk().ok_or_else(short)?;
    let mut buffer = ciphertext.to_vec();
    key(dek)
        .open(nonce, &context(place), &mut buffer, tag)
        .map_err(|_| RecordError::Forged)?;
    Ok(buffer.into())
}

fn key(dek: &Dek) -> Aead {
    Aead::new(&Prk::extract(b"redoubt1/record", dek.expose()).expand::<32>(&[b"redoubt1/record"]))
}

/// Names and keys carry their length, so that no two places have one context.
fn context(place: &Place<'_>) -> Vec<u8> {
    let mut out = b"redoubt1/record".to_vec();
    out.put_u64_le(place.node.0);
    out.put_slice(place.timeline.as_bytes());
    for part in [place.table.as_bytes(), place.key] {
        out.put_u64_le(part.len() as u64);
        out.put_slice(part);
    }
    out
}
