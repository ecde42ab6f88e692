//! Any record redone on any page gives a page or a fault, in bounded time.
//!
//! The input: resource manager, op, lengths of the payloads, the payloads, and then the page, of
//! which the first bytes are its line pointers' end on, and the last ones its end.
#![no_main]

use ids::{Fork, Lsn, RelTag};
use libfuzzer_sys::fuzz_target;
use pg::PgMajor;
use pg::wal::{Block, Record};

const BLOCKS: u8 = 7;

fn take<'a>(input: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(len.min(input.len()));
    *input = rest;
    taken
}

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let &[rmid, op, main_bytes, data_bytes, tail_bytes] = take(&mut input, 5) else {
        return;
    };
    let main_data = take(&mut input, main_bytes.into());
    let data = take(&mut input, data_bytes.into());
    let rel = RelTag {
        spc: 1663,
        db: 5,
        rel: 9,
        fork: Fork::Main,
    };
    let blocks = (0..BLOCKS).map(|id| Block {
        id,
        rel,
        blkno: u32::from(id),
        flags: 0,
        image: None,
        data,
    });
    let record = Record {
        start: Lsn(8),
        end: Lsn(u64::MAX),
        prev: Lsn(0),
        xid: 700,
        info: op & 0xF0,
        rmid: rmid % 22,
        origin: None,
        toplevel_xid: None,
        main_data,
        blocks: blocks.collect(),
    };
    let mut page = pg::page::zeroed();
    let tail = take(&mut input, usize::from(tail_bytes).min(64));
    let head = take(&mut input, pg::page::BLOCK - 12 - tail.len());
    page[12..12 + head.len()].copy_from_slice(head);
    let end = page.len();
    page[end - tail.len()..].copy_from_slice(tail);
    for index in 0..record.blocks.len() {
        let mut page = page.clone();
        let _ = redo::apply(PgMajor::V15, &record, index, &mut page);
    }
});
