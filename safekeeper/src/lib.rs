//! The safekeeper: sealed WAL of many timelines, and the votes on who may write it.
#![forbid(unsafe_code)]

pub mod acceptor_record;
pub mod wal_store;
