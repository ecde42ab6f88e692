//! Files that PostgreSQL does not log, and that are kept all the same (C7): the agent of a compute
//! writes each into WAL as a logical message under a reserved prefix, and the base backup has the
//! newest content of it.
//!
//! Everybody may emit a message with any prefix, so the prefix alone says nothing. A record of the
//! agent's own sessions has an origin that no other session can take: PostgreSQL makes no origin
//! with that number. The guard sets it.

use std::fmt;

/// What the prefix of such a message begins with; the path follows.
pub const PREFIX: &str = "redoubt/file/";
/// The origin of the agent's records: PostgreSQL's own `DoNotReplicateId`.
pub const ORIGIN: u16 = 0xFFFF;
/// The longest content.
pub const FILE_BYTES_MAX: usize = 256 << 10;
/// The most files of one timeline.
pub const FILES_MAX: usize = 4096;

/// The settings of `ALTER SYSTEM`.
pub const AUTO_CONF: &str = "postgresql.auto.conf";
/// The directory of replication slots.
pub const SLOTS: &str = "pg_replslot";
/// The directory of snapshots that logical slots start from.
pub const SNAPSHOTS: &str = "pg_logical/snapshots";
/// The directory of what logical slots know of rewritten catalogs.
pub const MAPPINGS: &str = "pg_logical/mappings";

/// The slot of the agent itself, which is of one boot.
const OWN_SLOT: &str = "redoubt";
const NAME_BYTES_MAX: usize = 128;

/// A path below the data directory that is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeptPath(String);

impl KeptPath {
    /// `path`, where it is one of those that are kept: never one that leaves the data directory.
    #[must_use]
    pub fn new(path: &str) -> Option<Self> {
        let kept = match path.rsplit_once('/') {
            None => path == AUTO_CONF,
            Some((SNAPSHOTS, name)) => name
                .strip_suffix(".snap")
                .and_then(|name| name.split_once('-'))
                .is_some_and(|(high, low)| is_hex(high) && is_hex(low)),
            Some((MAPPINGS, name)) => name
                .strip_prefix("map-")
                .is_some_and(|rest| rest.split(['-', '_']).all(is_hex)),
            Some((directory, "state")) => slot_of(directory).is_some(),
            Some(_) => false,
        };
        (kept && path.len() <= NAME_BYTES_MAX).then(|| Self(path.to_owned()))
    }

    /// The path that a message with this prefix is of.
    #[must_use]
    pub fn of_prefix(prefix: &[u8]) -> Option<Self> {
        Self::new(std::str::from_utf8(prefix).ok()?.strip_prefix(PREFIX)?)
    }

    /// The prefix of its messages.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{PREFIX}{}", self.0)
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The slot that this is the state of.
    #[must_use]
    pub fn slot(&self) -> Option<&str> {
        slot_of(self.0.strip_suffix("/state")?)
    }
}

impl fmt::Display for KeptPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of the slot whose directory this is, where it is not the agent's.
fn slot_of(directory: &str) -> Option<&str> {
    let name = directory.strip_prefix(SLOTS)?.strip_prefix('/')?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let known = !name.is_empty() && name.len() < 64 && name.bytes().all(plain);
    (known && name != OWN_SLOT).then_some(name)
}

fn is_hex(text: &str) -> bool {
    (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_paths_are_kept() {
        for path in [
            "postgresql.auto.conf",
            "pg_replslot/my_slot_1/state",
            "pg_logical/snapshots/0-16B3748.snap",
            "pg_logical/mappings/map-5-4f2-0_16B3748-2d9-2da",
        ] {
            let kept = KeptPath::new(path).unwrap();
            assert_eq!(kept.as_str(), path);
            assert_eq!(KeptPath::of_prefix(kept.prefix().as_bytes()), Some(kept));
        }
        for path in [
            "",
            "/postgresql.auto.conf",
            "../postgresql.auto.conf",
            "pg_replslot/../state",
            "pg_replslot/a/b/state",
            "pg_replslot//state",
            "pg_replslot/redoubt/state",
            "pg_replslot/Upper/state",
            "pg_replslot/slot/state.tmp",
            "pg_logical/snapshots/../../x.snap",
            "pg_logical/snapshots/0-16B3748.snap.1234.tmp",
            "pg_logical/snapshots/x-0.snap",
            "pg_logical/mappings/map-",
            "pg_logical/mappings/map-../x",
            "postgresql.conf",
            "global/pg_control",
            "pg_replslot\0/a/state",
        ] {
            assert_eq!(KeptPath::new(path), None, "{path:?}");
        }
        let long = format!("pg_replslot/{}/state", "a".repeat(64));
        assert_eq!(KeptPath::new(&long), None);
        assert_eq!(KeptPath::of_prefix(b"postgresql.auto.conf"), None);
    }

    #[test]
    fn a_state_names_its_slot() {
        let slot = KeptPath::new("pg_replslot/orders/state").unwrap();
        assert_eq!(slot.slot(), Some("orders"));
        let other = KeptPath::new("postgresql.auto.conf").unwrap();
        assert_eq!(other.slot(), None);
    }
}
