//! Safekeepers that send damaged WAL, one beside honest ones, and all of them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test may; its helper modules are no test functions"
)]

mod world;

use std::sync::atomic::Ordering;
use std::time::Duration;

use api::timeline::PageserverStatus;
use ids::{Lsn, NodeId};
use world::postgres::{self, directory, initdb, sh};
use world::safekeeper::Safekeeper;
use world::{MAIN, World};

/// The bytes of a record's length that make it some 64 KiB longer.
const LONGER: u64 = 2;

/// Stock WAL, and a page server that has its base.
struct Stock {
    directory: tempfile::TempDir,
    world: World,
    /// Where each record begins, and ends.
    records: Vec<(Lsn, Lsn)>,
}

impl Stock {
    async fn new() -> Self {
        let directory = directory();
        let data = initdb(directory.path());
        sh(directory.path(), "cp -r data base", true);
        let world = World::start(directory.path(), "node").await;
        let imported = world.import(&data).await;
        postgres::run(
            directory.path(),
            &[
                "create table t (id int primary key, t text)",
                "insert into t select n, repeat('x', n % 300) from generate_series(1, 2000) n",
            ],
        );
        let start = imported.start_lsn;
        let wal = postgres::wal(directory.path(), "data", start);
        let records: Vec<_> = postgres::records(imported.system_id, start, &wal);
        assert!(records.len() > 1000, "only {} records", records.len());
        let places = records.into_iter().map(|(start, end, _)| (start, end));
        Self {
            directory,
            world,
            records: places.collect(),
        }
    }

    /// Three safekeepers with all of it; the page server knows of none yet.
    async fn safekeepers(&self) -> [Safekeeper; 3] {
        let wal = self.directory.path().join("data/pg_wal");
        let start = || Safekeeper::start(wal.clone(), self.end());
        [start().await, start().await, start().await]
    }

    fn end(&self) -> Lsn {
        self.records.last().unwrap().1
    }

    async fn attach(&self, safekeepers: &[Safekeeper; 3]) {
        let addresses = safekeepers.each_ref().map(|one| one.address);
        self.world.attach(MAIN, &addresses).await;
    }

    async fn until(&self, what: impl Fn(&PageserverStatus) -> bool) -> PageserverStatus {
        for _ in 0..300 {
            let status = self.world.status(MAIN).await.unwrap();
            if what(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it stays: {:?}", self.world.status(MAIN).await);
    }

    /// Holds every page to what PostgreSQL's recovery makes of the WAL.
    async fn compare(&self) {
        let at = self.directory.path();
        let recovered = postgres::recover(at, "base", "data", self.end(), "cut");
        let compared = self.world.pages(MAIN).await.compare(&recovered).await;
        assert!(compared > 1000, "only {compared} pages");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_sends_damaged_wal_is_left_and_named_and_the_others_have_the_rest() {
    let stock = Stock::new().await;
    let safekeepers = stock.safekeepers().await;
    let (before, bad) = (stock.records[500].1, stock.records[501].0);
    safekeepers[0].flip.send_replace(Some((bad + 20, 1)));
    stock.attach(&safekeepers).await;
    stock.world.until_ingested(stock.end()).await;
    let status = stock.world.status(MAIN).await.unwrap();
    let [damaged] = &status.damaged[..] else {
        panic!("{status:?}");
    };
    assert_eq!((damaged.safekeeper, damaged.after), (NodeId(1), before));
    let why = format!("WAL record at {bad} fails its checksum");
    assert!(damaged.reason.contains(&why), "{}", damaged.reason);
    assert_eq!((damaged.times, status.stopped), (1, None));
    let metrics = service::metrics::render().unwrap();
    let mut lines = metrics.lines();
    let counted = lines.find(|line| line.starts_with("redoubt_pageserver_damaged_wal_total{"));
    let counted = counted.unwrap();
    assert!(
        counted.contains("safekeeper=\"1\"") && counted.ends_with(" 1"),
        "{counted}"
    );
    stock.compare().await;
    stock.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_promises_more_wal_than_comes_is_damage_too() {
    let stock = Stock::new().await;
    let safekeepers = stock.safekeepers().await;
    let (last, end) = *stock.records.last().unwrap();
    safekeepers[0].flip.send_replace(Some((last + LONGER, 1)));
    stock.attach(&safekeepers).await;
    stock.world.until_ingested(end).await;
    let status = stock.world.status(MAIN).await.unwrap();
    let why = format!("the record at {last} does not end");
    assert!(status.damaged[0].reason.contains(&why), "{status:?}");
    assert_eq!(status.stopped, None);
    stock.compare().await;
    stock.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_majority_sends_damaged_ends_ingest_by_name_and_what_one_sends_never_does() {
    let stock = Stock::new().await;
    let safekeepers = stock.safekeepers().await;
    let (before, bad) = (stock.records[500].1, stock.records[501].0);
    // Each its own damage: that is three wires or disks, and not the WAL.
    for (safekeeper, bits) in safekeepers.iter().zip([1, 2, 4]) {
        safekeeper.flip.send_replace(Some((bad + 21, bits)));
    }
    stock.attach(&safekeepers).await;
    let all = |status: &PageserverStatus| status.damaged.iter().filter(|d| d.times > 1).count();
    let status = stock.until(|status| all(status) == 3).await;
    assert_eq!((status.stopped, status.last_record_lsn), (None, before));

    for safekeeper in &safekeepers {
        safekeeper.flip.send_replace(Some((bad + 21, 1)));
    }
    let status = stock.until(|status| status.stopped.is_some()).await;
    let why = status.stopped.unwrap();
    assert!(
        why.contains(&format!("ingest stopped at {before}")),
        "{why}"
    );
    assert!(why.contains(&format!("WAL record at {bad} fails")), "{why}");
    assert!(why.contains("2 of 3 safekeepers sent the same"), "{why}");
    assert_eq!(status.last_record_lsn, before);
    let streams = safekeepers
        .each_ref()
        .map(|one| one.streams.load(Ordering::SeqCst));
    assert!(streams.iter().all(|asked| *asked > 0), "{streams:?}");
    stock.world.stop().await;
}
