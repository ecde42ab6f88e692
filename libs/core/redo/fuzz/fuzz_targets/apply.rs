//! Any record redone on any page gives a page or a fault, in bounded time.
//!
//! The input: version and what its cluster logs, resource manager, op with what is said of the
//! first block, lengths of the payloads, the payloads, and then the page, of which the first bytes
//! are its line pointers' end on, and the last ones its end.
#![no_main]

use ids::{Fork, Lsn, RelTag};
use libfuzzer_sys::fuzz_target;
use pg::PgMajor;
use pg::wal::block_flags::WILL_INIT;
use pg::wal::{Block, Record, rmgr};
use redo::Settings;

const BLOCKS: u8 = 7;

fn take<'a>(input: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(len.min(input.len()));
    *input = rest;
    taken
}

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let &[version, rmid, op, main_bytes, data_bytes, tail_bytes] = take(&mut input, 6) else {
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
    let map = RelTag {
        fork: Fork::Vm,
        ..rel
    };
    // Blocks of the map among them, which all are its first.
    let is_map = |id: u8| op & 0x02 != 0 && id >= 1 + 2 * (op & 0x01);
    let blocks = (0..BLOCKS).map(|id| Block {
        id,
        rel: if is_map(id) { map } else { rel },
        blkno: if is_map(id) { 0 } else { u32::from(id) },
        flags: if op & 0x04 != 0 { WILL_INIT } else { 0 },
        image: None,
        data,
    });
    let record = Record {
        start: Lsn(8),
        end: Lsn(u64::MAX),
        prev: Lsn(0),
        xid: 700,
        info: op & 0xF0,
        rmid: match rmid % 23 {
            22 => rmgr::NEON,
            rmid => rmid,
        },
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
    let settings = Settings {
        version: PgMajor::ALL[usize::from(version >> 1) % PgMajor::ALL.len()],
        logs_hints: version & 1 != 0,
    };
    let _ = redo::vm_clears(&record).count();
    for index in 0..record.blocks.len() {
        let mut page = page.clone();
        let _ = redo::apply(settings, &record, index, &mut page);
    }
});
