//! Holds a timeline that took a stock server's WAL to what the stock server's own recovery makes
//! of the same base copy and WAL: every file that is there, its length and its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ids::{Fork, Key, KeyKind, Lsn, RelTag};
use pg::PgMajor;
use pg::control::{CheckPoint, ControlFile};
use pg::datadir;
use pg::page::BLOCK;
use pg::wal::{RecordHeader, rmgr};

use super::cluster::Cluster;
use super::postgres::{Random, differing, differing_of, forks, is_compared, records};
use crate::compact::{CompactConfig, compact};
use crate::import::tests::{home, import_files};
use crate::ingest::{Directory, Ingest, IngestStream};
use crate::timeline::Timeline;

const SEED: u64 = 0x5265_646f_7562_7431;

/// What the workload must have written, else nothing is said of it: beside changes of pages.
const KINDS: [(u8, u8); 40] = [
    (rmgr::XLOG, 0x10),       // an online checkpoint
    (rmgr::XLOG, 0x30),       // the next OID
    (rmgr::XLOG, 0x40),       // a switch
    (rmgr::XLOG, 0x60),       // settings
    (rmgr::XLOG, 0x70),       // a restore point
    (rmgr::XLOG, 0xB0),       // images
    (rmgr::XACT, 0x00),       // commit
    (rmgr::XACT, 0x80),       // commit, with more to say
    (rmgr::XACT, 0xA0),       // abort
    (rmgr::XACT, 0x10),       // prepare
    (rmgr::XACT, 0xB0),       // commit of a prepared one
    (rmgr::XACT, 0xC0),       // abort of a prepared one
    (rmgr::SMGR, 0x10),       // a fork is made
    (rmgr::SMGR, 0x20),       // a relation is cut
    (rmgr::DBASE, 0x00),      // a database of files
    (rmgr::DBASE, 0x10),      // a database in WAL
    (rmgr::DBASE, 0x20),      // a database goes
    (rmgr::MULTIXACT, 0x20),  // a multixact
    (rmgr::MULTIXACT, 0x30),  // multixacts go
    (rmgr::RELMAP, 0x00),     // a relation map
    (rmgr::STANDBY, 0x00),    // locks
    (rmgr::STANDBY, 0x10),    // running transactions
    (rmgr::LOGICALMSG, 0x00), // a message
    (rmgr::SEQ, 0x00),        // a sequence
    (rmgr::HEAP, 0x60),       // a locked row
    (rmgr::HEAP2, 0x40),      // visibility
    (rmgr::HEAP2, 0x50),      // many rows
    (rmgr::BTREE, 0x30),      // a split
    (rmgr::BTREE, 0x40),      // another
    (rmgr::HASH, 0x40),       // a bucket splits
    (rmgr::HASH, 0x80),       // a page is given back
    (rmgr::GIN, 0x30),        // a page of entries or rows splits
    (rmgr::GIN, 0x80),        // a list is merged
    (rmgr::GIST, 0x00),       // a page changes
    (rmgr::GIST, 0x30),       // a page splits
    (rmgr::GIST, 0x60),       // a page goes
    (rmgr::SPGIST, 0x50),     // a chain of rows splits
    (rmgr::SPGIST, 0x60),     // rows of a leaf go
    (rmgr::BRIN, 0x40),       // the map of ranges gets a page
    (rmgr::BRIN, 0x50),       // a summary is dropped
];

#[tokio::test]
async fn without_full_page_images_every_file_is_as_stock_recovery_makes_it() {
    hold_to_stock(false, 4).await;
}

#[tokio::test]
async fn with_full_page_images_every_file_is_as_stock_recovery_makes_it() {
    hold_to_stock(true, 2).await;
}

async fn hold_to_stock(full_page_writes: bool, cuts: usize) {
    let cluster = Cluster::run(full_page_writes);
    let bucket = tempfile::tempdir().unwrap();
    let (timeline, imported) = import_files(&home(bucket.path()), cluster.base())
        .await
        .unwrap();
    let start = imported.start_lsn;
    let wal = cluster.wal(start);
    let records = records(imported.system_id, start, &wal);
    let end = records.last().unwrap().1;
    let kinds = records.iter().map(|(_, _, record)| kind(record));
    let kinds: BTreeSet<(u8, u8)> = kinds.collect();
    for kind in KINDS {
        assert!(kinds.contains(&kind), "the workload writes no {kind:x?}");
    }
    let begun = begin(&timeline).await;
    throw_damage(begun.ingest().clone(), &records);
    feed(&timeline, &wal[..(end - start) as usize]).await;
    // The last cut is read from images, the others below them.
    timeline.flush().await.unwrap();
    let config = CompactConfig {
        image_bytes: 4 << 20,
        ..CompactConfig::default()
    };
    compact(&timeline, config).await.unwrap();
    let mut random = Random(SEED);
    let mut cuts: Vec<_> = records
        .chunks(records.len().div_ceil(cuts))
        .map(|part| &part[random.below(part.len())])
        .collect();
    cuts.extend(records.last());
    let mut bad = 0;
    for (record, cut, _) in cuts {
        let theirs = cluster.recover(*cut, *record);
        bad += Comparison::new(&timeline, *cut, theirs).await.run().await;
    }
    assert_eq!(bad, 0, "the timeline differs from stock recovery");
}

/// Resource manager and operation.
fn kind(record: &[u8]) -> (u8, u8) {
    let header = RecordHeader::decode(record).unwrap();
    (header.rmid, header.info & 0xF0)
}

/// Feeds in pieces of any size. Some way in, everything goes to the bucket, and a new stream that
/// knows only what the timeline holds goes on.
async fn feed(timeline: &Arc<Timeline>, wal: &[u8]) {
    let start = timeline.last_lsn().unwrap();
    let end = start + wal.len() as u64;
    let mut stream = begin(timeline).await;
    let mut random = Random(SEED);
    let mut restart = start + wal.len() as u64 / 2;
    while stream.position() < end {
        let at = (stream.position() - start) as usize;
        let piece = (random.below(200_000) + 1).min(wal.len() - at);
        let last = stream.feed(stream.position(), &wal[at..at + piece]).await;
        assert_eq!(last.unwrap(), timeline.last_lsn().unwrap());
        if timeline.last_lsn().unwrap() >= restart {
            restart = Lsn::MAX;
            let known = stream.ingest().directory().clone();
            timeline.flush().await.unwrap();
            stream = begin(timeline).await;
            assert!(
                *stream.ingest().directory() == known,
                "what is loaded is what was known"
            );
        }
    }
    assert_eq!(timeline.last_lsn().unwrap(), end);
}

async fn begin(timeline: &Arc<Timeline>) -> IngestStream {
    let begun = IngestStream::new(Arc::clone(timeline), Arc::new([])).await;
    begun.unwrap()
}

/// Damages some of the records, in ways that a hostile compute can give a checksum: any answer but
/// a panic will do.
fn throw_damage(mut ingest: Ingest, records: &[(Lsn, Lsn, Bytes)]) {
    let mut random = Random(SEED);
    let (mut accepted, mut refused) = (0, 0);
    for (start, end, record) in records {
        if random.below(50) == 0 {
            let mut damaged = record.to_vec();
            for _ in 0..=random.below(3) {
                let at = 4 + random.below(damaged.len() - 4);
                damaged[at] = random.below(256) as u8;
            }
            let taken = ingest.clone().ingest(*start, *end, &damaged.into());
            *(if taken.is_ok() {
                &mut accepted
            } else {
                &mut refused
            }) += 1;
        }
        ingest.ingest(*start, *end, record).unwrap();
    }
    assert!(accepted > 50 && refused > 50, "{accepted} and {refused}");
}

/// A timeline at an LSN beside the files that recovery up to there left.
struct Comparison<'a> {
    timeline: &'a Timeline,
    cut: Lsn,
    theirs: BTreeMap<String, Bytes>,
    ours: Directory,
    bad: usize,
    pages: usize,
}

impl<'a> Comparison<'a> {
    async fn new(timeline: &'a Timeline, cut: Lsn, theirs: BTreeMap<String, Bytes>) -> Self {
        let ours = Directory::load(timeline, cut).await.unwrap();
        Self {
            timeline,
            cut,
            theirs,
            ours,
            bad: 0,
            pages: 0,
        }
    }

    async fn run(mut self) -> usize {
        self.forks().await;
        self.slru().await;
        self.small_files().await;
        self.checkpoint().await;
        let Self {
            cut, pages, bad, ..
        } = self;
        println!("{cut}: {pages} pages compared, {bad} differences");
        assert!(pages > 2000, "only {pages} pages were compared at {cut}");
        bad
    }

    fn differs(&mut self, what: impl std::fmt::Display) {
        self.bad += 1;
        println!("{}: {what}", self.cut);
    }

    async fn content(&self, kind: KeyKind) -> Option<Bytes> {
        let content = self.timeline.content(Key::new(kind), self.cut).await;
        content.unwrap()
    }

    /// Every fork but free space maps, which only hint, and data of unlogged relations.
    async fn forks(&mut self) {
        let theirs = forks(PgMajor::V15, self.theirs.clone());
        let unlogged: BTreeSet<_> = theirs
            .keys()
            .filter(|fork| fork.fork == Fork::Init)
            .map(|fork| (fork.db, fork.rel))
            .collect();
        let there: BTreeSet<RelTag> = self.ours.forks.keys().copied().collect();
        for fork in there
            .into_iter()
            .filter(|fork| is_compared(*fork, &unlogged))
        {
            if !theirs.contains_key(&fork) {
                self.differs(format!("{fork} is not there after recovery"));
            }
        }
        for (fork, bytes) in theirs {
            let len = self.ours.forks.get(&fork).copied();
            if len.map(|len| len as usize * BLOCK) != Some(bytes.len()) {
                self.differs(format!(
                    "{fork} has {len:?} pages, not {}",
                    bytes.len() / BLOCK
                ));
            }
            for (block, page) in (0..len.unwrap_or(0)).zip(bytes.chunks(BLOCK)) {
                let ours = self.content(KeyKind::RelBlock(fork, block)).await;
                self.compare(&format!("{fork} {block}"), ours, page, |ours, page| {
                    differing_of(fork, block, ours, page)
                });
            }
        }
    }

    fn compare(
        &mut self,
        what: &str,
        ours: Option<Bytes>,
        theirs: &[u8],
        differing: impl Fn(&[u8], &[u8]) -> Vec<Range<usize>>,
    ) {
        self.pages += 1;
        let Some(ours) = ours else {
            return self.differs(format!("{what} has no content"));
        };
        let ranges = differing(&ours, theirs);
        if !ranges.is_empty() || ours.len() != theirs.len() {
            self.differs(format!("{what} differs at {ranges:?}"));
        }
    }

    async fn slru(&mut self) {
        let there: BTreeSet<_> = self.ours.slru.keys().copied().collect();
        let theirs: BTreeMap<_, _> = self
            .theirs
            .iter()
            .filter_map(|(path, bytes)| Some((datadir::parse_slru_path(path)?, bytes.clone())))
            .collect();
        if there != theirs.keys().copied().collect() {
            self.differs(format!(
                "{there:?} are the segments, not {:?}",
                theirs.keys()
            ));
        }
        for ((kind, segment), bytes) in theirs {
            let len = self.ours.slru.get(&(kind, segment)).copied().unwrap_or(0);
            if len as usize * BLOCK != bytes.len() {
                let theirs = bytes.len() / BLOCK;
                self.differs(format!("{kind:?} {segment} has {len} pages, not {theirs}"));
            }
            for (block, page) in (0..len).zip(bytes.chunks(BLOCK)) {
                let ours = self.content(KeyKind::SlruBlock(kind, segment, block)).await;
                self.compare(
                    &format!("{kind:?} {segment} {block}"),
                    ours,
                    page,
                    differing,
                );
            }
        }
    }

    /// Relation maps and prepared transactions.
    async fn small_files(&mut self) {
        let mut databases: BTreeSet<(u32, u32)> = self.ours.databases.clone();
        let mut prepared = self.ours.prepared.clone();
        let small: Vec<_> = self
            .theirs
            .iter()
            .filter(|(path, _)| {
                path.ends_with(datadir::FILENODE_MAP) || path.starts_with("pg_twophase/")
            })
            .map(|(path, bytes)| (path.clone(), bytes.clone()))
            .collect();
        for (path, bytes) in small {
            let kind = match path.strip_prefix("pg_twophase/") {
                Some(name) => {
                    let xid = u32::from_str_radix(name, 16).unwrap();
                    prepared.remove(&xid);
                    KeyKind::TwoPhase(u64::from(xid))
                }
                None => match path.split('/').nth(1).unwrap().parse() {
                    Ok(db) => {
                        databases.remove(&(1663, db));
                        KeyKind::RelMap { spc: 1663, db }
                    }
                    Err(_) => KeyKind::RelMap { spc: 1664, db: 0 },
                },
            };
            let ours = self.content(kind).await;
            self.compare(&path, ours, &bytes, differing);
        }
        if !(databases.is_empty() && prepared.is_empty()) {
            self.differs(format!("{databases:?} and {prepared:?} are not there"));
        }
    }

    async fn checkpoint(&mut self) {
        let ours = self.content(KeyKind::Checkpoint).await.unwrap();
        let ours = CheckPoint::decode(&ours).unwrap();
        let theirs = ControlFile::parse(&self.theirs["global/pg_control"]).unwrap();
        let theirs = theirs.checkpoint();
        let fields = |of: &CheckPoint| {
            [
                of.next_oid,
                of.next_multi,
                of.next_multi_offset,
                of.oldest_xid,
                of.oldest_xid_db,
                of.oldest_multi,
                of.oldest_multi_db,
            ]
        };
        // Recovery does not look at transactions that have done nothing but lock.
        if fields(&ours) != fields(&theirs) || ours.next_xid < theirs.next_xid {
            self.differs(format!("{ours:?}, not {theirs:?}"));
        }
    }
}
