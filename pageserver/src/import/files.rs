//! Sorts the files of a data directory by what they hold.

use std::collections::BTreeMap;

use bytes::Bytes;
use ids::{Fork, Lsn, RelTag, SlruKind};
use pg::datadir::{self, DEFAULT_TABLESPACE, FILENODE_MAP, GLOBAL_TABLESPACE};

use super::values::ValuesError;

/// What stops a server from being one that was shut down.
const NO_CLEAN_SHUTDOWN: [&str; 4] = [
    "backup_label",
    "recovery.signal",
    "standby.signal",
    "tablespace_map",
];

/// The files of a data directory that belong to a timeline.
#[derive(Default)]
pub(super) struct Files {
    pub(super) control: Option<Bytes>,
    /// By tablespace and database.
    pub(super) maps: BTreeMap<(u32, u32), Bytes>,
    /// By fork and segment.
    pub(super) forks: BTreeMap<(RelTag, u32), Bytes>,
    pub(super) slru: BTreeMap<(SlruKind, u32), Bytes>,
    pub(super) prepared: BTreeMap<u32, Bytes>,
    /// Segments of WAL, by name.
    pub(super) wal: BTreeMap<String, Bytes>,
}

impl Files {
    pub(super) fn sort(
        files: impl IntoIterator<Item = (String, Bytes)>,
    ) -> Result<Self, ValuesError> {
        let mut sorted = Self::default();
        for (path, bytes) in files {
            sorted.add(path, bytes)?;
        }
        sorted.forget_unlogged();
        Ok(sorted)
    }

    /// Whatever a starting server makes anew is passed over: configuration belongs to the compute.
    fn add(&mut self, path: String, bytes: Bytes) -> Result<(), ValuesError> {
        if let Some((fork, segment)) = datadir::parse_relation_path(&path) {
            self.forks.insert((fork, segment), bytes);
        } else if let Some((kind, segment)) = datadir::parse_slru_path(&path) {
            self.slru.insert((kind, segment), bytes);
        } else if let Some(database) = map_of(&path) {
            self.maps.insert(database, bytes);
        } else if let Some(name) = path.strip_prefix("pg_twophase/") {
            let xid = u32::from_str_radix(name, 16).ok();
            let xid = xid.filter(|xid| datadir::twophase_path(*xid) == path);
            let xid = xid.ok_or(ValuesError::Foreign(path))?;
            self.prepared.insert(xid, bytes);
        } else if path == "global/pg_control" {
            self.control = Some(bytes);
        } else if path.starts_with("pg_tblspc/") {
            return Err(ValuesError::Tablespace(path));
        } else if NO_CLEAN_SHUTDOWN.contains(&path.as_str()) {
            return Err(ValuesError::Recovers(path));
        } else if let Some(name) = path.strip_prefix("pg_wal/") {
            self.wal.insert(name.to_owned(), bytes);
        }
        Ok(())
    }

    /// Recovery makes unlogged relations from their init forks.
    fn forget_unlogged(&mut self) {
        let of = |fork: RelTag| (fork.spc, fork.db, fork.rel);
        let all = self.forks.keys().map(|(fork, _)| *fork);
        let unlogged: Vec<_> = all.filter(|fork| fork.fork == Fork::Init).map(of).collect();
        self.forks.retain(|(fork, _), _| {
            fork.fork == Fork::Init || unlogged.binary_search(&of(*fork)).is_err()
        });
    }

    /// The bytes of WAL from `from` on, to the end of its segment and through the next.
    pub(super) fn wal_from(&self, from: Lsn, tli: u32, segment_bytes: u64) -> Option<Vec<u8>> {
        let name = |lsn| datadir::wal_segment_name(tli, lsn, segment_bytes);
        let first = self.wal.get(&name(from))?;
        let at = from.segment_offset(segment_bytes) as usize;
        let mut bytes = first.get(at..)?.to_vec();
        let next = from.checked_add(segment_bytes)?;
        if let Some(next) = self.wal.get(&name(next)) {
            bytes.extend_from_slice(next);
        }
        Some(bytes)
    }
}

fn map_of(path: &str) -> Option<(u32, u32)> {
    let directory = path.strip_suffix(FILENODE_MAP)?.strip_suffix('/')?;
    if directory == "global" {
        return Some((GLOBAL_TABLESPACE, 0));
    }
    let db: u32 = directory.strip_prefix("base/")?.parse().ok()?;
    (db != 0).then_some((DEFAULT_TABLESPACE, db))
}
