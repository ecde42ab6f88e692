//! A changed log gives a prefix of what was written, or a refusal.
//!
//! The input is a list of changes, three bytes each: where (two bytes), and what to XOR.
#![no_main]

use ids::{FileId, Generation, Lsn, NodeId, TenantId, Term, TimelineId, WrapSlot};
use libfuzzer_sys::fuzz_target;
use sealed::log::{EpochStart, LogWriter, SegmentSpec, Verify, scan};
use sealed::object::Expected;
use sealed::{Dek, Entropy, HEADER_BYTES, ObjectKind};

struct Fixed;

impl Entropy for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(9);
    }
}

fn byte_at(lsn: u64) -> u8 {
    (lsn * 7 + lsn / 251) as u8
}

fuzz_target!(|input: &[u8]| {
    let dek = Dek::from_bytes([1; 32]);
    let spec = SegmentSpec {
        tenant: TenantId([2; 16]),
        timeline: TimelineId([3; 16]),
        generation: Generation(4),
        name: "name".to_owned(),
        segment: 5,
        created_unix: 6,
        file_id: FileId([7; 16]),
    };
    let mut slot = [0; 128];
    (slot[20], slot[21]) = (1, 1);
    let start = |term, lsn| EpochStart {
        term: Term(term),
        start_lsn: Lsn(lsn),
        node: NodeId(1),
        boot_nonce: 1,
    };
    let (mut writer, first) =
        LogWriter::create(&spec, &dek, &WrapSlot(slot), 1, &start(1, 1000), &mut Fixed);
    let mut bytes = first.to_vec();
    for i in 0..6 {
        if i == 3 {
            let epoch = writer
                .begin_epoch(&start(2, 1100), &mut Fixed)
                .expect("not after the end");
            bytes.extend(epoch);
        }
        let at = writer.log().end_lsn();
        let wal: Vec<u8> = (at.0..at.0 + 50).map(byte_at).collect();
        bytes.extend(writer.append(at, &wal).expect("at the end"));
    }
    for change in input.chunks_exact(3) {
        let span = bytes.len() - HEADER_BYTES;
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % span;
        bytes[HEADER_BYTES + at] ^= change[2];
    }
    let expected = Expected {
        kind: ObjectKind::LocalWal,
        tenant: spec.tenant,
        timeline: spec.timeline,
        name: spec.name,
    };
    let Ok(log) = scan(&bytes, &dek, &expected, None, Verify::All) else {
        return;
    };
    for frame in log.frames() {
        let range = frame.sealed_range();
        let sealed = &bytes[range.start as usize..range.end as usize];
        let wal = log.read(frame, sealed).expect("the scan has opened it");
        for (byte, lsn) in wal.iter().zip(frame.start_lsn.0..) {
            assert_eq!(*byte, byte_at(lsn), "unauthenticated bytes were returned");
        }
    }
});
