//! The agent beside one PostgreSQL: gives it a sealed disk whose key lives as long as the
//! lease, a base backup to start from, and the one standby that makes its commits durable.
#![forbid(unsafe_code)]

pub mod boot;
pub mod config;
pub mod create;
pub mod deadline;
pub mod door;
pub mod failure;
pub mod inside;
mod keep;
pub mod lease;
pub mod place;
pub mod postgres;
pub mod proposer;
pub mod run;
pub mod sandbox;
pub mod standby;
pub mod status;
pub mod storage;
