//! The keymanager: asks the customers' KMS whether keys may still be used, and leases data keys
//! to nodes for as long as the answer is yes (KEYS.md).
//!
//! It asks AWS KMS, or a local KMS for development; Azure and Google are not asked yet. Owners
//! revoke at their KMS, or by request (K7); nodes hear of it at once where they watch (K4).

pub mod class;
pub mod kek;
pub mod kms;
pub mod ledger;
mod metrics;
pub mod request;
pub mod service;
pub mod timings;
pub mod unit;
