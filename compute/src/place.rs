//! Where things are: below the agent's directory, and in the watchdog's namespace.

use std::path::{Path, PathBuf};

/// What lies on the disk of the machine, sealed under the key of this boot.
#[must_use]
pub fn cipher(directory: &Path) -> PathBuf {
    directory.join("cipher")
}

/// Where the watchdog makes its root; empty for everybody else.
#[must_use]
pub fn inside(directory: &Path) -> PathBuf {
    directory.join("inside")
}

/// Below the root of the watchdog's namespace: all that is ours. The agent reaches it through
/// handles ([`crate::sandbox::Sandbox`]).
pub const OWN: &str = "/redoubt";

/// Inside: what nobody but root comes into.
#[must_use]
pub fn closed() -> PathBuf {
    Path::new(OWN).join("sealed")
}

/// Inside: what [`cipher`] is outside. Its owner is the disk's, so that another directory has to
/// keep PostgreSQL out.
#[must_use]
pub fn sealed() -> PathBuf {
    closed().join("cipher")
}

/// Inside: sockets, in memory.
#[must_use]
pub fn run() -> PathBuf {
    Path::new(OWN).join("run")
}

/// Inside: PostgreSQL's configuration, in memory.
#[must_use]
pub fn etc() -> PathBuf {
    Path::new(OWN).join("etc")
}

/// Inside: the sealed disk.
#[must_use]
pub fn disk() -> PathBuf {
    Path::new(OWN).join("disk")
}

/// Inside: the data directory.
#[must_use]
pub fn data() -> PathBuf {
    disk().join("data")
}

/// Inside: the module that PostgreSQL loads.
#[must_use]
pub fn guard() -> PathBuf {
    Path::new(OWN).join("redoubt_guard.so")
}

/// What only one agent holds at a time.
#[must_use]
pub fn lock(directory: &Path) -> PathBuf {
    directory.join("lock")
}
