//! The safekeeper: sealed WAL of many timelines, and the votes on who may write it.
#![forbid(unsafe_code)]

pub mod acceptor_record;
pub mod access;
pub mod admission;
pub mod archive;
pub mod config;
mod exposure;
pub mod framing;
pub mod http;
mod metrics;
mod offload;
pub mod timeline;
pub mod timelines;
pub mod wal_push;
pub mod wal_store;
mod walsender;
