//! What stock recovery makes of WAL that is cut somewhere, and a page server held to it.

use std::collections::{BTreeMap, BTreeSet};

use api::timeline::{BACKUP_MEMBER, Backup};
use bytes::Bytes;
use ids::{Lsn, RelTag, TimelineId};
use pg::PgMajor;
use pg::control::{CheckPoint, ControlFile};
use pg::datadir::{self, FILENODE_MAP};
use pg::origins::ORIGINS;
use pg::wal::{RecordHeader, rmgr};
use stock::Scene;
use stock::wal::{Wal, recover};

use crate::world::postgres::{self, Random};
use crate::world::{TENANT, World};

/// WAL that a stock server wrote.
pub(crate) struct Run {
    /// Where each record begins and ends, its resource manager and operation.
    records: Vec<(Lsn, Lsn, (u8, u8))>,
}

impl Run {
    pub(crate) fn read(scene: &Scene, start: Lsn) -> Self {
        let mut records = Vec::new();
        Wal::after(scene, "base", "data").for_each(|begin, end, record| {
            let header = RecordHeader::decode(record).unwrap();
            if begin >= start {
                records.push((begin, end, (header.rmid, header.info & 0xF0)));
            }
        });
        Self { records }
    }

    pub(crate) fn end(&self) -> Lsn {
        self.records.last().unwrap().1
    }

    pub(crate) fn ends(&self) -> Vec<Lsn> {
        self.records.iter().map(|record| record.1).collect()
    }

    /// What recovery makes of the WAL up to any record, one of each part. Some of them are drawn
    /// from where half of something is done.
    pub(crate) fn cuts(&self, scene: &Scene, random: &mut Random, count: usize) -> Vec<Cut> {
        let parts = self.records.chunks(self.records.len().div_ceil(count));
        let mut drawn: Vec<_> = parts.map(|part| part[random.below(part.len())]).collect();
        let halves = self.halves(scene.release.major);
        for (n, half) in halves.iter().enumerate() {
            let begin = half[random.below(half.len())];
            // All kinds in a long run, in a short one as many as there are cuts.
            let (_, at, _) = self.records[begin];
            println!("half of kind {n} is done at {at}");
            if count > halves.len() {
                drawn.push(self.records[begin]);
            } else if random.below(halves.len()) < count {
                let place = random.below(drawn.len());
                drawn[place] = self.records[begin];
            }
        }
        drawn.sort();
        drawn.dedup();
        let mut cuts: Vec<Cut> = Vec::new();
        for (n, (start, end, _)) in drawn.into_iter().enumerate() {
            cuts.push(Cut::recover(scene, (start, end), n));
        }
        let known: BTreeSet<RelTag> = cuts
            .iter()
            .flat_map(|cut| cut.forks.keys())
            .copied()
            .collect();
        for cut in &mut cuts {
            cut.known.clone_from(&known);
        }
        cuts
    }

    /// Records after which half of something is done: a database that is being made, a relation that
    /// was cut and whose transaction has not ended, a page of a btree that split and whose parent
    /// does not know.
    fn halves(&self, version: PgMajor) -> [Vec<usize>; 3] {
        let of = |kinds: &[(u8, u8)]| -> Vec<usize> {
            let all = self.records.iter().enumerate();
            let found = all.filter(|(_, (_, _, kind))| kinds.contains(kind));
            found.map(|(n, _)| n).collect()
        };
        let mut databases = match version {
            PgMajor::V14 => of(&[(rmgr::DBASE, 0x00)]),
            _ => of(&[(rmgr::DBASE, 0x10)]),
        };
        if version > PgMajor::V14 {
            // In the middle of its pages.
            for n in &mut databases {
                *n = (*n + 100).min(self.records.len() - 1);
            }
        }
        let halves = [
            databases,
            of(&[(rmgr::SMGR, 0x20)]),
            of(&[(rmgr::BTREE, 0x30), (rmgr::BTREE, 0x40)]),
        ];
        assert!(halves.iter().all(|half| !half.is_empty()));
        halves
    }
}

/// What a stock server recovered up to `end`.
pub(crate) struct Cut {
    pub(crate) end: Lsn,
    version: PgMajor,
    forks: BTreeMap<RelTag, Bytes>,
    /// Files that are no relations, by their paths.
    others: BTreeMap<String, Bytes>,
    control: ControlFile,
    /// Forks that are there at this or another cut.
    known: BTreeSet<RelTag>,
    branch: TimelineId,
}

impl Cut {
    fn recover(scene: &Scene, (start, end): (Lsn, Lsn), n: usize) -> Self {
        let name = format!("cut-{n}");
        let recovered = recover(scene, "base", "data", (start, end), &name);
        let version = scene.release.major;
        let files = postgres::files(&recovered);
        let control = ControlFile::parse(&files["global/pg_control"]).unwrap();
        let others = files.iter().filter(|(path, _)| is_other(path));
        let others = others.map(|(path, bytes)| (path.clone(), bytes.clone()));
        let others = others.collect();
        let forks = postgres::forks(version, files);
        std::fs::remove_dir_all(recovered).unwrap();
        let pages: usize = forks.values().map(|bytes| bytes.len() / 8192).sum();
        println!("{end}: {} forks of {pages} pages", forks.len());
        let mut branch = [0x33; 16];
        branch[15] = n as u8;
        Self {
            end,
            version,
            forks,
            others,
            control,
            known: BTreeSet::new(),
            branch: TimelineId(branch),
        }
    }

    /// Holds a page stream to it: which forks there are, how long they are, every byte.
    pub(crate) async fn hold_pages(&self, world: &World, timeline: TimelineId) {
        let mut pages = world.pages(timeline).await;
        pages.at = self.end;
        let (compared, mut differences) = pages.differences(&self.forks).await;
        let existing = pages.existing(self.known.iter().copied()).await;
        if !existing.iter().eq(self.forks.keys()) {
            differences.push(format!("other forks exist at {}", self.end));
        }
        for (path, theirs) in &self.others {
            if let Some((kind, segment)) = datadir::parse_slru_path(path) {
                let ours = pages.slru(kind, segment).await;
                differences.extend(differs(path, &ours, theirs));
            }
        }
        self.none(&differences);
        assert!(compared > 2000, "only {compared} pages were compared");
    }

    /// Holds a full backup of a branch that begins there to it, which must have no other files.
    pub(crate) async fn hold_backup(&self, world: &World) {
        world.branch(self.branch, Some(self.end)).await;
        let command = format!("fullbackup {TENANT} {} {}", self.branch, self.end);
        let files = world.backup(&command).await.unwrap();
        let backup: Backup = serde_json::from_slice(&files[BACKUP_MEMBER]).unwrap();
        let files = files.into_iter().map(|(path, bytes)| (path, bytes.into()));
        let files: BTreeMap<String, Bytes> = files.collect();
        let ours = files.keys().filter(|path| is_other(path));
        let mut differences = Vec::new();
        // A server writes the file though it has no origin.
        let origins = pg::origins::encode(&BTreeMap::new());
        let theirs = self.others.iter();
        let theirs = theirs.filter(|(path, bytes)| *path != ORIGINS || **bytes != origins[..]);
        if !ours.eq(theirs.map(|(path, _)| path)) {
            differences.push("other files".to_owned());
        }
        for (path, theirs) in &self.others {
            if let Some(ours) = files.get(path) {
                differences.extend(differs(path, ours, theirs));
            }
        }
        let forks = postgres::forks(self.version, files);
        if !forks.keys().eq(self.forks.keys()) {
            differences.push("other forks".to_owned());
        }
        for (fork, ours) in &forks {
            let theirs = self.forks.get(fork).map_or(&[][..], |theirs| &theirs[..]);
            let pages = ours.chunks(8192).zip(theirs.chunks(8192));
            for (block, (ours, theirs)) in (0..).zip(pages) {
                let ranges = postgres::differing_of(*fork, block, ours, theirs);
                if !ranges.is_empty() || ours.len() != theirs.len() {
                    differences.push(format!("{fork} differs at {ranges:?}"));
                }
            }
        }
        let checkpoint = hex::decode(&backup.checkpoint).unwrap();
        let checkpoint = CheckPoint::decode(&checkpoint).unwrap();
        differences.extend(self.checkpoint(&checkpoint));
        self.none(&differences);
    }

    fn checkpoint(&self, ours: &CheckPoint) -> Option<String> {
        let fields = |of: &CheckPoint| {
            [
                of.next_oid,
                of.next_multi,
                of.next_multi_offset,
                of.oldest_xid,
                of.oldest_xid_db,
                of.oldest_multi,
                of.oldest_multi_db,
                of.oldest_commit_ts_xid,
                of.newest_commit_ts_xid,
            ]
        };
        let theirs = self.control.checkpoint();
        // Recovery does not look at transactions that have done nothing but lock.
        let same = fields(ours) == fields(&theirs) && ours.next_xid >= theirs.next_xid;
        (!same).then(|| format!("{ours:?}, not {theirs:?}"))
    }

    fn none(&self, differences: &[String]) {
        for difference in differences.iter().take(50) {
            println!("{}: {difference}", self.end);
        }
        let (end, count) = (self.end, differences.len());
        assert_eq!(count, 0, "what is served at {end} differs from recovery");
    }
}

/// Files that are compared though they are no relations.
fn is_other(path: &str) -> bool {
    datadir::parse_slru_path(path).is_some()
        || path.starts_with("pg_twophase/")
        || path.ends_with(FILENODE_MAP)
        || path.ends_with("PG_VERSION")
        || path == ORIGINS
}

fn differs(path: &str, ours: &[u8], theirs: &[u8]) -> Option<String> {
    // Whichever slot it found free, a server keeps an origin in.
    let sorted = |file: &[u8]| pg::origins::decode(file).ok();
    if path == ORIGINS && sorted(ours).is_some() && sorted(ours) == sorted(theirs) {
        return None;
    }
    let ranges = postgres::differing(ours, theirs);
    let (left, right) = (ours.len(), theirs.len());
    let same = ranges.is_empty() && left == right;
    (!same).then(|| format!("{path} of {left} bytes, not {right}, differs at {ranges:?}"))
}
