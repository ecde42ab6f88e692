//! Holds redo to stock PostgreSQL's own crash recovery of the same base copy and WAL: hint
//! bits are not in play there, so every byte of every page must be the same.

#![allow(
    clippy::unwrap_used,
    reason = "a test may; its helper modules are no test functions"
)]

mod cluster;
#[path = "recovery/images.rs"]
mod images;
mod workload;

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use cluster::Cluster;
use ids::{Fork, Lsn, RelTag};
use images::Images;
use pg::page::{BLOCK, stamp_checksum};
use stock::wal::recover;
use stock::{DEBIAN, Release, Scene};
use workload::Run;

/// How many cuts inside the workload each version gets, beside the one at its end: for a long run.
const CUTS: &str = "REDOUBT_ORACLE_CUTS";
/// So many it gets else.
const FEW_CUTS: u64 = 3;
const SEED: u64 = 0x5265_646f_7562_7431;

#[test]
fn redo_makes_the_pages_that_recovery_of_14_makes() {
    hold_to("14.23", "");
}

#[test]
fn redo_makes_the_pages_that_recovery_of_15_makes() {
    hold_to(DEBIAN, "");
}

#[test]
fn redo_makes_the_pages_that_recovery_of_16_makes() {
    hold_to("16.15", "-k");
}

#[test]
fn redo_makes_the_pages_that_recovery_of_17_makes() {
    hold_to("17.11", "");
}

#[test]
fn redo_makes_the_pages_that_recovery_of_18_makes() {
    hold_to("18.6", "");
}

/// Runs the workload on a release; `initdb`: how its cluster is set up.
fn hold_to(release: &'static str, initdb: &str) {
    println!("PostgreSQL {release}");
    let run = Run::record(Scene::of(Release::of(release)), initdb, "");
    let mut ends = Vec::new();
    run.for_each_record(|record, _| ends.push(record.end));
    let cuts = cuts(&ends);
    let mut cluster = Cluster::of(run.scene.release.major, &run.scene.at().join("base"));
    let mut history = History::default();
    let (mut bad, mut images) = (0, Images::default());
    run.for_each_record(|record, bytes| {
        cluster.follow(record);
        for (index, block) in record.blocks.iter().enumerate() {
            images.redo_block(&mut cluster, record, bytes, index);
            let records = history.entry((block.rel, block.blkno)).or_default();
            records.push((record.end, record.rmid, record.info));
        }
        if cuts.contains(&record.end) {
            let at = (record.start, record.end);
            let recovered = recover(&run.scene, "base", "data", at, "cut");
            bad += compare(&cluster, &recovered, record.end, &history);
            fs::remove_dir_all(recovered).unwrap();
        }
    });
    assert_eq!(bad, 0, "redo differs from stock recovery");
    let rebuilt = images.rebuilt;
    assert!(
        rebuilt > 10_000,
        "only {rebuilt} pages were rebuilt from older images"
    );
}

/// The records that changed each page: end, resource manager, info.
type History = HashMap<(RelTag, u32), Vec<(Lsn, u8, u8)>>;

/// Ends of records: some by the seed, and the last.
fn cuts(ends: &[Lsn]) -> Vec<Lsn> {
    let mut state = SEED;
    let count = std::env::var(CUTS).map_or(FEW_CUTS, |count| count.parse().unwrap());
    let mut cuts: Vec<Lsn> = (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ends[((u128::from(state) * ends.len() as u128) >> 64) as usize]
        })
        .collect();
    cuts.extend(ends.last());
    cuts
}

/// Compares every page that recovery left, and answers how many are not ours.
fn compare(cluster: &Cluster, recovered: &Path, cut: Lsn, history: &History) -> u64 {
    let forks = forks(recovered);
    let (mut pages, mut redone, mut bad) = (0_u64, 0_u64, 0_u64);
    for (rel, bytes) in &forks {
        let main = RelTag {
            fork: Fork::Main,
            ..*rel
        };
        if cluster.dropped.contains(&main) {
            println!("{cut}: {rel} was dropped, and is there");
            bad += 1;
        }
        if is_unlogged(&forks, *rel) {
            continue;
        }
        assert_eq!(bytes.len() % BLOCK, 0, "{rel}");
        for (blkno, theirs) in (0..).zip(bytes.chunks_exact(BLOCK)) {
            let mut ours = cluster.peek(*rel, blkno);
            if cluster.has_checksums {
                stamp_checksum(&mut ours, blkno);
            }
            // The map's LSN says nothing, nor does the checksum over it: clears of its bits leave
            // it alone.
            let from = if rel.fork == Fork::Vm { 10 } else { 0 };
            let differing = differing(&ours[..], theirs, from);
            pages += 1;
            redone += u64::from(cluster.pages.contains_key(&(*rel, blkno)));
            if !differing.is_empty() {
                bad += 1;
                let records = history.get(&(*rel, blkno));
                println!("{cut}: {rel} {blkno} differs at {differing:?}, after {records:x?}");
                for range in differing.into_iter().take(3) {
                    println!(
                        "  {:02x?}, not {:02x?}",
                        &ours[range.clone()],
                        &theirs[range]
                    );
                }
            }
        }
    }
    bad += beyond(cluster, &forks, cut);
    let dropped = cluster.dropped.len();
    println!(
        "{cut}: {pages} pages, {redone} of them redone, {bad} bad, {dropped} relations dropped"
    );
    assert!(pages > 2000, "only {pages} pages were compared at {cut}");
    bad
}

/// Counts pages of ours where recovery has none.
fn beyond(cluster: &Cluster, forks: &HashMap<RelTag, Vec<u8>>, cut: Lsn) -> u64 {
    let mut bad = 0;
    for ((rel, blkno), page) in &cluster.pages {
        let length = forks.get(rel).map_or(0, |bytes| bytes.len() / BLOCK);
        let is_compared = rel.fork != Fork::Fsm && !is_unlogged(forks, *rel);
        if is_compared && *blkno as usize >= length && page.iter().any(|byte| *byte != 0) {
            println!("{cut}: {rel} has {length} pages, and {blkno} is redone");
            bad += 1;
        }
    }
    bad
}

/// Whether it is the data of an unlogged relation, which recovery resets.
fn is_unlogged(forks: &HashMap<RelTag, Vec<u8>>, rel: RelTag) -> bool {
    let init = RelTag {
        fork: Fork::Init,
        ..rel
    };
    rel.fork != Fork::Init && forks.contains_key(&init)
}

/// Reads every fork but the free space maps, which recovery writes as it likes.
fn forks(recovered: &Path) -> HashMap<RelTag, Vec<u8>> {
    let mut directories = vec![(1664, 0, recovered.join("global"))];
    for entry in fs::read_dir(recovered.join("base")).unwrap() {
        let entry = entry.unwrap();
        let db = entry.file_name().to_str().unwrap().parse().unwrap();
        directories.push((1663, db, entry.path()));
    }
    let mut forks = HashMap::new();
    for (spc, db, directory) in directories {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if let Some((rel, fork)) = fork_of(entry.file_name().to_str().unwrap()) {
                let tag = RelTag { spc, db, rel, fork };
                forks.insert(tag, fs::read(entry.path()).unwrap());
            }
        }
    }
    forks
}

fn fork_of(name: &str) -> Option<(u32, Fork)> {
    let (number, suffix) = name.split_at(name.find('_').unwrap_or(name.len()));
    let fork = [Fork::Main, Fork::Vm, Fork::Init]
        .into_iter()
        .find(|fork| fork.suffix() == suffix)?;
    Some((number.parse().ok()?, fork))
}

/// The ranges of bytes, from `from` on, that are not the same.
fn differing(ours: &[u8], theirs: &[u8], from: usize) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for at in (from..BLOCK).filter(|at| ours[*at] != theirs[*at]) {
        match ranges.last_mut() {
            Some(range) if range.end + 4 >= at => range.end = at + 1,
            _ => ranges.push(at..at + 1),
        }
    }
    ranges
}
