//! From a base backup to a data directory that stock PostgreSQL starts from without recovery.

pub mod archive;
pub mod shutdown;
