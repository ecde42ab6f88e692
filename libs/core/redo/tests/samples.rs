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

use kept::Sample;
use redo::Settings;

#[test]
fn redo_of_kept_blocks_is_what_it_was() {
    let directory = kept::directory().expect("REDOUBT_SAMPLES says where blocks are kept");
    let mut redone = 0;
    for file in fs::read_dir(directory).unwrap() {
        kept::for_each(&file.unwrap().path(), |settings, sample| {
            hold_to(settings, sample);
            redone += 1;
        });
    }
    assert!(redone > 1000, "only {redone} blocks are kept");
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
    if let Some(image) = block.image.as_ref().filter(|image| !image.apply) {
        let mut theirs = image.restore().unwrap();
        let mut masked = ours;
        page_mask::mask(&mut theirs, record.rmid, block);
        page_mask::mask(&mut masked, record.rmid, block);
        assert!(
            masked == *theirs,
            "{}: the server made another page",
            what()
        );
    }
    assert!(ours == sample.after, "{}: other bytes", what());
}
