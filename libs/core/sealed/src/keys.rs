//! Keys in the clear, and where randomness comes from.

use ids::FileId;
use zeroize::Zeroizing;

/// A source of random bytes that is fit for keys.
pub trait Entropy {
    /// Fills `bytes`; a source that cannot do so must not return.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// A key-encryption key of a tenant. Wiped when dropped; cannot be printed, copied or stored.
pub struct Kek(Zeroizing<[u8; 32]>);

impl Kek {
    /// Takes the bytes of a key.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The data key of one file. Wiped when dropped; cannot be printed, copied or stored.
pub struct Dek(Zeroizing<[u8; 32]>);

impl Dek {
    /// A fresh key.
    #[must_use]
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(bytes.as_mut());
        Self(bytes)
    }

    /// Takes the bytes of a key.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes of the key, for handing it to another process that holds a lease.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The identifier of a new file: random, so never used twice.
#[must_use]
pub fn new_file_id(entropy: &mut dyn Entropy) -> FileId {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    FileId(bytes)
}
