//! Data keys under lease: a node opens and mints keys only while its lease runs, and a fence
//! takes all of them away (KEYS rules K2, K5, K6).
//!
//! [`Keyring::connect`] asks keymanagers; [`Keyring::fixed`] holds one KEK itself, for tests. This
//! version learns of a fence by its next renewal: it does not watch for pushes yet.

mod error;
mod lease;
mod remote;
mod ring;

pub use error::KeyError;
pub use lease::{LeasedDek, Operation, TenantKeys};
pub use remote::KeyringConfig;
pub use ring::{FixedConfig, Keyring};
