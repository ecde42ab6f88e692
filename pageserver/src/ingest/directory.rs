//! What exists, and how long it is: the lists and sizes that ingest must know to tell what a record
//! changes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ids::{Fork, Key, KeyKind, RelTag, SlruKind};

use pg::datadir::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, SLRU_SEGMENT_PAGES};
use pg::kept::KeptPath;

use super::{Changes, Reason};
use crate::value::Value;

/// How far past the end of a fork a record may reach: each block in between becomes a value. Stock
/// servers extend by at most 512 blocks before they write a record, but a hash index by a quarter of
/// its buckets at once: those of up to a million buckets, some 8 GB, do not get further than this.
pub(crate) const EXTENSION_MAX: u32 = 131_072;

/// Databases, relation forks and SLRU segments as of the last record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    /// By tablespace and database; what databases share (1664, 0) is not among them.
    pub(crate) databases: BTreeSet<(u32, u32)>,
    /// The length of every fork, in blocks.
    pub(crate) forks: BTreeMap<RelTag, u32>,
    /// The length of every SLRU segment, in blocks.
    pub(crate) slru: BTreeMap<(SlruKind, u32), u32>,
    /// Transactions that are prepared and have not ended.
    pub(crate) prepared: BTreeSet<u32>,
    /// The numbers of files that are kept (C7).
    pub(crate) kept: BTreeMap<KeptPath, u32>,
}

/// Segment and block of a page of an SLRU.
pub(super) const fn slru_place(page: u32) -> (u32, u32) {
    (page / SLRU_SEGMENT_PAGES, page % SLRU_SEGMENT_PAGES)
}

impl Directory {
    /// All of the lists and lengths, as whole values.
    pub(crate) fn values(&self) -> Vec<(Key, Value)> {
        let mut lists: BTreeMap<KeyKind, Vec<u8>> = BTreeMap::new();
        let mut out = Changes::default();
        lists.entry(KeyKind::Databases).or_default();
        lists.entry(KeyKind::TwoPhaseFiles).or_default();
        for (spc, db) in &self.databases {
            let list = lists.entry(KeyKind::Databases).or_default();
            list.extend(database_item(*spc, *db));
        }
        for (fork, len) in &self.forks {
            let (spc, db) = (fork.spc, fork.db);
            let list = lists.entry(KeyKind::Relations { spc, db }).or_default();
            list.extend(fork_item(*fork));
            out.put(KeyKind::RelSize(*fork), length(*len));
        }
        for ((kind, segment), len) in &self.slru {
            let list = lists.entry(KeyKind::SlruSegments(*kind)).or_default();
            list.extend(segment.to_be_bytes());
            out.put(KeyKind::SlruSize(*kind, *segment), length(*len));
        }
        for xid in &self.prepared {
            let list = lists.entry(KeyKind::TwoPhaseFiles).or_default();
            list.extend(prepared_item(*xid));
        }
        for (list, items) in lists {
            out.put(list, Value::Image(items.into()));
        }
        out.values
    }

    pub(super) fn add_database(&mut self, spc: u32, db: u32, out: &mut Changes) {
        if self.databases.insert((spc, db)) {
            let item = database_item(spc, db);
            out.put(KeyKind::Databases, Value::ListAdd(item));
        }
    }

    /// Whether files of this database can be there.
    pub(super) fn check_database(&self, spc: u32, db: u32) -> Result<(), Reason> {
        check_tablespace(spc, db)?;
        if spc == GLOBAL_TABLESPACE || self.databases.contains(&(spc, db)) {
            Ok(())
        } else {
            Err(Reason::NoDatabase(db))
        }
    }

    /// Nothing of the database can be named afterwards.
    pub(super) fn drop_database(&mut self, spc: u32, db: u32, out: &mut Changes) {
        let gone: Vec<RelTag> = self.forks.keys().copied().collect();
        for fork in gone.into_iter().filter(|f| f.spc == spc && f.db == db) {
            self.drop_fork(fork, out);
        }
        if self.databases.remove(&(spc, db)) {
            let item = database_item(spc, db);
            out.put(KeyKind::Databases, Value::ListRemove(item));
            out.put(KeyKind::RelMap { spc, db }, Value::Gone);
        }
    }

    /// Gives a database the forks of another; answers those of the other.
    pub(super) fn copy_database(
        &mut self,
        from: (u32, u32),
        to: (u32, u32),
        out: &mut Changes,
    ) -> Vec<(RelTag, u32)> {
        let (spc, db) = to;
        self.drop_database(spc, db, out);
        self.add_database(spc, db, out);
        let forks = self.forks.iter().map(|(fork, len)| (*fork, *len));
        let forks: Vec<_> = forks.filter(|(f, _)| (f.spc, f.db) == from).collect();
        let mut list = Vec::new();
        for &(fork, len) in &forks {
            let fork = RelTag { spc, db, ..fork };
            list.extend(fork_item(fork));
            self.set_len(fork, len, out);
        }
        out.put(KeyKind::Relations { spc, db }, Value::Image(list.into()));
        forks
    }

    pub(super) fn create_fork(&mut self, fork: RelTag, out: &mut Changes) -> Result<(), Reason> {
        self.check_database(fork.spc, fork.db)?;
        if !self.forks.contains_key(&fork) {
            let (spc, db) = (fork.spc, fork.db);
            let list = KeyKind::Relations { spc, db };
            out.put(list, Value::ListAdd(fork_item(fork)));
            self.set_len(fork, 0, out);
        }
        Ok(())
    }

    pub(super) fn drop_fork(&mut self, fork: RelTag, out: &mut Changes) {
        if self.forks.remove(&fork).is_some() {
            let (spc, db) = (fork.spc, fork.db);
            let list = KeyKind::Relations { spc, db };
            out.put(list, Value::ListRemove(fork_item(fork)));
            out.put(KeyKind::RelSize(fork), Value::Gone);
        }
    }

    /// Makes the fork reach over `block`, which the caller writes where `inits` is set.
    pub(super) fn reach(
        &mut self,
        fork: RelTag,
        block: u32,
        inits: bool,
        out: &mut Changes,
    ) -> Result<(), Reason> {
        self.create_fork(fork, out)?;
        let len = self.forks.get(&fork).copied().unwrap_or(0);
        if block < len {
            return Ok(());
        }
        if block - len > EXTENSION_MAX {
            return Err(Reason::FarBlock { fork, block, len });
        }
        // Blocks of an earlier life of this number may be below: each new one begins as zeros.
        for new in len..=block {
            if new != block || !inits {
                out.put(KeyKind::RelBlock(fork, new), Value::Zeros);
            }
        }
        // The highest number is no block, and no record that was decoded has it.
        self.set_len(fork, block + 1, out);
        Ok(())
    }

    /// Cuts a fork that is longer.
    pub(super) fn cut(&mut self, fork: RelTag, len: u32, out: &mut Changes) {
        if self.forks.get(&fork).is_some_and(|old| *old > len) {
            self.set_len(fork, len, out);
        }
    }

    pub(super) fn has_block(&self, fork: RelTag, block: u32) -> bool {
        self.forks.get(&fork).is_some_and(|len| block < *len)
    }

    fn set_len(&mut self, fork: RelTag, len: u32, out: &mut Changes) {
        self.forks.insert(fork, len);
        out.put(KeyKind::RelSize(fork), length(len));
    }

    pub(super) fn has_page(&self, slru: SlruKind, page: u32) -> bool {
        let (segment, block) = slru_place(page);
        let len = self.slru.get(&(slru, segment));
        len.is_some_and(|len| block < *len)
    }

    pub(super) fn zero_page(&mut self, slru: SlruKind, page: u32, out: &mut Changes) {
        let (segment, block) = slru_place(page);
        if !self.slru.contains_key(&(slru, segment)) {
            let item = Bytes::copy_from_slice(&segment.to_be_bytes());
            out.put(KeyKind::SlruSegments(slru), Value::ListAdd(item));
        }
        let len = self.slru.entry((slru, segment)).or_insert(0);
        for block in (*len).min(block)..=block {
            out.put(KeyKind::SlruBlock(slru, segment, block), Value::Zeros);
        }
        if *len <= block {
            *len = block + 1;
            out.put(KeyKind::SlruSize(slru, segment), length(*len));
        }
    }

    pub(super) fn add_prepared(&mut self, xid: u32, file: Bytes, out: &mut Changes) {
        self.prepared.insert(xid);
        out.put(KeyKind::TwoPhaseFiles, Value::ListAdd(prepared_item(xid)));
        out.put(KeyKind::TwoPhase(u64::from(xid)), Value::Image(file));
    }

    /// Answers whether it was there.
    pub(super) fn drop_prepared(&mut self, xid: u32, out: &mut Changes) -> bool {
        let was_there = self.prepared.remove(&xid);
        if was_there {
            let item = prepared_item(xid);
            out.put(KeyKind::TwoPhaseFiles, Value::ListRemove(item));
            out.put(KeyKind::TwoPhase(u64::from(xid)), Value::Gone);
        }
        was_there
    }

    /// Removes the segments all of whose pages come before the first that stays.
    pub(super) fn cut_slru(
        &mut self,
        slru: SlruKind,
        precedes: impl Fn(u32) -> bool,
        out: &mut Changes,
    ) {
        let goes = |segment: u32| {
            let first = segment * SLRU_SEGMENT_PAGES;
            precedes(first) && precedes(first + SLRU_SEGMENT_PAGES - 1)
        };
        self.drop_slru(slru, goes, out);
    }

    pub(super) fn drop_slru(
        &mut self,
        slru: SlruKind,
        goes: impl Fn(u32) -> bool,
        out: &mut Changes,
    ) {
        self.slru.retain(|(kind, segment), _| {
            let stays = *kind != slru || !goes(*segment);
            if !stays {
                let item = Bytes::copy_from_slice(&segment.to_be_bytes());
                out.put(KeyKind::SlruSegments(slru), Value::ListRemove(item));
                out.put(KeyKind::SlruSize(slru, *segment), Value::Gone);
            }
            stays
        });
    }
}

/// Only two tablespaces are stored.
pub(super) const fn check_tablespace(spc: u32, db: u32) -> Result<(), Reason> {
    match (spc, db) {
        (GLOBAL_TABLESPACE, 0) => Ok(()),
        (DEFAULT_TABLESPACE, db) if db != 0 => Ok(()),
        _ => Err(Reason::Tablespace(spc)),
    }
}

fn database_item(spc: u32, db: u32) -> Bytes {
    [spc.to_be_bytes(), db.to_be_bytes()].concat().into()
}

fn fork_item(fork: RelTag) -> Bytes {
    let mut item = fork.rel.to_be_bytes().to_vec();
    item.push(fork.fork as u8);
    item.into()
}

fn prepared_item(xid: u32) -> Bytes {
    Bytes::copy_from_slice(&u64::from(xid).to_be_bytes())
}

fn length(blocks: u32) -> Value {
    Value::Image(Bytes::copy_from_slice(&blocks.to_le_bytes()))
}

/// The fork beside it.
pub(super) const fn beside(rel: RelTag, fork: Fork) -> RelTag {
    RelTag { fork, ..rel }
}

impl Changes {
    pub(super) fn put(&mut self, kind: KeyKind, value: Value) {
        self.values.push((Key::new(kind), value));
    }
}
