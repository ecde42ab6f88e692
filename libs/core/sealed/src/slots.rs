//! Pages in a local cache or spill file (FORMAT.md, part 4).
//!
//! The key is random, is derived from nothing and is never written: dropping it shreds the
//! file. The seal of each slot stays in memory, which defeats rollback and swap of slots.

use std::sync::atomic::{AtomicU64, Ordering};

use ids::{Key, Lsn, TenantId, TimelineId};
use zeroize::Zeroizing;

use crate::Entropy;
use crate::cipher::{Aead, NONCE_BYTES, TAG_BYTES};

/// The plaintext, and the ciphertext, of a slot.
pub const SLOT_BYTES: usize = 8192;
const CONTEXT_BYTES: usize = 8 + 16 + 16 + Key::BYTES + 8;

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The number of the slot.
    pub slot: u64,
    /// Whose page it is.
    pub tenant: TenantId,
    /// The timeline of the page.
    pub timeline: TimelineId,
    /// The page.
    pub key: Key,
    /// The version of the page.
    pub lsn: Lsn,
}

/// What must stay in memory to open a slot again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    tag: [u8; TAG_BYTES],
    counter: u64,
}

/// A slot was changed, swapped, rolled back, or belongs to another page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cache slot does not hold what was put there")]
pub struct SlotError;

/// The key of one tenant's slots for one lease, or of one spill file. Dropping it is the end of
/// everything that was sealed with it.
pub struct SlotKey {
    aead: Aead,
    /// Only grows and lives as long as the key: no nonce of a key is used twice.
    counter: AtomicU64,
}

impl SlotKey {
    /// A fresh key.
    #[must_use]
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(bytes.as_mut());
        Self {
            aead: Aead::new(&bytes),
            counter: AtomicU64::new(0),
        }
    }

    /// Seals `page` where it lies.
    #[must_use]
    pub fn seal(&self, place: &Place, page: &mut [u8; SLOT_BYTES]) -> Seal {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        assert!(counter < u64::MAX, "a counter of 64 bits does not wrap");
        Seal {
            tag: self.aead.seal(&nonce(counter), &context(place), page),
            counter,
        }
    }

    /// Opens `page` where it lies; it stays ciphertext where that fails.
    ///
    /// # Errors
    /// Bytes that are not the ones that gave `seal` at this place.
    pub fn open(
        &self,
        place: &Place,
        seal: &Seal,
        page: &mut [u8; SLOT_BYTES],
    ) -> Result<(), SlotError> {
        self.aead
            .open(&nonce(seal.counter), &context(place), page, &seal.tag)
            .map_err(|_| SlotError)
    }
}

fn nonce(counter: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

fn context(place: &Place) -> [u8; CONTEXT_BYTES] {
    let mut out = [0; CONTEXT_BYTES];
    out[..8].copy_from_slice(&place.slot.to_le_bytes());
    out[8..24].copy_from_slice(place.tenant.as_bytes());
    out[24..40].copy_from_slice(place.timeline.as_bytes());
    out[40..40 + Key::BYTES].copy_from_slice(&place.key.0);
    out[40 + Key::BYTES..].copy_from_slice(&place.lsn.0.to_le_bytes());
    out
}
