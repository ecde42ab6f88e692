//! Holds what a page server serves to stock recovery: WAL that a stock server wrote comes from a
//! safekeeper, and while it is taken in, flushed and compacted, every page of every fork is read
//! over the wire as of LSNs that are drawn anew in each run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test may; its helper modules are no test functions"
)]

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ids::{Lsn, RelTag, TimelineId};
use world::postgres::{self, Random};
use world::safekeeper::Safekeeper;
use world::{BRANCH, MAIN, TENANT, World};

/// Runs the test with the numbers of an earlier run.
const SEED: &str = "REDOUBT_ORACLE_SEED";
const CUTS: usize = 5;
/// In how many steps the safekeeper gets its WAL, so that there are many layers.
const STEPS: usize = 60;
const NODE: &str = "flush_bytes = 1000000\nflush_interval_ms = 400";

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_served_as_stock_recovery_makes_it() {
    let seed = seed();
    println!("{SEED}={seed}");
    let mut random = Random(seed);
    let directory = postgres::directory();
    let at = directory.path();
    let begun = Instant::now();
    let said = |what: &str| println!("{:6.1} s: {what}", begun.elapsed().as_secs_f32());

    let data = postgres::initdb(at);
    postgres::sh(at, "cp -r data base", true);
    let world = World::start_with(at, "first", NODE).await;
    let imported = world.import(&data).await;
    let full_page_writes = random.below(2) == 0;
    let settings = format!("-c full_page_writes={full_page_writes} -c wal_compression=pglz");
    postgres::start(at, "data", &settings);
    postgres::write_everything(at);
    postgres::write_more(at);
    postgres::stop(at, "data", "immediate");
    said("the workload was written");
    let run = Run::read(at, "data", imported.system_id, imported.start_lsn);
    let cuts = run.cuts(at, &mut random, CUTS);
    said("stock recovery is done");

    let safekeeper = Safekeeper::start(data.join("pg_wal"), imported.start_lsn).await;
    world.attach(MAIN, &[safekeeper.address]).await;
    tokio::join!(run.trickle(&safekeeper), async {
        for cut in &cuts {
            world.until_ingested(cut.end).await;
            cut.hold(&world, MAIN).await;
            said("compared while WAL comes in");
        }
        world.until_ingested(run.end()).await;
    });
    // Else there were neither layers nor images to read through.
    assert!(counted("redoubt_pageserver_flush_seconds_count") >= 10);
    assert!(counted("redoubt_pageserver_compactions_total") >= 1);
    // A branch of the past has what was there, and can be made a directory of.
    let from = &cuts[CUTS / 2];
    world.branch(Some(from.end)).await;
    from.hold_backup(&world, BRANCH).await;
    world.stop().await;

    // A node that knows nothing has it all from the bucket, though newer images are above it.
    let world = World::start_with(at, "second", NODE).await;
    world.attach(BRANCH, &[]).await;
    world.attach(MAIN, &[]).await;
    for cut in &cuts {
        cut.hold(&world, MAIN).await;
    }
    from.hold(&world, BRANCH).await;
    said("compared after a start with an empty disk");
    world.stop().await;
}

/// Another one each time, else the same pages were read for ever.
fn seed() -> u64 {
    match std::env::var(SEED) {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => RandomState::new().hash_one(SEED) | 1,
    }
}

/// What a counter stands at.
fn counted(name: &str) -> u64 {
    let text = service::metrics::render().unwrap();
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or("0").parse::<f64>().unwrap() as u64
}

/// WAL that a stock server wrote.
struct Run {
    written: String,
    /// Where each record begins and ends.
    records: Vec<(Lsn, Lsn)>,
}

impl Run {
    fn read(at: &Path, written: &str, system_id: u64, start: Lsn) -> Self {
        let wal = postgres::wal(at, written, start);
        let records = postgres::records(system_id, start, &wal).into_iter();
        let records = records.map(|(start, end, _)| (start, end)).collect();
        let written = written.to_owned();
        Self { written, records }
    }

    fn end(&self) -> Lsn {
        self.records.last().unwrap().1
    }

    /// What recovery makes of the WAL up to any record, one of each part.
    fn cuts(&self, at: &Path, random: &mut Random, parts: usize) -> Vec<Cut> {
        let parts = self.records.chunks(self.records.len().div_ceil(parts));
        let drawn: Vec<_> = parts.map(|part| part[random.below(part.len())]).collect();
        let mut cuts = Vec::new();
        for (start, end) in drawn {
            let name = format!("{}-{}", self.written, cuts.len());
            let recovered = postgres::recover(at, "base", &self.written, end, &name);
            assert_eq!(postgres::redo_done_at(at, &name), start);
            let forks = postgres::forks(postgres::relation_files(&recovered));
            let pages: usize = forks.values().map(|bytes| bytes.len() / 8192).sum();
            println!("{end}: {} forks of {pages} pages", forks.len());
            cuts.push(Cut {
                end,
                forks,
                known: BTreeSet::new(),
            });
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

    /// Lets the safekeeper have everything, little by little.
    async fn trickle(&self, safekeeper: &Safekeeper) {
        for part in self.records.chunks(self.records.len().div_ceil(STEPS)) {
            safekeeper.commit.send_replace(part.last().unwrap().1);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What a stock server recovered up to `end`.
struct Cut {
    end: Lsn,
    forks: BTreeMap<RelTag, Bytes>,
    /// Forks that are there at this or another cut.
    known: BTreeSet<RelTag>,
}

impl Cut {
    /// Holds a page stream to it: which forks there are, how long they are, every byte.
    async fn hold(&self, world: &World, timeline: TimelineId) {
        let mut pages = world.pages(timeline).await;
        pages.at = self.end;
        let (compared, mut differences) = pages.differences(&self.forks).await;
        let existing = pages.existing(self.known.iter().copied()).await;
        if !existing.iter().eq(self.forks.keys()) {
            differences.push(format!("other forks exist at {}", self.end));
        }
        for difference in &differences {
            println!("{difference}");
        }
        assert_eq!(
            differences.len(),
            0,
            "{timeline} differs from stock recovery"
        );
        assert!(compared > 2000, "only {compared} pages were compared");
    }

    /// Holds a full backup to it, which must name no other forks.
    async fn hold_backup(&self, world: &World, timeline: TimelineId) {
        let command = format!("fullbackup {TENANT} {timeline} {}", self.end);
        let ours = postgres::forks(world.backup(&command).await.unwrap());
        assert!(
            ours.keys().eq(self.forks.keys()),
            "other forks at {}",
            self.end
        );
        for (fork, bytes) in ours {
            let theirs = &self.forks[&fork];
            assert_eq!(bytes.len(), theirs.len(), "{fork}");
            let from = postgres::compared_from(fork);
            for (ours, theirs) in bytes.chunks(8192).zip(theirs.chunks(8192)) {
                assert!(ours[from..] == theirs[from..], "{fork} at {}", self.end);
            }
        }
    }
}
