//! Where things are below the agent's directory.

use std::path::{Path, PathBuf};

/// What lies on the disk of the machine, sealed under the key of this boot.
#[must_use]
pub fn cipher(directory: &Path) -> PathBuf {
    directory.join("cipher")
}

/// Sockets, in memory; inside only. The agent reaches them through a handle
/// ([`crate::sandbox::Sandbox::sockets`]).
#[must_use]
pub fn run(directory: &Path) -> PathBuf {
    directory.join("run")
}

/// Where the watchdog mounts; empty for everybody else.
#[must_use]
pub fn inside(directory: &Path) -> PathBuf {
    directory.join("inside")
}

/// PostgreSQL's configuration, in memory; inside only.
#[must_use]
pub fn etc(directory: &Path) -> PathBuf {
    inside(directory).join("etc")
}

/// The sealed disk; inside only.
#[must_use]
pub fn disk(directory: &Path) -> PathBuf {
    inside(directory).join("disk")
}

/// The data directory; inside only.
#[must_use]
pub fn data(directory: &Path) -> PathBuf {
    disk(directory).join("data")
}

/// What only one agent holds at a time.
#[must_use]
pub fn lock(directory: &Path) -> PathBuf {
    directory.join("lock")
}
