//! What the files of a data directory are as values of a timeline. All of it is checked here, before
//! anything is written: the newest page of each file is known, so pages are read once, later.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

use api::timeline::Imported;
use bytes::Bytes;
use ids::{Key, KeyKind, Lsn, RelTag, SlruKind};
use pg::PgMajor;
use pg::control::{ControlError, ControlFile};
use pg::datadir::{FilenodeMap, FilenodeMapError, SEGMENT_BLOCKS, SLRU_SEGMENT_PAGES};
use pg::page::BLOCK;
use pg::wal::{Decoder, FrameError, WalShape, rmgr};

use super::archive::{Archive, Extent};
use super::files::Files;
use crate::ingest::Directory;
use crate::value::Value;

/// The database that is always there.
const TEMPLATE1: u32 = 1;
/// `DBState` of `pg_control` after a clean shutdown.
const SHUT_DOWN: u32 = 1;
const STATES: [&str; 7] = [
    "starting up",
    "shut down",
    "shut down in recovery",
    "shutting down",
    "in crash recovery",
    "in archive recovery",
    "in production",
];

/// The files are no data directory that can be imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ValuesError {
    #[error("{0} is missing")]
    Missing(String),
    #[error(transparent)]
    Control(#[from] ControlError),
    /// `pg_control` says so.
    #[error("the server was not shut down cleanly: its state is \"{0}\"")]
    NotShutDown(&'static str),
    /// A file that makes the server recover when it starts.
    #[error("the server was not shut down cleanly: {0} makes it recover")]
    Recovers(String),
    #[error(
        "the tablespace at {0} is a link to files that are not in the archive: make it with \
         tar --dereference"
    )]
    Tablespace(String),
    #[error("the file of replication origins: {0}")]
    Origins(#[from] pg::origins::OriginsError),
    #[error("{0} is no file of a data directory")]
    Foreign(String),
    #[error("{path} has {bytes} bytes")]
    Length { path: String, bytes: u64 },
    #[error("a segment before segment {segment} of {fork} is missing or not full")]
    Segments { fork: RelTag, segment: u32 },
    /// Redo would take it for one that holds the records up to there.
    #[error("block {block} of {fork} has LSN {lsn}, after the end of WAL at {end}")]
    Future {
        fork: RelTag,
        block: u32,
        lsn: Lsn,
        end: Lsn,
    },
    #[error("the relation map of database {db} cannot be used: {source}")]
    Map {
        db: u32,
        #[source]
        source: FilenodeMapError,
    },
    #[error("database {0} has files and no relation map")]
    NoMap(u32),
    #[error(transparent)]
    Wal(#[from] FrameError),
    /// The disk does not give back what came.
    #[error("the archive cannot be read again: {0}")]
    Spool(#[source] io::Error),
    #[error("there is no shutdown checkpoint at {0}, where pg_control has it")]
    NoCheckpoint(Lsn),
}

/// The values of a data directory, in the order of their keys. All stand at
/// [`Imported::start_lsn`].
pub(crate) struct Plan {
    pub(crate) imported: Imported,
    /// `pg_control`, as it came.
    pub(super) control: Bytes,
    pub(super) parts: Vec<(Key, Part)>,
}

/// One value, or those of pages that follow each other.
pub(super) enum Part {
    Value(Value),
    /// A file that is a value.
    File(Range<u64>),
    Pages(Pages),
}

/// Pages that lie behind each other in the spool, and so do their keys.
#[derive(Clone)]
pub(super) struct Pages {
    pub(super) of: Segment,
    pub(super) first: u32,
    pub(super) range: Range<u64>,
}

#[derive(Clone, Copy)]
pub(super) enum Segment {
    Fork(RelTag),
    Slru(SlruKind, u32),
}

impl Segment {
    pub(super) const fn key(self, block: u32) -> Key {
        Key::new(match self {
            Self::Fork(fork) => KeyKind::RelBlock(fork, block),
            Self::Slru(kind, segment) => KeyKind::SlruBlock(kind, segment, block),
        })
    }
}

/// What an archive holds. It reads what is not pages, and blocks.
pub(crate) fn plan(archive: &Archive) -> Result<Plan, ValuesError> {
    let files = Files::sort(archive)?;
    let (control, raw) = (&files.control, &files.raw_control);
    check(control)?;
    let imported = Imported {
        start_lsn: end_of_wal(&files, control)?,
        previous_record: control.checkpoint_lsn(),
        pg_major: control.version().number(),
        system_id: control.system_id(),
        wal_segment_bytes: control.segment_bytes(),
    };
    let mut out = Out {
        end: imported.start_lsn,
        directory: Directory::default(),
        parts: Vec::new(),
    };
    out.maps(&files, control.version())?;
    out.forks(&files)?;
    out.slru(&files)?;
    for (path, file) in &files.prepared {
        let next_xid = control.checkpoint().next_xid;
        let xid = pg::datadir::parse_twophase_path(control.version(), path, next_xid);
        let xid = xid.ok_or_else(|| ValuesError::Foreign((*path).to_owned()))?;
        out.directory.prepared.insert(xid);
        let key = Key::new(KeyKind::TwoPhase(u64::from(xid)));
        // Held to its length; read when it is its turn.
        Files::check_whole(path, file)?;
        out.parts.push((key, Part::File(file.range.clone())));
    }
    if let Some(file) = files.origins {
        let file = files.whole(pg::origins::ORIGINS, file)?;
        out.directory.origins = pg::origins::decode(&file)?;
    }
    let checkpoint = Bytes::copy_from_slice(&control.checkpoint().encode());
    out.put(KeyKind::Checkpoint, Value::Image(checkpoint));
    out.put(KeyKind::ControlFile, Value::Image(raw.clone()));
    let lists = out.directory.values().into_iter();
    out.parts
        .extend(lists.map(|(key, value)| (key, Part::Value(value))));
    out.parts.sort_by_key(|(key, _)| *key);
    Ok(Plan {
        imported,
        control: raw.clone(),
        parts: out.parts,
    })
}

fn check(control: &ControlFile) -> Result<(), ValuesError> {
    if control.state() != SHUT_DOWN {
        let state = STATES.get(control.state() as usize);
        return Err(ValuesError::NotShutDown(state.unwrap_or(&"unknown")));
    }
    Ok(())
}

/// Where the shutdown checkpoint ends, as WAL itself has it.
fn end_of_wal(files: &Files<'_>, control: &ControlFile) -> Result<Lsn, ValuesError> {
    let (at, checkpoint) = (control.checkpoint_lsn(), control.checkpoint());
    let (tli, segment_bytes) = (checkpoint.tli, control.segment_bytes());
    let wal = files.wal_from(at, tli, segment_bytes)?;
    let wal = wal.ok_or_else(|| {
        let name = pg::datadir::wal_segment_name(tli, at, segment_bytes);
        ValuesError::Missing(format!("pg_wal/{name}"))
    })?;
    let shape = WalShape {
        version: control.version(),
        segment_bytes,
        system_id: control.system_id(),
        tli,
    };
    let mut decoder = Decoder::new(shape, at);
    decoder.feed(&wal);
    let missing = ValuesError::NoCheckpoint(at);
    let Some((start, end, record)) = decoder.next()? else {
        return Err(missing);
    };
    let header = pg::wal::RecordHeader::decode(record);
    let is_shutdown = header.is_some_and(|h| (h.rmid, h.info & 0xF0) == (rmgr::XLOG, 0));
    let is_same = record.ends_with(&checkpoint.encode());
    if start == at && is_shutdown && is_same {
        Ok(end)
    } else {
        Err(missing)
    }
}

struct Out {
    end: Lsn,
    directory: Directory,
    parts: Vec<(Key, Part)>,
}

impl Out {
    fn put(&mut self, kind: KeyKind, value: Value) {
        self.parts.push((Key::new(kind), Part::Value(value)));
    }

    /// Every database has a map, and the shared relations have one.
    fn maps(&mut self, files: &Files<'_>, version: PgMajor) -> Result<(), ValuesError> {
        for (&(spc, db), extent) in &files.maps {
            let bytes = files.whole(&format!("the relation map of database {db}"), extent)?;
            let map = FilenodeMap::parse(version, bytes);
            let map = map.map_err(|source| ValuesError::Map { db, source })?;
            self.put(
                KeyKind::RelMap { spc, db },
                Value::Image(map.as_bytes().clone()),
            );
            if db != 0 {
                self.directory.databases.insert((spc, db));
            }
        }
        self.directory.tablespaces.clone_from(&files.tablespaces);
        for (fork, _) in files.forks.keys().filter(|(fork, _)| fork.db != 0) {
            self.directory.databases.insert((fork.spc, fork.db));
        }
        // The map is in the tablespace that the database calls its own.
        let mapped: BTreeSet<u32> = files.maps.keys().map(|(_, db)| *db).collect();
        let named = self.directory.databases.iter().map(|(_, db)| *db);
        for db in named.chain([0, TEMPLATE1]) {
            if !mapped.contains(&db) {
                return Err(ValuesError::NoMap(db));
            }
        }
        Ok(())
    }

    fn forks(&mut self, files: &Files<'_>) -> Result<(), ValuesError> {
        for (&(fork, segment), extent) in &files.forks {
            let before = self.directory.forks.get(&fork).copied();
            if before.unwrap_or(0) != segment.saturating_mul(SEGMENT_BLOCKS) {
                return Err(ValuesError::Segments { fork, segment });
            }
            let first = before.unwrap_or(0);
            let blocks = blocks(extent, SEGMENT_BLOCKS).ok_or_else(|| ValuesError::Length {
                path: format!("{fork} (segment {segment})"),
                bytes: extent.bytes(),
            })?;
            let (lsn, block) = extent.newest;
            if lsn > self.end {
                return Err(ValuesError::Future {
                    fork,
                    block: first.saturating_add(block),
                    lsn,
                    end: self.end,
                });
            }
            self.directory.forks.insert(fork, first + blocks);
            self.pages(Segment::Fork(fork), first, extent);
        }
        Ok(())
    }

    fn slru(&mut self, files: &Files<'_>) -> Result<(), ValuesError> {
        for (&(kind, segment), extent) in &files.slru {
            let path = || pg::datadir::slru_path(kind, segment);
            let blocks = blocks(extent, SLRU_SEGMENT_PAGES).ok_or_else(|| ValuesError::Length {
                path: path(),
                bytes: extent.bytes(),
            })?;
            if segment > u32::MAX / SLRU_SEGMENT_PAGES {
                return Err(ValuesError::Foreign(path()));
            }
            self.directory.slru.insert((kind, segment), blocks);
            self.pages(Segment::Slru(kind, segment), 0, extent);
        }
        Ok(())
    }

    fn pages(&mut self, of: Segment, first: u32, extent: &Extent) {
        let range = extent.range.clone();
        let pages = Pages { of, first, range };
        if extent.bytes() > 0 {
            self.parts.push((of.key(first), Part::Pages(pages)));
        }
    }
}

/// How many whole pages there are; `None` where the last is not whole, or there are too many.
fn blocks(extent: &Extent, at_most: u32) -> Option<u32> {
    let count = u32::try_from(extent.bytes() / BLOCK as u64).ok()?;
    (extent.bytes().is_multiple_of(BLOCK as u64) && count <= at_most).then_some(count)
}
