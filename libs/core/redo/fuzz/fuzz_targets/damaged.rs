//! A record of a server, damaged, redone on its page, damaged too, gives a page or a fault.
//!
//! The input: version and what its cluster logs, the block's index, the record's length, the record,
//! and then the page, with zeros after it where the input is short. `scripts/fuzz-seeds` makes such
//! inputs of what the oracle kept; the fuzzer damages them. The record's length is put right, as the
//! framing gives no other.
#![no_main]

use ids::Lsn;
use libfuzzer_sys::fuzz_target;
use pg::PgMajor;
use pg::wal::decode;
use redo::Settings;

fuzz_target!(|input: &[u8]| {
    let Some((&[version, index, low, high], rest)) = input.split_first_chunk() else {
        return;
    };
    let len = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
    let (record, rest) = rest.split_at(len);
    let mut record = record.to_vec();
    if let Some(total) = record.first_chunk_mut() {
        *total = (len as u32).to_le_bytes();
    }
    let settings = Settings {
        version: PgMajor::ALL[usize::from(version >> 1) % PgMajor::ALL.len()],
        logs_hints: version & 1 != 0,
    };
    // Past the LSN of any page, so that none is left alone.
    let (start, end) = (Lsn(u64::MAX - 16), Lsn(u64::MAX));
    let Ok(record) = decode(settings.version, start, end, &record) else {
        return;
    };
    let mut page = pg::page::zeroed();
    let head = rest.len().min(page.len());
    page[..head].copy_from_slice(&rest[..head]);
    let _ = redo::vm_clears(&record).count();
    let _ = redo::apply(settings, &record, index.into(), &mut page);
});
