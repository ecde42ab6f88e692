//! Data keys under lease: a node opens and mints keys only while its lease runs, and a fence
//! takes all of them away (KEYS rules K2, K5, K6).
//!
//! [`Keyring::connect`] asks keymanagers, renews, and listens to all of them for fences;
//! [`Keyring::fixed`] holds one KEK itself, for tests.

mod connection;
mod error;
mod held;
mod lease;
mod remote;
mod renewal;
mod ring;
mod verdict;
mod watch;

pub use connection::KeyringConfig;
pub use error::{ConnectError, KeyError};
pub use lease::{LeasedDek, Operation, TenantKeys};
pub use ring::{FixedConfig, Keyring};
