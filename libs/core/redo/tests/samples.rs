//! Holds redo to blocks that the oracle kept: to the server's own pages under the masks of the
//! access methods, and to every byte of what redo made when the oracles found nothing wrong.
//!
//! It needs `REDOUBT_SAMPLES`, and runs for `make mutants` alone: the oracles prove more.

#![allow(
    clippy::unwrap_used,
    reason = "a test may; its helper modules are no test functions"
)]

#[path = "samples/mod.rs"]
#[allow(dead_code, reason = "the oracle keeps what is read here")]
mod kept;
#[path = "oracle/page_mask.rs"]
mod page_mask;

use std::fs;
use std::path::Path;
use std::thread;

use kept::Sample;
use pg::wal::{Block, Record, rmgr};
use redo::Settings;

#[test]
fn redo_of_kept_blocks_is_what_it_was() {
    let directory = kept::directory().expect("REDOUBT_SAMPLES says where blocks are kept");
    let files = fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().path());
    let releases: Vec<_> = files
        .map(|file| thread::spawn(move || redo_all(&file)))
        .collect();
    let redone = releases.into_iter().map(|release| release.join().unwrap());
    let redone: u64 = redone.sum();
    assert!(redone > 1000, "only {redone} blocks are kept");
}

/// Redoes the blocks of a release, and tells how many.
fn redo_all(file: &Path) -> u64 {
    let mut redone = 0;
    kept::for_each(file, |settings, sample| {
        hold_to(settings, sample);
        redone += 1;
        if redone % 4 == 0 {
            hold_to_ends(settings, sample);
        }
    });
    redone
}

fn hold_to(settings: Settings, sample: &Sample<'_>) {
    let Sample { record, index, .. } = sample;
    let block = &record.blocks[*index];
    let what = || {
        format!(
            "{}: rmgr {} op {:#x} block {}",
            settings.version,
            record.rmid,
            record.op(),
            block.id
        )
    };
    let mut ours = sample.before;
    redo::apply(settings, record, *index, &mut ours).unwrap_or_else(|error| {
        panic!("{}: {error}", what());
    });
    if ours == sample.after {
        return; // as the server's, or the oracle would have told
    }
    if let Some(image) = block.image.as_ref().filter(|image| !image.apply) {
        let mut theirs = image.restore().unwrap();
        page_mask::mask(&mut theirs, record.rmid, block);
        page_mask::mask(&mut ours, record.rmid, block);
        assert!(ours == *theirs, "{}: the server made another page", what());
    }
    panic!("{}: other bytes", what());
}

/// Holds redo to refuse a record with a byte more, where it is not part of a tuple.
fn hold_to_ends(settings: Settings, sample: &Sample<'_>) {
    let Sample { record, index, .. } = sample;
    let block = &record.blocks[*index];
    if block.applied_image().is_some() {
        return;
    }
    for payload in [Payload::Main, Payload::Block] {
        assert!(
            !has_end(record, block.id, payload) || refuses(settings, sample, payload),
            "{}: rmgr {} op {:#x} block {}: a byte more in {payload:?}",
            settings.version,
            record.rmid,
            record.op(),
            block.id
        );
    }
}

/// Redoes a block of the record with a byte more; tells whether it was refused.
fn refuses(settings: Settings, sample: &Sample<'_>, more: Payload) -> bool {
    let block = &sample.record.blocks[sample.index];
    let payload = match more {
        Payload::Main => sample.record.main_data,
        Payload::Block => block.data,
    };
    let longer = [payload, &[0]].concat();
    let Record {
        start,
        end,
        prev,
        xid,
        info,
        rmid,
        ..
    } = sample.record;
    let mut blocks: Vec<Block<'_>> = sample.record.blocks.iter().cloned().collect();
    let mut main_data = sample.record.main_data;
    match more {
        Payload::Main => main_data = &longer,
        Payload::Block => blocks[sample.index].data = &longer,
    }
    let record = Record {
        start,
        end,
        prev,
        xid,
        info,
        rmid,
        origin: None,
        toplevel_xid: None,
        main_data,
        blocks: blocks.into(),
    };
    redo::apply(settings, &record, sample.index, &mut sample.before.clone()).is_err()
}

/// What a byte is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payload {
    Main,
    Block,
}

/// Whether redo of this block reads all of this payload, and knows where it ends.
fn has_end(record: &Record, role: u8, payload: Payload) -> bool {
    let is_tuple = match (record.rmid, record.op() & 0x70) {
        (rmgr::HEAP, 0x00 | 0x20 | 0x40) => role == 0,
        (rmgr::BTREE, 0x00 | 0x10 | 0x20 | 0x50) => role == 0 && record.op() < 0x80,
        (rmgr::BRIN, 0x10..=0x30) => role == 0,
        (rmgr::HASH, 0x20) => role == 0 && record.op() < 0x80,
        _ => false,
    };
    match (payload, record.rmid, record.op()) {
        // The image is all of it, or is there for the comparison alone.
        (_, rmgr::XLOG, _) | (Payload::Main, rmgr::SEQ, _) => false,
        (Payload::Block, ..) => !is_tuple,
        // The other blocks of the record see to it.
        (Payload::Main, rmgr::GIST, 0x30) => role != 0,
        (Payload::Main, rmgr::SPGIST, 0x20) => role == 1,
        (Payload::Main, ..) => role == 0,
    }
}
