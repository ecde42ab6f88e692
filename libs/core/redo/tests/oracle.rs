//! Holds redo to a stock PostgreSQL 15: with `wal_consistency_checking`, every record carries the
//! page that it made, and redo from a cold base copy must make the same.

#![allow(
    clippy::unwrap_used,
    reason = "a test may; its helper modules are no test functions"
)]

mod cluster;
mod page_mask;
mod stock;

use std::collections::BTreeMap;

use cluster::Cluster;
use pg::wal::{Record, rmgr};

/// Record types that the workload must produce and redo must get right: rmgr, op.
const WANTED: [(u8, u8); 29] = [
    (9, 0x10),
    (9, 0x20),
    (9, 0x30),
    (9, 0x40),
    (9, 0x50),
    (9, 0xD0),
    (10, 0x00),
    (10, 0x80),
    (10, 0x10),
    (10, 0x20),
    (10, 0xA0),
    (10, 0x40),
    (10, 0x50),
    (10, 0x60),
    (10, 0x70),
    (11, 0x00),
    (11, 0x10),
    (11, 0x30),
    (11, 0x40),
    (11, 0x50),
    (11, 0x60),
    (11, 0x70),
    (11, 0x80),
    (11, 0xA0),
    (11, 0xB0),
    (11, 0xC0),
    (11, 0xE0),
    (15, 0x00),
    (20, 0x00),
];

/// Record types of which every block must be compared, or restored, this often: rmgr, op, blocks.
const OFTEN: u64 = 20;
const WANTED_OFTEN: &[(u8, u8, &[u8])] = &[
    (rmgr::HASH, 0x00, &[0]),
    (rmgr::HASH, 0x10, &[0, 1]),
    (rmgr::HASH, 0x20, &[0, 1]),
    // Block 3, a new bitmap, comes after 32,768 overflow pages: a unit test makes it.
    (rmgr::HASH, 0x30, &[0, 1, 2, 4]),
    (rmgr::HASH, 0x40, &[0, 1, 2]),
    (rmgr::HASH, 0x50, &[0]),
    (rmgr::HASH, 0x60, &[0, 1]),
    (rmgr::HASH, 0x70, &[0, 1, 2]),
    // Block 4 is the page after one that goes, which always was the last one: a unit test has it.
    (rmgr::HASH, 0x80, &[0, 1, 2, 3, 5, 6]),
    (rmgr::HASH, 0x90, &[0, 1]),
    (rmgr::HASH, 0xA0, &[0]),
    (rmgr::HASH, 0xB0, &[0]),
    (rmgr::HASH, 0xC0, &[0, 1]),
    (rmgr::GIN, 0x10, &[0]),
    (rmgr::GIN, 0x20, &[0, 1]),
    (rmgr::GIN, 0x21, &[0, 1]),
    (rmgr::GIN, 0x22, &[0]),
    (rmgr::GIN, 0x23, &[0]),
    (rmgr::GIN, 0x30, &[0, 1, 2, 3]),
    (rmgr::GIN, 0x40, &[0]),
    (rmgr::GIN, 0x50, &[0, 1, 2]),
    (rmgr::GIN, 0x60, &[0, 1]),
    (rmgr::GIN, 0x61, &[0, 1]),
    (rmgr::GIN, 0x70, &[0]),
    (rmgr::GIN, 0x80, &[0, 1, 16]),
    (rmgr::GIN, 0x90, &[0]),
    (rmgr::GIST, 0x00, &[0, 1]),
    (rmgr::GIST, 0x10, &[0]),
    (rmgr::GIST, 0x30, &[0, 1, 2, 3]),
    (rmgr::GIST, 0x60, &[0, 1]),
    (rmgr::SPGIST, 0x10, &[0, 1]),
    (rmgr::SPGIST, 0x20, &[0, 1, 2]),
    (rmgr::SPGIST, 0x30, &[0, 1, 2]),
    (rmgr::SPGIST, 0x40, &[0, 1]),
    (rmgr::SPGIST, 0x50, &[0, 1, 2, 3]),
    (rmgr::SPGIST, 0x60, &[0]),
    (rmgr::SPGIST, 0x70, &[0]),
    (rmgr::SPGIST, 0x80, &[0]),
    (rmgr::BRIN, 0x00, &[0]),
    (rmgr::BRIN, 0x10, &[0, 1]),
    (rmgr::BRIN, 0x20, &[0, 1, 2]),
    (rmgr::BRIN, 0x30, &[0]),
    (rmgr::BRIN, 0x40, &[0, 1]),
    (rmgr::BRIN, 0x50, &[0, 1]),
    (rmgr::BRIN, 0x90, &[0, 1]),
    (rmgr::BRIN, 0xA0, &[0, 1, 2]),
];

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

fn redo_and_compare(cluster: &mut Cluster, record: &Record, count: &mut Count) {
    cluster.follow(record);
    for (index, block) in record.blocks.iter().enumerate() {
        let page = match cluster.redo_block(record, index) {
            Ok(page) => page,
            Err(error) => {
                count.failed += 1;
                println!("block {index} {:?} {}: {error}", block.rel, block.blkno);
                continue;
            }
        };
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

#[test]
fn redo_makes_the_pages_that_a_stock_server_made() {
    let run = stock::Run::record("all");
    let mut cluster = Cluster::of(&run.base);
    let mut counts: BTreeMap<(u8, u8), Count> = BTreeMap::new();
    run.for_each_record(|record| {
        let count = counts.entry(kind(record)).or_default();
        count.records += 1;
        redo_and_compare(&mut cluster, record, count);
    });
    let mut bad = 0;
    for ((rmid, op), count) in &counts {
        println!(
            "{:<12} {op:#04x} records {:>7} compared {:>7} images {:>5} mismatched {} failed {}",
            rmgr::name(*rmid),
            count.records,
            count.compared,
            count.applied_images,
            count.mismatched,
            count.failed,
        );
        bad += count.mismatched + count.failed;
    }
    assert_eq!(bad, 0, "redo differs from the server");
    let compared = |key| counts.get(key).map_or(0, |count: &Count| count.compared);
    let missing: Vec<_> = WANTED.iter().filter(|key| compared(key) == 0).collect();
    assert!(
        missing.is_empty(),
        "the workload did not reach {missing:x?}"
    );
    for &(rmid, op, roles) in WANTED_OFTEN {
        let reached = |role| counts.get(&(rmid, op))?.roles.get(role).copied();
        for role in roles {
            let times = reached(role).unwrap_or(0);
            let name = rmgr::name(rmid);
            assert!(
                times >= OFTEN,
                "{name} {op:#04x} block {role}: {times} times"
            );
        }
    }
}
