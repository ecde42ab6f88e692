//! Holds redo to stock PostgreSQL: with `wal_consistency_checking`, every record carries the page
//! that it made, and redo from a cold base copy must make the same.

#![allow(
    clippy::unwrap_used,
    reason = "a test may; its helper modules are no test functions"
)]

mod cluster;
#[path = "samples/mod.rs"]
#[allow(dead_code, reason = "what is kept here is read elsewhere")]
mod kept;
#[path = "oracle/page_mask.rs"]
mod page_mask;
#[path = "oracle/wanted.rs"]
mod wanted;
mod workload;

use std::collections::BTreeMap;
use std::path::PathBuf;

use cluster::Cluster;
use kept::Keeper;
use pg::wal::{Record, op_name, rmgr};
use stock::{DEBIAN, Release, Scene};
use workload::Run;

/// A directory for what each release was compared in.
const REPORTS: &str = "REDOUBT_ORACLE_REPORTS";

#[test]
fn redo_makes_the_pages_of_14() {
    hold_to("14.23", "-k", "");
}

#[test]
fn redo_makes_the_pages_of_15() {
    hold_to(DEBIAN, "", "-c wal_compression=lz4");
}

#[test]
fn redo_makes_the_pages_of_16() {
    hold_to("16.15", "", "-c wal_log_hints=on -c wal_compression=zstd");
}

#[test]
fn redo_makes_the_pages_of_17_before_it_named_map_pages() {
    hold_to("17.10", "-k", "");
}

#[test]
fn redo_makes_the_pages_of_17() {
    hold_to("17.11", "--wal-segsize=64", "-c wal_compression=lz4");
}

#[test]
fn redo_makes_the_pages_of_18_before_it_named_map_pages() {
    hold_to("18.4", "--no-data-checksums", "-c wal_compression=zstd");
}

#[test]
fn redo_makes_the_pages_of_18() {
    hold_to("18.6", "--wal-segsize=1", "-c wal_compression=lz4");
}

/// Runs the workload on a release; `initdb`, `settings`: how its cluster and server are set up.
fn hold_to(release: &'static str, initdb: &str, settings: &str) {
    let release = Release::of(release);
    let settings = format!("{settings} -c wal_consistency_checking=all");
    let run = Run::record(Scene::of(release), initdb, &settings);
    let mut cluster = Cluster::of(run.scene.release.major, &run.scene.at().join("base"));
    let mut counts = Counts::default();
    let mut keeper = Keeper::of(run.scene.release.name, run.scene.release.major);
    run.for_each_record(|record, bytes| {
        let count = counts.entry(kind(record)).or_default();
        count.records += 1;
        redo_and_compare(&mut cluster, (record, bytes), count, &mut keeper);
    });
    let bad = report(&run.scene.release, &counts);
    assert_eq!(bad, 0, "redo differs from the server");
    let reached = |rmid, op, role| {
        let count = counts.get(&(rmid, op))?;
        count.roles.get(&role).copied()
    };
    let missing = wanted::missing(&run.scene.release, reached);
    assert!(missing.is_empty(), "the workload lacks {missing:#?}");
}

/// Prints what was compared, and answers how much of it was wrong.
fn report(release: &Release, counts: &Counts) -> u64 {
    let mut lines = format!("PostgreSQL {}\n", release.name);
    let mut bad = 0;
    for ((rmid, op), count) in counts {
        let line = format!(
            "{:<12} {:<28} {op:#04x} records {:>7} compared {:>7} restored {:>5} mismatched {} failed {} blocks {:?}\n",
            rmgr::name(*rmid),
            op_name(release.major, *rmid, *op).unwrap_or("no name"),
            count.records,
            count.compared,
            count.applied_images,
            count.mismatched,
            count.failed,
            count.roles,
        );
        lines.push_str(&line);
        bad += count.mismatched + count.failed;
    }
    print!("{lines}");
    if let Some(directory) = std::env::var_os(REPORTS) {
        let file = PathBuf::from(directory).join(format!("{}.txt", release.name));
        std::fs::write(file, lines).unwrap();
    }
    bad
}

/// What a record does: resource manager and op, and in the op's free bits a variant of it.
fn kind(record: &Record) -> (u8, u8) {
    let variant = match (record.rmid, record.op()) {
        // What the page belongs to, and whether it is a leaf.
        (rmgr::GIN, 0x20) => record.main_data[0],
        // Whether the end of the list gets rows, or a next page.
        (rmgr::GIN, 0x60) => u8::from(record.main_data[80..84] != [0; 4]),
        _ => 0,
    };
    (record.rmid, record.op() | variant)
}

#[derive(Default)]
struct Count {
    records: u64,
    /// Blocks that were compared or restored, by their role.
    roles: BTreeMap<u8, u64>,
    compared: u64,
    applied_images: u64,
    mismatched: u64,
    failed: u64,
}

/// By resource manager, and op with a variant of it.
type Counts = BTreeMap<(u8, u8), Count>;

fn redo_and_compare(
    cluster: &mut Cluster,
    (record, bytes): (&Record, &[u8]),
    count: &mut Count,
    keeper: &mut Keeper,
) {
    cluster.follow(record);
    for (index, block) in record.blocks.iter().enumerate() {
        let settings = cluster.settings;
        let before = keeper.is_on().then(|| cluster.peek(block.rel, block.blkno));
        let page = match cluster.redo_block(record, index) {
            Ok(page) => page,
            Err(error) => {
                count.failed += 1;
                println!("block {index} {:?} {}: {error}", block.rel, block.blkno);
                continue;
            }
        };
        if let Some(before) = before {
            let pages = [&*before, page];
            if keeper.wants(kind(record), record, index, pages) {
                keeper.keep(settings, (record, bytes), index, pages);
            }
        }
        let Some(image) = &block.image else { continue };
        *count.roles.entry(block.id).or_default() += 1;
        if image.apply {
            count.applied_images += 1;
            continue;
        }
        count.compared += 1;
        let mut theirs = image.restore().unwrap();
        let mut ours = Box::new(*page);
        page_mask::mask(&mut theirs, record.rmid, block);
        page_mask::mask(&mut ours, record.rmid, block);
        if cluster.emptied.contains(&(block.rel, block.blkno)) {
            for (theirs, ours) in theirs.iter_mut().zip(ours.iter()).skip(24) {
                *theirs &= ours; // ours may lack bits, and has none of its own
            }
        }
        if let Some(at) = (0..8192).find(|at| ours[*at] != theirs[*at]) {
            count.mismatched += 1;
            println!(
                "mismatch {} {:#x} at {} block {index} {:?} {} byte {at}: {:02x?}, not {:02x?}",
                rmgr::name(record.rmid),
                record.info,
                record.end,
                block.rel,
                block.blkno,
                &ours[at..8192.min(at + 8)],
                &theirs[at..8192.min(at + 8)],
            );
        }
    }
}
