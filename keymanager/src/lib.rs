//! The keymanager: asks the customers' KMS whether keys may still be used, and leases data keys
//! to nodes for as long as the answer is yes (KEYS.md).
//!
//! This version has the decisions (times, classes of provider errors, the state machine of an
//! authorization unit; they do no I/O and read no clock), the local KMS, the KEKs with their
//! documents in the bucket, and the audit ledger, but no server yet.

pub mod class;
pub mod kek;
pub mod kms;
pub mod ledger;
pub mod timings;
pub mod unit;
