//! What exists, and how long it is: the lists and sizes that ingest must know to tell what a record
//! changes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ids::{Fork, Key, KeyKind, Lsn, RelTag, SlruKind};

use pg::datadir::SLRU_SEGMENT_PAGES;
use pg::kept::KeptPath;

use super::databases::database_item;
use super::origins::progress;
use super::{Changes, Reason};
use crate::value::Value;

/// How far past the end of a fork a record may reach: each block in between becomes a value. Stock
/// servers extend by at most 512 blocks before they write a record, but a hash index by a quarter of
/// its buckets at once: those of up to a million buckets, some 8 GB, do not get further than this.
pub(crate) const EXTENSION_MAX: u32 = 131_072;

/// Databases, relation forks and SLRU segments as of the last record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Tablespaces of the user.
    pub(crate) tablespaces: BTreeSet<u32>,
    /// By tablespace and database; what databases share (1664, 0) is not among them. A database is
    /// in every tablespace that it has had files in.
    pub(crate) databases: BTreeSet<(u32, u32)>,
    /// The length of every fork, in blocks.
    pub(crate) forks: BTreeMap<RelTag, u32>,
    /// The length of every SLRU segment, in blocks.
    pub(crate) slru: BTreeMap<(SlruKind, u32), u32>,
    /// Transactions that are prepared and have not ended.
    pub(crate) prepared: BTreeSet<u32>,
    /// How far each replication origin has been replayed.
    pub(crate) origins: BTreeMap<u16, Lsn>,
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
            list.extend(u64::from(*xid).to_be_bytes());
        }
        for spc in &self.tablespaces {
            let list = lists.entry(KeyKind::Tablespaces).or_default();
            list.extend(spc.to_be_bytes());
        }
        for (origin, lsn) in &self.origins {
            let list = lists.entry(KeyKind::ReplOrigins).or_default();
            list.extend(origin.to_be_bytes());
            out.put(KeyKind::ReplOrigin(*origin), progress(*lsn));
        }
        for (list, items) in lists {
            out.put(list, Value::Image(items.into()));
        }
        out.values
    }

    pub(super) fn create_fork(&mut self, fork: RelTag, out: &mut Changes) -> Result<(), Reason> {
        if !self.forks.contains_key(&fork) {
            self.reach_database(fork.spc, fork.db, out)?;
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

    pub(super) fn set_len(&mut self, fork: RelTag, len: u32, out: &mut Changes) {
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

pub(super) fn fork_item(fork: RelTag) -> Bytes {
    let mut item = fork.rel.to_be_bytes().to_vec();
    item.push(fork.fork as u8);
    item.into()
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
