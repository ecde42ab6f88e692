//! Holds redo to a stock PostgreSQL 15: with `wal_consistency_checking`, every record carries the
//! page that it made, and redo from a cold base copy must make the same.

#![allow(
    clippy::unwrap_used,
    reason = "a test may; its helper modules are no test functions"
)]

mod page_mask;
mod stock;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use ids::{Fork, Lsn, RelTag};
use pg::PgMajor;
use pg::wal::{Decoder, Record, WalShape, decode, rmgr};
use redo::{Page, vm};

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

#[derive(Default)]
struct Count {
    records: u64,
    compared: u64,
    applied_images: u64,
    mismatched: u64,
    failed: u64,
}

/// The pages of a cluster: those of the base copy, changed by the records so far.
struct Cluster {
    base: PathBuf,
    pages: HashMap<(RelTag, u32), Box<Page>>,
    /// Forks that were truncated: the base copy no longer counts from this block on.
    truncated: HashMap<RelTag, u32>,
}

impl Cluster {
    fn page(&mut self, rel: RelTag, blkno: u32) -> &mut Page {
        if !self.pages.contains_key(&(rel, blkno)) {
            let page = self.load(rel, blkno);
            self.pages.insert((rel, blkno), page);
        }
        self.pages.get_mut(&(rel, blkno)).unwrap()
    }

    fn load(&self, rel: RelTag, blkno: u32) -> Box<Page> {
        let mut page = pg::page::zeroed();
        if self
            .truncated
            .get(&rel)
            .is_some_and(|length| blkno >= *length)
        {
            return page;
        }
        let directory = match rel.spc {
            1664 => "global".to_owned(),
            _ => format!("base/{}", rel.db),
        };
        let file = self
            .base
            .join(directory)
            .join(format!("{}{}", rel.rel, rel.fork.suffix()));
        let bytes = fs::read(file).unwrap_or_default();
        if let Some(bytes) = bytes.chunks_exact(8192).nth(blkno as usize) {
            page.copy_from_slice(bytes);
        }
        page
    }

    fn truncate(&mut self, record: &Record) {
        let word = |at: usize| u32::from_le_bytes(record.main_data[at..at + 4].try_into().unwrap());
        let (length, spc, db, rel) = (word(0), word(4), word(8), word(12));
        let main = RelTag {
            spc,
            db,
            rel,
            fork: Fork::Main,
        };
        let map = RelTag {
            fork: Fork::Vm,
            ..main
        };
        if length % vm::PAGES_PER_MAP_PAGE != 0 {
            vm::truncate(self.page(map, vm::map_block(length)), length);
        }
        for (fork, length) in [(main, length), (map, vm::truncated_len(length))] {
            self.pages
                .retain(|(rel, blkno), _| *rel != fork || *blkno < length);
            let least = self.truncated.entry(fork).or_insert(length);
            *least = length.min(*least);
        }
    }

    fn redo(&mut self, record: &Record, count: &mut Count) {
        for (rel, heap_block, flags) in redo::vm_clears(record) {
            let map = RelTag {
                fork: Fork::Vm,
                ..rel
            };
            vm::clear(self.page(map, vm::map_block(heap_block)), heap_block, flags);
        }
        for (index, block) in record.blocks.iter().enumerate() {
            let page = self.page(block.rel, block.blkno);
            if let Err(error) = redo::apply(PgMajor::V15, record, index, page) {
                count.failed += 1;
                println!("block {index} {:?} {}: {error}", block.rel, block.blkno);
                continue;
            }
            let Some(image) = &block.image else { continue };
            if image.apply {
                count.applied_images += 1;
                continue;
            }
            count.compared += 1;
            let is_map = block.rel.fork == Fork::Vm;
            let mut theirs = image.restore().unwrap();
            let mut ours = Box::new(*page);
            page_mask::mask(&mut theirs, record.rmid, is_map);
            page_mask::mask(&mut ours, record.rmid, is_map);
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
}

#[test]
fn redo_makes_the_pages_that_a_stock_server_made() {
    let run = stock::Run::record();
    let mut cluster = Cluster {
        base: run.base.clone(),
        pages: HashMap::new(),
        truncated: HashMap::new(),
    };
    let shape = WalShape {
        version: PgMajor::V15,
        segment_bytes: 16 << 20,
        system_id: run.system_id,
        tli: 1,
    };
    let mut decoder = Decoder::new(shape, run.start);
    let mut counts: BTreeMap<(u8, u8), Count> = BTreeMap::new();
    let mut end = Lsn(0);
    'wal: for segment in run.start.0 >> 24.. {
        let name = format!("{:08X}{:08X}{:08X}", 1, segment >> 8, segment & 0xff);
        let Ok(bytes) = fs::read(run.wal.join(name)) else {
            break;
        };
        let skip = run.start.0.saturating_sub(segment << 24) as usize;
        decoder.feed(&bytes[skip.min(bytes.len())..]);
        loop {
            let (start, to, bytes): (Lsn, Lsn, Bytes) = match decoder.next() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(_) => break 'wal, // the end of what was written
            };
            end = to;
            let record = decode(PgMajor::V15, start, to, bytes).unwrap();
            let count = counts.entry((record.rmid, record.op())).or_default();
            count.records += 1;
            if (record.rmid, record.op()) == (rmgr::SMGR, 0x20) {
                cluster.truncate(&record);
            }
            cluster.redo(&record, count);
        }
    }
    assert!(end >= run.end, "WAL was read to {end}, not to {}", run.end);
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
}
