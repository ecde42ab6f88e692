//! The resource managers of PostgreSQL, by number (`rmgrlist.h`, the same in 14 to 18).

/// Checkpoints, images, switches.
pub const XLOG: u8 = 0;
/// Commit, abort, prepare.
pub const XACT: u8 = 1;
/// Creation and truncation of forks.
pub const SMGR: u8 = 2;
/// Transaction status.
pub const CLOG: u8 = 3;
/// Creation and removal of databases.
pub const DBASE: u8 = 4;
/// Tablespaces.
pub const TBLSPC: u8 = 5;
/// Multixacts.
pub const MULTIXACT: u8 = 6;
/// Relation maps.
pub const RELMAP: u8 = 7;
/// Hot standby.
pub const STANDBY: u8 = 8;
/// Heap, second part.
pub const HEAP2: u8 = 9;
/// Heap.
pub const HEAP: u8 = 10;
/// B-tree.
pub const BTREE: u8 = 11;
/// Hash index.
pub const HASH: u8 = 12;
/// GIN index.
pub const GIN: u8 = 13;
/// GiST index.
pub const GIST: u8 = 14;
/// Sequence.
pub const SEQ: u8 = 15;
/// SP-GiST index.
pub const SPGIST: u8 = 16;
/// BRIN index.
pub const BRIN: u8 = 17;
/// Commit timestamps.
pub const COMMIT_TS: u8 = 18;
/// Replication origins.
pub const REPLORIGIN: u8 = 19;
/// Generic page deltas.
pub const GENERIC: u8 = 20;
/// Logical messages.
pub const LOGICALMSG: u8 = 21;

/// The first of those that extensions bring along (15 on): custom ones.
pub const CUSTOM_MIN: u8 = 128;
/// Neon's heap records with command ids: a custom one that PostgreSQL patched by Neon writes.
pub const NEON: u8 = 134;

const NAMES: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

/// The name that `pg_waldump` gives to a resource manager; of custom ones it knows the numbers.
#[must_use]
pub fn name(rmid: u8) -> &'static str {
    match NAMES.get(usize::from(rmid)) {
        Some(name) => name,
        None if rmid == NEON => "neon",
        None if rmid >= CUSTOM_MIN => "custom",
        None => "unknown",
    }
}
