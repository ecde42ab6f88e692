//! The only file that names a cipher: AES-256-GCM-SIV (RFC 8452), HKDF and HMAC on SHA-256.

use aes_gcm_siv::aead::inout::InOutBuf;
use aes_gcm_siv::{AeadInOut, Aes256GcmSiv, KeyInit};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The length of every authentication tag.
pub(crate) const TAG_BYTES: usize = 16;
/// The length of every nonce.
pub(crate) const NONCE_BYTES: usize = 12;
/// AES-256-GCM-SIV.
pub(crate) const CIPHER_GCM_SIV: u8 = 1;
/// AES-256-GCM: reserved for builds on a validated module; this build refuses it.
const CIPHER_GCM: u8 = 2;
/// HKDF on SHA-256.
pub(crate) const KDF_SHA256: u8 = 1;

/// What a number that this build refuses is kept for, as a part of a sentence.
pub(crate) const fn reserved_for(cipher: u8) -> &'static str {
    match cipher {
        CIPHER_GCM => " (AES-256-GCM, reserved for builds on a validated module)",
        _ => "",
    }
}

/// The bytes are not what was sealed under this key, nonce and context.
pub(crate) struct Forged;

/// `expand[extract(salt, secret)](info)` → bytes. HKDF-SHA256, RFC 5869.
pub(crate) struct Prk(Hkdf<Sha256>);

impl Prk {
    pub(crate) fn extract(salt: &[u8], secret: &[u8; 32]) -> Self {
        Self(Hkdf::new(Some(salt), secret))
    }

    pub(crate) fn expand<const N: usize>(&self, info: &[&[u8]]) -> Zeroizing<[u8; N]> {
        const { assert!(N <= 255 * 32, "HKDF cannot give more") };
        let mut out = Zeroizing::new([0; N]);
        self.0
            .expand_multi_info(info, out.as_mut())
            .expect("the length is checked above");
        out
    }
}

/// A key of AES-256-GCM-SIV, ready for use; its round keys are wiped when dropped.
pub(crate) struct Aead {
    cipher: Aes256GcmSiv,
    #[cfg(feature = "nonce-audit")]
    key_digest: [u8; 32],
}

impl Aead {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self {
            cipher: Aes256GcmSiv::new(key.into()),
            #[cfg(feature = "nonce-audit")]
            key_digest: digest(key),
        }
    }

    /// seal[key, nonce](context, plaintext) → ciphertext in place and tag.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        context: &[u8],
        buffer: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        #[cfg(feature = "nonce-audit")]
        audit::note(self.key_digest, *nonce, context, buffer);
        self.cipher
            .encrypt_inout_detached(nonce.into(), context, InOutBuf::from(buffer))
            .expect("no message of this crate is near the limit of 64 GiB")
            .into()
    }

    /// open[key, nonce](context, ciphertext, tag) → plaintext in place, or nothing.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        context: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Forged> {
        self.cipher
            .decrypt_inout_detached(nonce.into(), context, InOutBuf::from(buffer), tag.into())
            .map_err(|_| Forged)
    }
}

/// `mac[key](message)` → the first 16 bytes of HMAC-SHA256.
pub(crate) fn mac(key: &[u8; 32], message: &[u8]) -> [u8; TAG_BYTES] {
    let mut hmac =
        <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    hmac.update(message);
    let full: [u8; 32] = hmac.finalize().into_bytes().into();
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&full[..TAG_BYTES]);
    tag
}

/// SHA-256.
pub(crate) fn digest(message: &[u8]) -> [u8; 32] {
    Sha256::digest(message).into()
}

/// Whether two values are the same, in a time that does not depend on them.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// The nonce of the message with this number: the base with the number XORed into bytes 4..12.
pub(crate) fn numbered(base: &[u8; NONCE_BYTES], number: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = *base;
    for (byte, n) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
        *byte ^= n;
    }
    nonce
}

#[cfg(feature = "nonce-audit")]
mod audit;
#[cfg(test)]
mod tests;
