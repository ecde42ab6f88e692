//! Keys in the clear, and where randomness comes from.

use ids::FileId;
use zeroize::Zeroizing;

/// A source of random bytes that is fit for keys.
pub trait Entropy {
    /// Fills `bytes`; a source that cannot do so must not return.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// Memory that holds the bytes of one key, and wipes them when it is dropped.
pub trait KeyMemory: Send + Sync {
    /// The bytes.
    fn bytes(&self) -> &[u8; 32];
}

/// For keys on their way to memory that is locked (FORMAT.md, part 9).
impl KeyMemory for Zeroizing<[u8; 32]> {
    fn bytes(&self) -> &[u8; 32] {
        self
    }
}

/// A key-encryption key of a tenant. Wiped when dropped; cannot be printed, copied or stored.
pub struct Kek(Box<dyn KeyMemory>);

impl Kek {
    /// Takes the bytes of a key.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Box::new(Zeroizing::new(bytes)))
    }

    /// The same key in the memory that `keep` makes; the old one is wiped.
    ///
    /// # Errors
    /// What `keep` returns; then the key is gone.
    pub fn kept<M: KeyMemory + 'static, E>(
        self,
        keep: impl FnOnce(&[u8; 32]) -> Result<M, E>,
    ) -> Result<Self, E> {
        Ok(Self(Box::new(keep(self.bytes())?)))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        self.0.bytes()
    }
}

/// The data key of one file. Wiped when dropped; cannot be printed, copied or stored.
pub struct Dek(Box<dyn KeyMemory>);

impl Dek {
    /// A fresh key.
    #[must_use]
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = Box::new(Zeroizing::new([0; 32]));
        entropy.fill(bytes.as_mut().as_mut());
        Self(bytes)
    }

    /// Takes the bytes of a key.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Box::new(Zeroizing::new(bytes)))
    }

    /// The same key in the memory that `keep` makes; the old one is wiped.
    ///
    /// # Errors
    /// What `keep` returns; then the key is gone.
    pub fn kept<M: KeyMemory + 'static, E>(
        self,
        keep: impl FnOnce(&[u8; 32]) -> Result<M, E>,
    ) -> Result<Self, E> {
        Ok(Self(Box::new(keep(self.expose())?)))
    }

    /// The bytes of the key, for handing it to another process that holds a lease.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.0.bytes()
    }
}

/// The identifier of a new file: random, so never used twice.
#[must_use]
pub fn new_file_id(entropy: &mut dyn Entropy) -> FileId {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    FileId(bytes)
}
