//! Remembers every message that this process seals, and stops it when one key and nonce meet
//! two (W1). The same message twice is harmless, and is what tests with fixed keys do.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use super::{NONCE_BYTES, digest};

type Used = HashMap<([u8; 32], [u8; NONCE_BYTES]), [u8; 32]>;

static USED: LazyLock<Mutex<Used>> = LazyLock::new(Mutex::default);

pub(super) fn note(key: [u8; 32], nonce: [u8; NONCE_BYTES], context: &[u8], plaintext: &[u8]) {
    let message = digest(&[&digest(context)[..], plaintext].concat());
    let before = USED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert((key, nonce), message);
    assert!(
        before.is_none_or(|before| before == message),
        "W1: one key and nonce for two messages"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_message_may_be_sealed_twice() {
        note([1; 32], [0; NONCE_BYTES], b"c", b"p");
        note([1; 32], [0; NONCE_BYTES], b"c", b"p");
    }

    #[test]
    #[should_panic(expected = "W1")]
    fn another_message_under_a_used_nonce_stops_the_process() {
        note([2; 32], [0; NONCE_BYTES], b"c", b"p");
        note([2; 32], [0; NONCE_BYTES], b"c", b"q");
    }
}
