//! Messages inside CopyData: WAL push, replication, pages.
//!
//! Every decoder takes the whole payload of one CopyData and refuses what is left over; every
//! message encodes back to the bytes that it was decoded from.
mod field;
pub mod pagestream;
pub mod replication;
pub mod wal_push;

pub use field::WireError;
