//! Stock PostgreSQL servers, run by the tests of other crates.
//!
//! A [`Release`] is a set of programs, a [`Scene`] a directory in which its servers run, and
//! [`wal`] reads what they wrote. Whatever fails here panics: it is for tests alone.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "only tests link this, and a test may"
)]

mod release;
mod scene;
mod shell;
pub mod wal;

pub use release::{DEBIAN, RELEASES, Release};
pub use scene::Scene;
pub use shell::sh;
