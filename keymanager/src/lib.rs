//! The keymanager: asks the customers' KMS whether keys may still be used, and leases data keys
//! to nodes for as long as the answer is yes (KEYS.md).
//!
//! This version serves leases, unwraps and mints for tenants whose key is a local KMS. It has no
//! fence pushes (`Watch`), no revocation by request (K7) and no placement tokens yet, and it asks
//! no cloud KMS.

pub mod class;
pub mod kek;
pub mod kms;
pub mod ledger;
pub mod service;
pub mod timings;
pub mod unit;
