//! Turns WAL into layers, and answers what any page was at any LSN.
//!
//! WAL comes from safekeepers, becomes values, and reaches the bucket as sealed layers; pages are
//! rebuilt from these through `redo`. What a process is made of is in [`server`].
#![forbid(unsafe_code)]

mod backoff;
mod backup;
mod compact;
pub mod config;
mod http;
mod import;
mod ingest;
mod layer;
mod manifest;
mod metrics;
mod page_service;
mod rebuild;
mod refusal;
pub mod server;
mod tenants;
mod timeline;
mod value;
mod view;
mod wal_receiver;
