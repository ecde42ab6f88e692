//! The keymanager: asks the customers' KMS whether keys may still be used, and leases data keys
//! to nodes for as long as the answer is yes (KEYS.md).
//!
//! This version has the decisions only: times, classes of provider errors, and the state machine
//! of an authorization unit. They do no I/O and read no clock.

pub mod class;
pub mod timings;
pub mod unit;
