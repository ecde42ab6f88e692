//! What PostgreSQL defined and Redoubt obeys: pages, WAL, `pg_control`, the data directory, wire
//! messages.
//!
//! Everything here is pure: bytes in, values or errors out. Bytes come from computes, which are
//! hostile to the storage, so nothing here trusts a length or an offset.
#![forbid(unsafe_code)]

pub mod control;
mod cursor;
pub mod datadir;
pub mod kept;
pub mod origins;
pub mod page;
pub mod rmgr;
pub mod tablespace;
mod version;
pub mod wal;
pub mod wire;

pub use version::{PgMajor, UnsupportedVersion};
