//! The key space of a timeline: everything that a page server can be asked for has a key.
//!
//! A key is 18 bytes, ordered as bytes: `kind 1 | a 4 | b 4 | c 4 | d 1 | e 4`, big-endian.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A fork of a relation; the numbers are PostgreSQL's (`relpath.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Fork {
    /// The data.
    Main = 0,
    /// The free space map.
    Fsm = 1,
    /// The visibility map.
    Vm = 2,
    /// What an unlogged relation is reset to.
    Init = 3,
}

impl Fork {
    /// The fork with PostgreSQL's number `n`.
    #[must_use]
    pub const fn from_number(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::Main),
            1 => Some(Self::Fsm),
            2 => Some(Self::Vm),
            3 => Some(Self::Init),
            _ => None,
        }
    }

    /// The ending of file names of this fork: empty for the data.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Fsm => "_fsm",
            Self::Vm => "_vm",
            Self::Init => "_init",
        }
    }
}

/// One fork of one relation: `RelFileLocator` and fork number of PostgreSQL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelTag {
    /// The tablespace: 1663 is `base/`, 1664 is `global/`.
    pub spc: u32,
    /// The database; 0 for shared relations.
    pub db: u32,
    /// The relation file number.
    pub rel: u32,
    /// The fork.
    pub fork: Fork,
}

impl fmt::Debug for RelTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}{}",
            self.spc,
            self.db,
            self.rel,
            self.fork.suffix()
        )
    }
}

impl fmt::Display for RelTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The SLRUs whose segments belong to a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum SlruKind {
    /// `pg_xact`: transaction status.
    Clog = 0,
    /// `pg_multixact/members`.
    MultiXactMembers = 1,
    /// `pg_multixact/offsets`.
    MultiXactOffsets = 2,
    /// `pg_commit_ts`.
    CommitTs = 3,
}

impl SlruKind {
    /// The SLRU with this number on the wire.
    #[must_use]
    pub const fn from_number(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::Clog),
            1 => Some(Self::MultiXactMembers),
            2 => Some(Self::MultiXactOffsets),
            3 => Some(Self::CommitTs),
            _ => None,
        }
    }

    /// The directory below the data directory.
    #[must_use]
    pub const fn directory(self) -> &'static str {
        match self {
            Self::Clog => "pg_xact",
            Self::MultiXactMembers => "pg_multixact/members",
            Self::MultiXactOffsets => "pg_multixact/offsets",
            Self::CommitTs => "pg_commit_ts",
        }
    }
}

/// What a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// The list of databases: value is owned by the page server.
    Databases,
    /// `pg_filenode.map` of a database (`spc`, `db`).
    RelMap {
        /// Tablespace.
        spc: u32,
        /// Database; 0 for the shared map.
        db: u32,
    },
    /// The list of relations of a database.
    Relations {
        /// Tablespace.
        spc: u32,
        /// Database.
        db: u32,
    },
    /// The length of a fork, in blocks.
    RelSize(RelTag),
    /// A block of a fork.
    RelBlock(RelTag, u32),
    /// The list of segments of an SLRU.
    SlruSegments(SlruKind),
    /// The length of an SLRU segment, in blocks.
    SlruSize(SlruKind, u32),
    /// A block of an SLRU segment.
    SlruBlock(SlruKind, u32, u32),
    /// The list of two-phase files.
    TwoPhaseFiles,
    /// The state of a prepared transaction, by its xid.
    TwoPhase(u64),
    /// `pg_control` as it was imported.
    ControlFile,
    /// The checkpoint fields as of an LSN.
    Checkpoint,
    /// The list of other files that a base backup restores.
    AuxFiles,
    /// Such a file, its path among it, by its number in the list.
    AuxFile(u32),
    /// When the latest transaction ended, in microseconds since 2000, little-endian; it never
    /// goes back.
    CommitTime,
    /// The progress of a replication origin.
    ReplOrigin(u16),
    /// The list of tablespaces of the user.
    Tablespaces,
    /// The list of replication origins that have a progress.
    ReplOrigins,
}

/// A key of the page server's key space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; Key::BYTES]);

impl Key {
    /// The length of a key.
    pub const BYTES: usize = 18;
    /// The lowest key.
    pub const MIN: Self = Self([0; Self::BYTES]);
    /// Above every key that names something.
    pub const MAX: Self = Self([0xFF; Self::BYTES]);

    const fn pack(kind: u8, a: u32, b: u32, c: u32, d: u8, e: u32) -> Self {
        let (a, b, c, e) = (
            a.to_be_bytes(),
            b.to_be_bytes(),
            c.to_be_bytes(),
            e.to_be_bytes(),
        );
        Self([
            kind, a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d, e[0],
            e[1], e[2], e[3],
        ])
    }

    const fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    /// The key of `kind`.
    #[must_use]
    pub const fn new(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Databases => Self::pack(0, 0, 0, 0, 0, 0),
            KeyKind::RelMap { spc, db } => Self::pack(0, spc, db, 0, 0, 0),
            KeyKind::Relations { spc, db } => Self::pack(0, spc, db, 0, 0, 1),
            KeyKind::RelSize(r) => Self::pack(0, r.spc, r.db, r.rel, r.fork as u8, u32::MAX),
            KeyKind::RelBlock(r, block) => Self::pack(0, r.spc, r.db, r.rel, r.fork as u8, block),
            KeyKind::SlruSegments(slru) => Self::pack(1, slru as u32, 0, 0, 0, 0),
            KeyKind::SlruSize(slru, segment) => Self::pack(1, slru as u32, 1, segment, 0, u32::MAX),
            KeyKind::SlruBlock(slru, segment, block) => {
                Self::pack(1, slru as u32, 1, segment, 0, block)
            }
            KeyKind::TwoPhaseFiles => Self::pack(2, 0, 0, 0, 0, 0),
            KeyKind::TwoPhase(xid) => Self::pack(2, 1, (xid >> 32) as u32, 0, 0, xid as u32),
            KeyKind::ControlFile => Self::pack(3, 0, 0, 0, 0, 0),
            KeyKind::Checkpoint => Self::pack(3, 0, 0, 0, 0, 1),
            KeyKind::AuxFiles => Self::pack(3, 0, 0, 0, 0, 2),
            KeyKind::AuxFile(number) => Self::pack(3, 1, 0, 0, 0, number),
            KeyKind::CommitTime => Self::pack(3, 0, 0, 0, 0, 3),
            KeyKind::ReplOrigin(origin) => Self::pack(4, 0, 0, 0, 0, origin as u32),
            KeyKind::Tablespaces => Self::pack(3, 0, 0, 0, 0, 4),
            KeyKind::ReplOrigins => Self::pack(3, 0, 0, 0, 0, 5),
        }
    }

    /// What this key names; `None` for bytes that no [`KeyKind`] makes.
    #[must_use]
    pub fn kind(&self) -> Option<KeyKind> {
        let (a, b, c, d, e) = (
            self.word(1),
            self.word(5),
            self.word(9),
            self.0[13],
            self.word(14),
        );
        let slru = || SlruKind::from_number(u8::try_from(a).ok()?);
        let kind = match (self.0[0], a, b, c, d, e) {
            (0, 0, 0, 0, 0, 0) => KeyKind::Databases,
            (0, spc, db, 0, 0, 0) => KeyKind::RelMap { spc, db },
            (0, spc, db, 0, 0, 1) => KeyKind::Relations { spc, db },
            (0, spc, db, rel, fork, block) => {
                let tag = RelTag {
                    spc,
                    db,
                    rel,
                    fork: Fork::from_number(fork)?,
                };
                if block == u32::MAX {
                    KeyKind::RelSize(tag)
                } else {
                    KeyKind::RelBlock(tag, block)
                }
            }
            (1, _, 0, 0, 0, 0) => KeyKind::SlruSegments(slru()?),
            (1, _, 1, segment, 0, u32::MAX) => KeyKind::SlruSize(slru()?, segment),
            (1, _, 1, segment, 0, block) => KeyKind::SlruBlock(slru()?, segment, block),
            (2, 0, 0, 0, 0, 0) => KeyKind::TwoPhaseFiles,
            (2, 1, high, 0, 0, low) => KeyKind::TwoPhase(u64::from(high) << 32 | u64::from(low)),
            (3, 0, 0, 0, 0, 0) => KeyKind::ControlFile,
            (3, 0, 0, 0, 0, 1) => KeyKind::Checkpoint,
            (3, 0, 0, 0, 0, 2) => KeyKind::AuxFiles,
            (3, 1, 0, 0, 0, number) => KeyKind::AuxFile(number),
            (3, 0, 0, 0, 0, 3) => KeyKind::CommitTime,
            (3, 0, 0, 0, 0, 4) => KeyKind::Tablespaces,
            (3, 0, 0, 0, 0, 5) => KeyKind::ReplOrigins,
            (4, 0, 0, 0, 0, origin) => KeyKind::ReplOrigin(u16::try_from(origin).ok()?),
            _ => return None,
        };
        // Several byte strings must not name the same thing.
        (Self::new(kind) == *self).then_some(kind)
    }

    /// The next key in order; [`Key::MAX`] stays where it is.
    #[must_use]
    pub fn next(self) -> Self {
        let mut bytes = self.0;
        for byte in bytes.iter_mut().rev() {
            let (value, carried) = byte.overflowing_add(1);
            *byte = value;
            if !carried {
                return Self(bytes);
            }
        }
        Self::MAX
    }
}

impl From<KeyKind> for Key {
    fn from(kind: KeyKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            Some(kind) => write!(f, "{kind:?}"),
            None => fmt::Display::fmt(self, f),
        }
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; Self::BYTES];
        hex::decode_to_slice(&text, &mut bytes).map_err(de::Error::custom)?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: RelTag = RelTag {
        spc: 1663,
        db: 5,
        rel: 16384,
        fork: Fork::Vm,
    };

    #[test]
    fn every_kind_is_read_back_from_its_key() {
        for kind in [
            KeyKind::Databases,
            KeyKind::RelMap { spc: 1664, db: 0 },
            KeyKind::Relations { spc: 1663, db: 5 },
            KeyKind::RelSize(TAG),
            KeyKind::RelBlock(TAG, 0),
            KeyKind::RelBlock(TAG, u32::MAX - 1),
            KeyKind::SlruSegments(SlruKind::CommitTs),
            KeyKind::SlruSize(SlruKind::Clog, 7),
            KeyKind::SlruBlock(SlruKind::MultiXactMembers, 0xFFFF, 31),
            KeyKind::TwoPhaseFiles,
            KeyKind::TwoPhase(0x1_0000_0002),
            KeyKind::ControlFile,
            KeyKind::Checkpoint,
            KeyKind::AuxFiles,
            KeyKind::AuxFile(u32::MAX),
            KeyKind::CommitTime,
            KeyKind::ReplOrigin(u16::MAX),
            KeyKind::Tablespaces,
            KeyKind::ReplOrigins,
        ] {
            assert_eq!(Key::new(kind).kind(), Some(kind));
        }
    }

    #[test]
    fn blocks_of_a_fork_are_in_order_and_below_its_size() {
        let block = |n| Key::new(KeyKind::RelBlock(TAG, n));
        assert!(block(0) < block(1) && block(255) < block(256));
        assert!(block(u32::MAX - 1) < Key::new(KeyKind::RelSize(TAG)));
        assert_eq!(block(255).next(), block(256));
    }

    #[test]
    fn bytes_that_name_nothing_have_no_kind() {
        assert_eq!(Key::MAX.kind(), None);
        assert_eq!(Key::MAX.next(), Key::MAX);
    }
}
