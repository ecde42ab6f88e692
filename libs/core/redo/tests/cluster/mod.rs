//! The pages of a cluster: those of a base copy, changed by the records so far.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use ids::{Fork, RelTag};
use pg::PgMajor;
use pg::control::ControlFile;
use pg::wal::{Record, rmgr};
use redo::{Page, RedoError, Settings, vm};

const FORKS: [Fork; 4] = [Fork::Main, Fork::Fsm, Fork::Vm, Fork::Init];

pub(crate) struct Cluster {
    pub(crate) settings: Settings,
    pub(crate) has_checksums: bool,
    base: PathBuf,
    pub(crate) pages: HashMap<(RelTag, u32), Box<Page>>,
    /// Forks that were truncated: the base copy no longer counts from this block on.
    truncated: HashMap<RelTag, u32>,
    /// Relations that were dropped, by their main fork.
    pub(crate) dropped: HashSet<RelTag>,
    /// Databases in tablespaces that were made by copying files, and which they are copies of.
    copies: HashMap<(u32, u32), (u32, u32)>,
    /// Map pages that WAL gave an empty image of, as CREATE DATABASE logs them as pages with a
    /// hole: the server that wrote it has bits there that no recovery knows.
    pub(crate) emptied: HashSet<(RelTag, u32)>,
}

impl Cluster {
    pub(crate) fn of(version: PgMajor, base: &Path) -> Self {
        let control = fs::read(base.join("global/pg_control")).unwrap();
        let control = ControlFile::parse(&control).unwrap();
        let has_checksums = control.checksum_version() != 0;
        Self {
            settings: Settings {
                version,
                logs_hints: has_checksums || control.wal_log_hints(),
            },
            has_checksums,
            base: base.to_owned(),
            pages: HashMap::new(),
            truncated: HashMap::new(),
            dropped: HashSet::new(),
            copies: HashMap::new(),
            emptied: HashSet::new(),
        }
    }

    /// Redoes what a record does beside its blocks.
    pub(crate) fn follow(&mut self, record: &Record) {
        match (record.rmid, record.op()) {
            (rmgr::XLOG, 0x60) => {
                let logs_hints = record.main_data[24] != 0;
                self.settings.logs_hints = self.has_checksums || logs_hints;
            }
            (rmgr::SMGR, 0x20) => self.truncate(record),
            (rmgr::XACT, op) if matches!(op & 0x70, 0x00 | 0x20 | 0x30 | 0x40) => {
                self.drop_relations(record);
            }
            (rmgr::DBASE, 0x00) => self.copy_database(record),
            _ => {}
        }
        for (rel, heap_block, flags) in redo::vm_clears(record) {
            let map = RelTag {
                fork: Fork::Vm,
                ..rel
            };
            vm::clear(self.page(map, vm::map_block(heap_block)), heap_block, flags);
        }
    }

    /// Redoes one block of a record.
    pub(crate) fn redo_block(&mut self, record: &Record, index: usize) -> Result<&Page, RedoError> {
        let block = &record.blocks[index];
        let has_hole = block
            .applied_image()
            .is_some_and(|image| image.hole_length > 0);
        if block.rel.fork == Fork::Vm && has_hole {
            self.emptied.insert((block.rel, block.blkno));
        }
        let settings = self.settings;
        let page = self.page(block.rel, block.blkno);
        redo::apply(settings, record, index, page)?;
        Ok(page)
    }

    /// A page as it is now; zeros where there is none.
    pub(crate) fn peek(&self, rel: RelTag, blkno: u32) -> Box<Page> {
        match self.pages.get(&(rel, blkno)) {
            Some(page) => page.clone(),
            None => self.load(rel, blkno),
        }
    }

    fn page(&mut self, rel: RelTag, blkno: u32) -> &mut Page {
        if !self.pages.contains_key(&(rel, blkno)) {
            let page = self.peek(rel, blkno);
            self.pages.insert((rel, blkno), page);
        }
        self.pages.get_mut(&(rel, blkno)).unwrap()
    }

    fn load(&self, rel: RelTag, blkno: u32) -> Box<Page> {
        let mut page = pg::page::zeroed();
        if self.truncated.get(&rel).is_some_and(|len| blkno >= *len) {
            return page;
        }
        if let Some((spc, db)) = self.copies.get(&(rel.spc, rel.db)) {
            let (spc, db) = (*spc, *db);
            return self.load(RelTag { spc, db, ..rel }, blkno);
        }
        let directory = match rel.spc {
            1664 => "global".to_owned(),
            1663 => format!("base/{}", rel.db),
            _ => return page, // the base copy has no such tablespace
        };
        let name = format!("{}{}", rel.rel, rel.fork.suffix());
        let bytes = fs::read(self.base.join(directory).join(name)).unwrap_or_default();
        if let Some(bytes) = bytes.chunks_exact(8192).nth(blkno as usize) {
            page.copy_from_slice(bytes);
        }
        page
    }

    fn truncate(&mut self, record: &Record) {
        let length = word(record, 0);
        let main = relation(record, 4);
        let map = RelTag {
            fork: Fork::Vm,
            ..main
        };
        if !length.is_multiple_of(vm::PAGES_PER_MAP_PAGE) {
            vm::truncate(self.page(map, vm::map_block(length)), length);
        }
        self.cut(main, length);
        self.cut(map, vm::truncated_len(length));
    }

    /// Gives a new database the pages of another (`xl_dbase_create_rec`).
    fn copy_database(&mut self, record: &Record) {
        let [db, spc, from_db, from_spc] = [0, 4, 8, 12].map(|at| word(record, at));
        let is_from = |rel: &RelTag| (rel.spc, rel.db) == (from_spc, from_db);
        let to = |rel: RelTag| RelTag { spc, db, ..rel };
        let pages = self.pages.iter().filter(|((rel, _), _)| is_from(rel));
        let pages: Vec<_> = pages
            .map(|((rel, blkno), page)| ((to(*rel), *blkno), page.clone()))
            .collect();
        self.pages.extend(pages);
        let lengths = self.truncated.iter().filter(|(rel, _)| is_from(rel));
        let lengths: Vec<_> = lengths.map(|(rel, len)| (to(*rel), *len)).collect();
        self.truncated.extend(lengths);
        self.copies.insert((spc, db), (from_spc, from_db));
    }

    /// The relations that a commit or an abort drops (`xl_xact_relfilenodes`).
    fn drop_relations(&mut self, record: &Record) {
        if record.info & 0x80 == 0 {
            return;
        }
        let parts = word(record, 8);
        let mut at = 12;
        if parts & 1 != 0 {
            at += 8; // the database
        }
        if parts & 2 != 0 {
            at += 4 + 4 * word(record, at) as usize; // subtransactions
        }
        let count = if parts & 4 != 0 { word(record, at) } else { 0 };
        for index in 0..count as usize {
            let main = relation(record, at + 4 + 12 * index);
            for fork in FORKS {
                self.cut(RelTag { fork, ..main }, 0);
            }
            self.dropped.insert(main);
        }
    }

    fn cut(&mut self, fork: RelTag, length: u32) {
        self.pages
            .retain(|(rel, blkno), _| *rel != fork || *blkno < length);
        let least = self.truncated.entry(fork).or_insert(length);
        *least = length.min(*least);
    }
}

fn word(record: &Record, at: usize) -> u32 {
    u32::from_le_bytes(record.main_data[at..at + 4].try_into().unwrap())
}

fn relation(record: &Record, at: usize) -> RelTag {
    RelTag {
        spc: word(record, at),
        db: word(record, at + 4),
        rel: word(record, at + 8),
        fork: Fork::Main,
    }
}
