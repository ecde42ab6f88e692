//! What a log shows to someone without a key agrees with what it is to someone who has it.

use ids::{Lsn, NodeId, Term};
use proptest::prelude::*;
use sealed::HEADER_BYTES;
use sealed::header::HeaderError;
use sealed::log::{LogWriter, ScanError, Tail, outline};

use super::{append, create, open, two_epochs};
use crate::support::{Counting, start};

#[test]
fn an_outline_says_what_a_scan_does() {
    let (writer, mut bytes) = two_epochs();
    for zeros in [0, 4096] {
        bytes.resize(bytes.len() + zeros, 0);
        let shown = outline(&bytes).unwrap();
        assert_eq!(shown.frames, 7);
        assert_eq!(shown.wal_bytes, 7 * 40);
        assert_eq!(shown.end_lsn, writer.log().end_lsn());
        assert_eq!(shown.end_offset, writer.log().end_offset());
        assert_eq!((shown.complete, shown.tail), (false, Tail::Clean));
        let second = shown.epochs[1];
        assert_eq!((second.number, second.term), (2, Term(2)));
        assert_eq!((second.node, second.start_lsn), (NodeId(5), Lsn(1140)));
    }
    let (_, seal) = writer.finish();
    let end = bytes.len() - 4096;
    bytes.truncate(end);
    bytes.extend_from_slice(&seal);
    assert!(outline(&bytes).unwrap().complete);
}

#[test]
fn an_epoch_after_a_seal_makes_the_segment_go_on() {
    let (writer, mut bytes) = two_epochs();
    let (log, seal) = writer.finish();
    bytes.extend_from_slice(&seal);
    let at = log.end_lsn();
    let (mut writer, epoch) = LogWriter::resume(log, &start(3, at.0), &mut Counting(9)).unwrap();
    bytes.extend_from_slice(&epoch);
    append(&mut writer, &mut bytes, 1);
    let shown = outline(&bytes).unwrap();
    assert_eq!((shown.complete, shown.tail), (false, Tail::Clean));
    assert_eq!((shown.epochs.len(), shown.frames), (3, 8));
    assert_eq!(shown.end_lsn, open(&bytes, None).unwrap().end_lsn());
}

#[test]
fn a_log_without_an_epoch_and_what_is_no_log_are_told_apart() {
    let (_, bytes) = create(1);
    let shown = outline(&bytes[..HEADER_BYTES]).unwrap();
    assert!(shown.epochs.is_empty() && shown.tail == Tail::Clean);
    assert_eq!(outline(&[0; 600]), Err(HeaderError::NotSealed));
}

proptest! {
    /// Tags need the key, everything else does not: where a scan finds damage by a checksum or
    /// the chain, the outline finds it too, and it never sees less.
    #[test]
    fn a_damaged_log_looks_no_sounder_than_it_scans(flips in prop::collection::vec((HEADER_BYTES..2000usize, 1u8..), 1..3), cut in 0usize..300) {
        let (_, mut bytes) = two_epochs();
        for (at, with) in flips {
            let at = HEADER_BYTES + at % (bytes.len() - HEADER_BYTES);
            bytes[at] ^= with;
        }
        bytes.truncate(bytes.len() - cut);
        let shown = outline(&bytes).unwrap();
        match open(&bytes, None) {
            Ok(log) => {
                prop_assert!(shown.end_offset >= log.end_offset());
                prop_assert!(log.is_torn() || shown.tail == Tail::Clean);
            }
            Err(ScanError::Corrupt { at, .. }) => prop_assert!(shown.end_offset >= at),
            Err(ScanError::Empty) => prop_assert!(shown.epochs.len() <= 2),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
