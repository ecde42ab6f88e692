//! The names that every part of Redoubt uses: positions in WAL, identifiers, terms and
//! generations, wrapped keys and the keys of pages.
//!
//! Nothing here does I/O, and nothing here is secret: a wrapped key is ciphertext.
#![forbid(unsafe_code)]

mod id;
mod key;
mod lsn;
mod number;
mod wrapped;

pub use id::{FileId, IdParseError, KekId, TenantId, TimelineId};
pub use key::{Fork, Key, KeyKind, RelTag, SlruKind};
pub use lsn::{Lsn, LsnParseError};
pub use number::{Generation, KekVersion, NodeId, Term};
pub use wrapped::{WRAP_SLOT_BYTES, WrapSlot};
