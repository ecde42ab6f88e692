//! Randomness from the operating system.

/// The kernel's random generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl OsEntropy {
    /// Fills `bytes`. A process without randomness would write keys that can be guessed, so it ends.
    pub fn fill_bytes(bytes: &mut [u8]) {
        if getrandom::fill(bytes).is_err() {
            std::process::abort();
        }
    }

    /// An array of random bytes.
    #[must_use]
    pub fn bytes<const N: usize>() -> [u8; N] {
        let mut bytes = [0; N];
        Self::fill_bytes(&mut bytes);
        bytes
    }
}

impl sealed::Entropy for OsEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        Self::fill_bytes(bytes);
    }
}
