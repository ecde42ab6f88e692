//! Any bytes of a record, of any version, are taken apart and understood, or an error.
//!
//! The input: the version, then the record from its transaction on: the length is right, or the
//! framing would not have given it. Images are unpacked too.
#![no_main]

use ids::Lsn;
use libfuzzer_sys::fuzz_target;
use pg::PgMajor;
use pg::rmgr::{Payload, XactRecord};
use pg::wal::decode;

fuzz_target!(|input: &[u8]| {
    let Some((&version, rest)) = input.split_first() else {
        return;
    };
    let version = PgMajor::ALL[usize::from(version) % PgMajor::ALL.len()];
    let total = rest.len() as u32 + 4;
    let bytes = [&total.to_le_bytes()[..], rest].concat();
    let Ok(record) = decode(version, Lsn(8), Lsn(16), &bytes) else {
        return;
    };
    for block in &record.blocks {
        let _page_or_error = block.image.as_ref().map(|image| image.restore());
    }
    if let Ok(Payload::Xact(XactRecord::Prepare(prepare))) = Payload::read(version, &record) {
        assert!(prepare.state_file().len() > prepare.state.len());
    }
});
