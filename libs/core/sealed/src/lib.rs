//! The sealed file format: every byte of a customer that Redoubt writes to a disk or a bucket
//! has one of the shapes of this crate. FORMAT.md beside it owns the bytes.
//!
//! Nothing here does I/O or knows the time. Randomness comes in through [`Entropy`], files come
//! in and go out as bytes. `cipher.rs` is the only file of the project that names a cipher.
#![forbid(unsafe_code)]

mod cipher;
pub mod header;
mod keys;
mod kind;
pub mod log;
pub mod object;
pub mod record;
pub mod slots;
pub mod wrap;

pub use header::HEADER_BYTES;
pub use keys::{Dek, Entropy, Kek, KeyMemory, new_file_id};
pub use kind::ObjectKind;
