//! Sorts the files of a data directory by what they hold.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ids::{Fork, Lsn, RelTag, SlruKind};
use pg::control::ControlFile;
use pg::origins::ORIGINS;
use pg::{datadir, tablespace};

use super::archive::{Archive, Extent};
use super::values::ValuesError;

const CONTROL: &str = "global/pg_control";

/// What stops a server from being one that was shut down.
const NO_CLEAN_SHUTDOWN: [&str; 4] = [
    "backup_label",
    "recovery.signal",
    "standby.signal",
    "tablespace_map",
];

/// The files of a data directory that belong to a timeline.
pub(super) struct Files<'a> {
    archive: &'a Archive,
    pub(super) control: ControlFile,
    /// `pg_control`, as it came.
    pub(super) raw_control: Bytes,
    pub(super) tablespaces: BTreeSet<u32>,
    /// By tablespace and database.
    pub(super) maps: BTreeMap<(u32, u32), &'a Extent>,
    /// By fork and segment.
    pub(super) forks: BTreeMap<(RelTag, u32), &'a Extent>,
    pub(super) slru: BTreeMap<(SlruKind, u32), &'a Extent>,
    /// Prepared transactions, by path.
    pub(super) prepared: BTreeMap<&'a str, &'a Extent>,
    pub(super) origins: Option<&'a Extent>,
    /// Segments of WAL, by name.
    pub(super) wal: BTreeMap<&'a str, &'a Extent>,
}

/// What is not pages is taken whole, up to this: two-phase files are the largest.
const WHOLE_BYTES_MAX: u64 = 64 << 20;

/// The WAL that is read to find the end of the last record, which has 114 bytes.
const WAL_BYTES: u64 = 64 << 10;

impl<'a> Files<'a> {
    pub(super) fn sort(archive: &'a Archive) -> Result<Self, ValuesError> {
        let raw_control = control(archive)?;
        let mut sorted = Self {
            archive,
            control: ControlFile::parse(&raw_control)?,
            raw_control,
            tablespaces: BTreeSet::new(),
            maps: BTreeMap::new(),
            forks: BTreeMap::new(),
            slru: BTreeMap::new(),
            prepared: BTreeMap::new(),
            origins: None,
            wal: BTreeMap::new(),
        };
        for (path, extent) in &archive.members {
            sorted.add(path, extent)?;
        }
        sorted.forget_unlogged();
        Ok(sorted)
    }

    /// All of a file that is not pages.
    pub(super) fn whole(&self, path: &str, extent: &Extent) -> Result<Bytes, ValuesError> {
        Self::check_whole(path, extent)?;
        let read = self.archive.spool.read(extent.range.clone());
        read.map_err(ValuesError::Spool)
    }

    /// Whether it may be taken whole.
    pub(super) fn check_whole(path: &str, extent: &Extent) -> Result<(), ValuesError> {
        let (path, bytes) = (path.to_owned(), extent.bytes());
        if bytes > WHOLE_BYTES_MAX {
            return Err(ValuesError::Length { path, bytes });
        }
        Ok(())
    }

    /// Whatever a starting server makes anew is passed over: configuration belongs to the compute.
    fn add(&mut self, path: &'a str, extent: &'a Extent) -> Result<(), ValuesError> {
        let version = self.control.version();
        if let Some((spc, _)) = tablespace::in_tablespace(version, path.trim_end_matches('/')) {
            self.tablespaces.insert(spc);
        }
        if let Some((fork, segment)) = tablespace::parse_relation_path(version, path) {
            self.forks.insert((fork, segment), extent);
        } else if let Some((kind, segment)) = datadir::parse_slru_path(path) {
            self.slru.insert((kind, segment), extent);
        } else if let Some(database) = tablespace::parse_map_path(version, path) {
            self.maps.insert(database, extent);
        } else if path.starts_with("pg_twophase/") {
            self.prepared.insert(path, extent);
        } else if path == ORIGINS {
            self.origins = Some(extent);
        } else if is_link(path) {
            return Err(ValuesError::Tablespace(path.to_owned()));
        } else if NO_CLEAN_SHUTDOWN.contains(&path) {
            return Err(ValuesError::Recovers(path.to_owned()));
        } else if let Some(name) = path.strip_prefix("pg_wal/") {
            self.wal.insert(name, extent);
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

    /// The bytes of WAL from `from` on, as many as a record of a shutdown needs; `None` where
    /// there is no such segment.
    pub(super) fn wal_from(
        &self,
        from: Lsn,
        tli: u32,
        segment_bytes: u64,
    ) -> Result<Option<Vec<u8>>, ValuesError> {
        let name = |lsn| datadir::wal_segment_name(tli, lsn, segment_bytes);
        let mut bytes = Vec::new();
        let mut next = (from, from.segment_offset(segment_bytes));
        while let Some(segment) = self.wal.get(name(next.0).as_str()) {
            let start = segment.range.start.saturating_add(next.1);
            let want = WAL_BYTES - bytes.len() as u64;
            let end = start.saturating_add(want).min(segment.range.end);
            let read = self.archive.spool.read(start.min(end)..end);
            bytes.extend_from_slice(&read.map_err(ValuesError::Spool)?);
            let behind = next.0.checked_add(segment_bytes);
            let (Some(behind), true) = (behind, (bytes.len() as u64) < WAL_BYTES) else {
                break;
            };
            next = (behind, 0);
        }
        let begun = self.wal.contains_key(name(from).as_str());
        Ok(begun.then_some(bytes))
    }
}

fn control(archive: &Archive) -> Result<Bytes, ValuesError> {
    let mut members = archive.members.iter();
    let control = members.find(|(path, _)| path == CONTROL);
    let (path, extent) = control.ok_or_else(|| ValuesError::Missing(CONTROL.to_owned()))?;
    Files::check_whole(path, extent)?;
    let read = archive.spool.read(extent.range.clone());
    read.map_err(ValuesError::Spool)
}

/// Whether a tablespace is a link, whose files are not here: a directory has files, or ends in `/`.
fn is_link(path: &str) -> bool {
    let name = path.strip_prefix("pg_tblspc/");
    name.is_some_and(|name| !name.contains('/'))
}
