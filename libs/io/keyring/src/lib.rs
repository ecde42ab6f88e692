//! Data keys under lease: a node opens and mints keys only while its lease runs, and a fence
//! takes all of them away (KEYS rules K2, K5, K6).
//!
//! This version has [`Keyring::fixed`], which holds one KEK itself and asks no keymanager.

mod error;
mod lease;
mod ring;

pub use error::KeyError;
pub use lease::{LeasedDek, Operation, TenantKeys};
pub use ring::{FixedConfig, Keyring};
