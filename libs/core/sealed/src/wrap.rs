//! Data keys wrapped under the KEK of their tenant (FORMAT.md, part 1.2).

use std::ops::Range;

use ids::{KekId, KekVersion, TenantId, WRAP_SLOT_BYTES, WrapSlot};
use zeroize::{Zeroize, Zeroizing};

use crate::cipher::{self, Aead, NONCE_BYTES, Prk, TAG_BYTES};
use crate::{Dek, Entropy, Kek};

const KEK_ID: Range<usize> = 0..16;
const KEK_VERSION: Range<usize> = KEK_ID.end..KEK_ID.end + 4;
const ALGORITHM: usize = KEK_VERSION.end;
const STATE: usize = ALGORITHM + 1;
const RESERVED: Range<usize> = STATE + 1..STATE + 3;
const SALT: Range<usize> = RESERVED.end..RESERVED.end + 16;
const COMMITMENT: Range<usize> = SALT.end..SALT.end + 32;
const WRAPPED: Range<usize> = COMMITMENT.end..COMMITMENT.end + 32;
const TAG: Range<usize> = WRAPPED.end..WRAPPED.end + TAG_BYTES;
const RESERVED_END: Range<usize> = TAG.end..TAG.end + 8;
const _: () = assert!(RESERVED_END.end == WRAP_SLOT_BYTES, "the slot must close");

const ALGORITHM_GCM_SIV: u8 = 1;
const ACTIVE: u8 = 1;

/// Why a data key could not be unwrapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnwrapError {
    /// The slot holds no key.
    #[error("the wrap slot is empty")]
    Empty,
    /// Bytes that this version does not know.
    #[error("the wrap slot uses algorithm {algorithm} or reserved bytes, which are not known")]
    Unknown {
        /// The number of the algorithm.
        algorithm: u8,
    },
    /// Wrapped for another tenant, under another KEK or another version, or changed since.
    #[error("the data key was not wrapped under KEK {kek_id} version {kek_version} as given")]
    OtherKek {
        /// The KEK that the slot names.
        kek_id: KekId,
        /// The version that the slot names.
        kek_version: KekVersion,
    },
    /// The slot was changed after it was written.
    #[error("the wrapped data key is damaged")]
    Damaged,
}

/// Wraps `dek` for `tenant`. A fresh salt for each call makes a fresh wrapping key, so there is
/// no limit on the number of keys that a KEK wraps.
#[must_use]
pub fn wrap(
    kek: &Kek,
    tenant: TenantId,
    kek_id: KekId,
    kek_version: KekVersion,
    dek: &Dek,
    entropy: &mut dyn Entropy,
) -> WrapSlot {
    let mut slot = [0; WRAP_SLOT_BYTES];
    slot[KEK_ID].copy_from_slice(kek_id.as_bytes());
    slot[KEK_VERSION].copy_from_slice(&kek_version.0.to_le_bytes());
    slot[ALGORITHM] = ALGORITHM_GCM_SIV;
    slot[STATE] = ACTIVE;
    entropy.fill(&mut slot[SALT]);
    let (key, commitment) = derive(kek, tenant, &slot);
    slot[COMMITMENT].copy_from_slice(&commitment);
    slot[WRAPPED].copy_from_slice(dek.expose());
    let context = context(tenant, &slot);
    let tag = key.seal(&[0; NONCE_BYTES], &context, &mut slot[WRAPPED]);
    slot[TAG].copy_from_slice(&tag);
    WrapSlot(slot)
}

/// Unwraps the data key of `slot` for `tenant`.
///
/// # Errors
/// Whatever is not exactly what [`wrap`] made for this tenant under this KEK is refused.
pub fn unwrap(kek: &Kek, tenant: TenantId, slot: &WrapSlot) -> Result<Dek, UnwrapError> {
    let bytes = &slot.0;
    if !is_active(slot) {
        return Err(UnwrapError::Empty);
    }
    let reserved = bytes[RESERVED]
        .iter()
        .chain(&bytes[RESERVED_END])
        .any(|b| *b != 0);
    if bytes[ALGORITHM] != ALGORITHM_GCM_SIV || reserved {
        return Err(UnwrapError::Unknown {
            algorithm: bytes[ALGORITHM],
        });
    }
    let (key, commitment) = derive(kek, tenant, bytes);
    if !cipher::same(&commitment, &bytes[COMMITMENT]) {
        return Err(UnwrapError::OtherKek {
            kek_id: slot.kek_id(),
            kek_version: slot.kek_version(),
        });
    }
    let mut dek = Zeroizing::new([0; 32]);
    dek.copy_from_slice(&bytes[WRAPPED]);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&bytes[TAG]);
    key.open(
        &[0; NONCE_BYTES],
        &context(tenant, bytes),
        dek.as_mut(),
        &tag,
    )
    .map_err(|_| UnwrapError::Damaged)?;
    let opened = Dek::from_bytes(*dek);
    dek.zeroize();
    Ok(opened)
}

/// Whether the slot holds the key that readers use.
#[must_use]
pub fn is_active(slot: &WrapSlot) -> bool {
    slot.0[STATE] == ACTIVE
}

/// The slot with its state set: a slot that is not active waits, or is retired.
#[must_use]
pub fn with_active(slot: &WrapSlot, active: bool) -> WrapSlot {
    let mut bytes = slot.0;
    bytes[STATE] = u8::from(active);
    WrapSlot(bytes)
}

/// Whether the state of the slot is a known one.
pub(crate) fn state_is_known(slot: &WrapSlot) -> bool {
    slot.0[STATE] <= ACTIVE
}

fn derive(kek: &Kek, tenant: TenantId, slot: &[u8; WRAP_SLOT_BYTES]) -> (Aead, [u8; 32]) {
    let okm = Prk::extract(&slot[SALT], kek.bytes()).expand::<64>(&[
        b"redoubt1/dekwrap",
        &slot[KEK_ID],
        &slot[KEK_VERSION],
        tenant.as_bytes(),
    ]);
    let (mut key, mut commitment) = (Zeroizing::new([0; 32]), [0; 32]);
    key.copy_from_slice(&okm[..32]);
    commitment.copy_from_slice(&okm[32..]);
    (Aead::new(&key), commitment)
}

/// No data of a file: the keymanager mints wrapped keys before their file has a name.
fn context(tenant: TenantId, slot: &[u8; WRAP_SLOT_BYTES]) -> Vec<u8> {
    [
        &b"redoubt1/dek"[..],
        tenant.as_bytes(),
        &slot[KEK_ID],
        &slot[KEK_VERSION],
    ]
    .concat()
}
