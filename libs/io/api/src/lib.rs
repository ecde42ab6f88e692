//! The contracts between processes: what they ask each other, how they refuse, and the client.
#![forbid(unsafe_code)]

mod client;
mod grade;
pub mod keys;
mod operator;
mod renewal;
pub mod timeline;

pub use client::{Client, ClientError};
pub use grade::{ErrorBody, Grade};
/// The body of [`Client::post_stream`].
pub use reqwest::Body;
