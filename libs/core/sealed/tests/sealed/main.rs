//! What an adversary with full control of the stored bytes can and cannot do, and the bytes of
//! version 1 as they were first written.
// These seal many messages under fixed keys and names, which the audit is there to catch.
#![cfg(not(feature = "nonce-audit"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing test is to stop"
)]

mod golden;
mod log;
mod object;
mod record;
mod rehome;
mod rewrap;
mod support;
mod wrap;
mod writer;
