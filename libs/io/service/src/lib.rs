//! The chassis of every process: configuration, logs, metrics, tasks, clock, entropy, tokens,
//! TLS, HTTP and the PostgreSQL protocol.
//!
//! The first line of every `main` is [`init`].
#![forbid(unsafe_code)]

pub mod clock;
pub mod config;
pub mod entropy;
pub mod http;
pub mod libpq;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod task;
pub mod tls;
pub mod token;

/// Chooses the implementation of TLS for the process. Calling it again does nothing.
pub fn init() {
    // An error says that a provider is installed already: by an earlier call of this function.
    drop(rustls::crypto::ring::default_provider().install_default());
}
