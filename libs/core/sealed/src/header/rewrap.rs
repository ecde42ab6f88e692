//! Another KEK for a file that stays as it is (FORMAT.md, part 1.3).
//!
//! Each step replaces one sector, and the next is not taken before it is durable:
//!
//! | on the disk | slot in use | other slot | after a crash |
//! |---|---|---|---|
//! | as it was | old, active | empty or retired | begin |
//! | staged | old, active | new, waiting | begin again, or flip |
//! | flipped | new, active | old, retired | clear |
//! | cleared | new, active | empty | done |
//!
//!   R1  every row opens with exactly one slot: old up to the flip, new from it on;
//!   R2  nothing is flipped to a slot that was not read back and unwrapped to the data key of
//!       this very file;
//!   R3  the commitment and the data stay, so a crash between any two steps loses nothing.

use ids::{WRAP_SLOT_BYTES, WrapSlot};

use super::{HEADER_BYTES, Header, HeaderError};
use crate::{Dek, wrap};

/// Why a slot is not made the one in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlipError {
    /// What was read back is no header.
    #[error("the header was refused")]
    Header(#[from] HeaderError),
    /// No slot waits: it was not staged, or not written, or is flipped already.
    #[error("the header has no waiting wrap slot")]
    NothingStaged,
    /// The waiting slot holds a key, but of another file (R2).
    #[error("the waiting wrap slot does not hold the data key of this file")]
    OtherKey,
}

/// The sector with `slot` waiting beside the one in use. Write it, sync, read it back.
#[must_use]
pub fn stage(header: &Header, slot: &WrapSlot) -> [u8; HEADER_BYTES] {
    let mut staged = header.clone();
    let used = header.slot_in_use();
    staged.slots[1 - used] = wrap::with_active(slot, false);
    // Both active is a state that no step here makes, but that readers take.
    debug_assert!(wrap::is_active(&staged.slots[used]), "R1");
    staged.encode()
}

/// A header with a waiting slot, as it was read back from where it was written.
pub struct Staged(Header);

impl Staged {
    /// Takes what was read back after the sync.
    ///
    /// # Errors
    /// [`FlipError::Header`], [`FlipError::NothingStaged`].
    pub fn read_back(sector: &[u8]) -> Result<Self, FlipError> {
        let header = Header::decode(sector)?;
        let (used, other) = (
            header.active_slot(),
            &header.slots[1 - header.slot_in_use()],
        );
        let is_empty = other.0 == [0; WRAP_SLOT_BYTES];
        // A slot that was retired looks the same, but for its version. Versions of one tenant share
        // an id: what has another one cannot be told from a retired slot.
        let is_newer = other.kek_id() == used.kek_id() && other.kek_version() > used.kek_version();
        if wrap::is_active(other) || is_empty || !is_newer {
            return Err(FlipError::NothingStaged);
        }
        Ok(Self(header))
    }

    /// The waiting slot, to be unwrapped: what comes out of it is what [`Staged::flip`] asks for.
    #[must_use]
    pub fn waiting(&self) -> WrapSlot {
        wrap::with_active(&self.0.slots[1 - self.0.slot_in_use()], true)
    }

    /// The sector with the waiting slot in use and the other one retired. `dek` is what
    /// [`Staged::waiting`] was unwrapped to.
    ///
    /// # Errors
    /// [`FlipError::OtherKey`].
    pub fn flip(self, dek: &Dek) -> Result<[u8; HEADER_BYTES], FlipError> {
        let Self(mut header) = self;
        if !header.is_committed(&header.prk(dek)) {
            return Err(FlipError::OtherKey);
        }
        header.slots = header
            .slots
            .map(|slot| wrap::with_active(&slot, !wrap::is_active(&slot)));
        Ok(header.encode())
    }
}

impl Header {
    /// Without the slot that is not in use: the last step after a flip, for where the old KEK is
    /// known to somebody, its wrap is not to stay.
    #[must_use]
    pub fn cleared(&self) -> [u8; HEADER_BYTES] {
        let mut cleared = self.clone();
        cleared.slots[1 - self.slot_in_use()] = WrapSlot([0; WRAP_SLOT_BYTES]);
        cleared.encode()
    }

    /// 0 for A, 1 for B. Where both are active, A is used.
    pub(super) fn slot_in_use(&self) -> usize {
        usize::from(!wrap::is_active(&self.slots[0]))
    }
}
