//! Holds what a page server serves to stock recovery, for every version: WAL that a stock server
//! wrote comes from a safekeeper, and while it is taken in, flushed and compacted, all that makes a
//! data directory is read over the wire as of LSNs that are drawn anew in each run: pages of every
//! fork but free space maps, SLRUs, relation maps, prepared transactions, progress of origins and
//! the fields of the checkpoint. Some of the LSNs are where half of something is done.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test may; its helper modules are no test functions"
)]

mod cut;
mod world;

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use cut::Run;
use ids::Lsn;
use stock::{Release, Scene};
use world::postgres::Random;
use world::safekeeper::Safekeeper;
use world::{MAIN, World};

/// Runs a test with the numbers of an earlier run.
const SEED: &str = "REDOUBT_ORACLE_SEED";
/// How many cuts each version gets, for a long run.
const CUTS: &str = "REDOUBT_ORACLE_CUTS";
/// In how many steps the safekeeper gets its WAL, so that there are many layers.
const STEPS: usize = 60;
const NODE: &str = "flush_bytes = 1000000\nflush_interval_ms = 400";

#[tokio::test(flavor = "multi_thread")]
async fn all_of_14_is_served_as_stock_recovery_makes_it() {
    hold("14.23", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_15_is_served_as_stock_recovery_makes_it() {
    hold("15", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_16_is_served_as_stock_recovery_makes_it() {
    hold("16.15", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_17_is_served_as_stock_recovery_makes_it() {
    hold("17.11", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_18_is_served_as_stock_recovery_makes_it() {
    hold("18.6", 3).await;
}

async fn hold(release: &'static str, cuts: usize) {
    let seed = seed();
    println!("{SEED}={seed} of {release}");
    let cuts = std::env::var(CUTS).map_or(cuts, |cuts| cuts.parse().unwrap());
    let mut random = Random(seed);
    let scene = Scene::of(Release::of(release));
    let begun = Instant::now();
    let said = |what: &str| println!("{:6.1} s: {what}", begun.elapsed().as_secs_f32());

    let checksums = random.below(2) == 0;
    let data = world::postgres::base(&scene, checksums);
    let world = World::start_with(scene.at(), "first", NODE).await;
    let imported = world.import(&data).await;
    let full_page_writes = random.below(2) == 0;
    println!("checksums {checksums}, full_page_writes {full_page_writes}");
    world::postgres::work(&scene, full_page_writes);
    said("the workload was written");
    let run = Run::read(&scene, imported.start_lsn);
    let cuts = run.cuts(&scene, &mut random, cuts);
    said("stock recovery is done");

    let safekeeper = Safekeeper::start(data.join("pg_wal"), imported.start_lsn).await;
    world.attach(MAIN, &[safekeeper.address]).await;
    tokio::join!(trickle(&run, &safekeeper), async {
        for cut in &cuts {
            world.until_ingested(cut.end).await;
            cut.hold_pages(&world, MAIN).await;
            said("compared while WAL comes in");
        }
        world.until_ingested(run.end()).await;
    });
    // Else there were neither layers nor images to read through.
    assert!(counted("redoubt_pageserver_flush_seconds_count") >= 10);
    assert!(counted("redoubt_pageserver_compactions_total") >= 1);
    // A branch of the past has what was there, and can be made a directory of.
    for cut in &cuts {
        cut.hold_backup(&world).await;
    }
    said("compared the files of branches");
    world.stop().await;

    // A node that knows nothing has it all from the bucket, though newer images are above it.
    let world = World::start_with(scene.at(), "second", NODE).await;
    world.attach(MAIN, &[]).await;
    for cut in &cuts[..cuts.len().min(3)] {
        cut.hold_pages(&world, MAIN).await;
    }
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

/// Lets the safekeeper have everything, little by little.
async fn trickle(run: &Run, safekeeper: &Safekeeper) {
    let ends: Vec<Lsn> = run.ends();
    for part in ends.chunks(ends.len().div_ceil(STEPS)) {
        safekeeper.commit.send_replace(*part.last().unwrap());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
