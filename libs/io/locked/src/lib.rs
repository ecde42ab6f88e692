//! Keys in locked memory (K9, FORMAT part 9): never swapped out, in no core dump, not in a forked
//! child, and wiped when their holder drops them.
//!
//! [`begin`] locks the first chunk when a process starts, so that a limit that is too low shows
//! there. More chunks follow as keys come; none is ever given back.

mod arena;

pub use arena::{KEYS_PER_CHUNK, LockedKey, NoLockedMemory, begin};
