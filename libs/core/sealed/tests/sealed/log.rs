//! The log under attack, and after crashes.

mod outline;

use ids::{FileId, Lsn, Term};
use proptest::prelude::*;
use sealed::log::{Anchor, AppendError, Log, LogWriter, ScanError, SegmentSpec, Verify, scan};
use sealed::object::{Expected, OpenError};
use sealed::{HEADER_BYTES, ObjectKind};

use crate::support::{Counting, dek, expected, plaintext, slot, spec, start};

const KIND: ObjectKind = ObjectKind::LocalWal;
const FRAME: usize = 48 + 40;
const FIRST_FRAME: usize = HEADER_BYTES + 128;

fn segment(file: u8) -> SegmentSpec {
    let object = spec(KIND);
    SegmentSpec {
        tenant: object.tenant,
        timeline: object.timeline,
        generation: object.generation,
        name: object.name,
        segment: 1,
        created_unix: object.created_unix,
        file_id: FileId([file; 16]),
    }
}

fn create(file: u8) -> (LogWriter, Vec<u8>) {
    let first = start(1, 1000);
    let (writer, bytes) =
        LogWriter::create(&segment(file), &dek(), &slot(), 1, &first, &mut Counting(4));
    (writer, bytes.to_vec())
}

/// `n` frames of 40 bytes.
fn append(writer: &mut LogWriter, bytes: &mut Vec<u8>, n: usize) {
    for _ in 0..n {
        let at = writer.log().end_lsn();
        bytes.extend(
            writer
                .append(at, &plaintext(40 + at.0 as usize)[at.0 as usize..])
                .unwrap(),
        );
    }
}

/// Four frames, an epoch that cuts the fourth in half, and three frames more.
pub(crate) fn two_epochs() -> (LogWriter, Vec<u8>) {
    let (mut writer, mut bytes) = create(1);
    append(&mut writer, &mut bytes, 4);
    bytes.extend(
        writer
            .begin_epoch(&start(2, 1140), &mut Counting(8))
            .unwrap(),
    );
    append(&mut writer, &mut bytes, 3);
    (writer, bytes)
}

fn anchor(log: &Log, commit: u64) -> Anchor {
    let last = log.epochs().next_back().unwrap();
    Anchor {
        epoch: last.number,
        epoch_salt: last.salt,
        term: last.term,
        commit_lsn: Lsn(commit),
    }
}

fn open(bytes: &[u8], anchor: Option<&Anchor>) -> Result<Log, ScanError> {
    scan(bytes, &dek(), &expected(KIND), anchor, Verify::All)
}

fn wal(log: &Log, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in log.frames() {
        let range = frame.sealed_range();
        out.extend(
            log.read(frame, &bytes[range.start as usize..range.end as usize])
                .unwrap(),
        );
    }
    out
}

#[test]
fn a_log_reads_back_with_what_an_epoch_cut_off() {
    let (writer, bytes) = two_epochs();
    let mut expected_wal = plaintext(1140)[1000..].to_vec();
    expected_wal.extend(&plaintext(1260)[1140..]);
    assert_eq!(wal(writer.log(), &bytes), expected_wal);
    for zeros in [0, 1, 4096] {
        let mut file = bytes.clone();
        file.resize(bytes.len() + zeros, 0);
        let log = open(&file, Some(&anchor(writer.log(), 1260))).unwrap();
        assert!(!log.is_torn());
        assert_eq!(log.end_offset(), bytes.len() as u64);
        assert_eq!(log.end_lsn(), Lsn(1260));
        assert_eq!(wal(&log, &file), expected_wal);
        assert_eq!(log.frame_at(Lsn(1139)).unwrap().end_lsn, Lsn(1140));
        assert_eq!(log.frame_at(Lsn(1260)), None);
    }
}

#[test]
fn every_bit_before_the_last_frame_is_corruption() {
    let (writer, bytes) = two_epochs();
    let anchor = anchor(writer.log(), 1140);
    for bit in HEADER_BYTES * 8..(bytes.len() - FRAME) * 8 {
        let mut file = bytes.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        let found = open(&file, Some(&anchor)).err();
        assert!(
            matches!(found, Some(ScanError::Corrupt { .. })),
            "bit {bit}: {found:?}"
        );
    }
}

#[test]
fn every_bit_of_the_last_frame_is_a_torn_write_unless_it_was_committed() {
    let (writer, bytes) = two_epochs();
    let last = bytes.len() - FRAME;
    for bit in last * 8..bytes.len() * 8 {
        let mut file = bytes.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        let log = open(&file, Some(&anchor(writer.log(), 1220))).unwrap();
        // The last word of a frame's header is its checksum; all of it is covered.
        assert!(
            log.is_torn() && log.end_offset() == last as u64,
            "bit {bit}"
        );
        let refusal = open(&file, Some(&anchor(writer.log(), 1221))).err();
        let lost = ScanError::Lost {
            end: Lsn(1220),
            committed: Lsn(1221),
        };
        assert_eq!(refusal, Some(lost), "bit {bit}");
    }
}

#[test]
fn a_cut_at_any_byte_gives_a_prefix_or_a_refusal() {
    let (_, bytes) = two_epochs();
    let (mut whole_frames, mut torn) = (0, 0);
    for cut in 0..bytes.len() {
        for zeros in [0, 300] {
            let mut file = bytes[..cut].to_vec();
            file.resize(cut + zeros, 0);
            let Ok(log) = open(&file, None) else {
                assert!(
                    cut < FIRST_FRAME,
                    "cut {cut}: only a file without an epoch is refused"
                );
                continue;
            };
            assert!(log.end_offset() <= cut as u64 + 16, "cut {cut}");
            if log.is_torn() {
                torn += 1
            } else {
                whole_frames += 1
            }
            let end = log.end_lsn().0 as usize;
            assert_eq!(
                wal(&log, &file),
                plaintext(end)[1000..].to_vec(),
                "cut {cut}"
            );
        }
    }
    assert!(whole_frames > 8 && torn > 500, "{whole_frames} {torn}");
}

#[test]
fn frames_do_not_go_missing_double_or_change_places() {
    let (writer, bytes) = two_epochs();
    let anchor = anchor(writer.log(), 1140);
    let frame = |i: usize| FIRST_FRAME + i * FRAME..FIRST_FRAME + (i + 1) * FRAME;
    let mut dropped = bytes.clone();
    dropped.drain(frame(1));
    let mut doubled = bytes.clone();
    doubled.splice(frame(1).end..frame(1).end, bytes[frame(1)].to_vec());
    let mut swapped = bytes.clone();
    swapped[frame(1)].copy_from_slice(&bytes[frame(2)]);
    swapped[frame(2)].copy_from_slice(&bytes[frame(1)]);
    let mut zeroed = bytes.clone();
    zeroed[frame(1)].fill(0);
    for (what, file) in [
        ("drop", dropped),
        ("double", doubled),
        ("swap", swapped),
        ("zero", zeroed),
    ] {
        let found = open(&file, Some(&anchor)).err();
        assert!(
            matches!(found, Some(ScanError::Corrupt { .. })),
            "{what}: {found:?}"
        );
    }
}

#[test]
fn frames_and_epochs_of_another_file_or_history_do_not_fit() {
    let (writer, bytes) = two_epochs();
    let anchor = anchor(writer.log(), 1140);
    // The same WAL in another file under the same data key.
    let (mut other, mut foreign) = create(2);
    append(&mut other, &mut foreign, 4);
    let first = FIRST_FRAME..FIRST_FRAME + FRAME;
    let mut spliced = bytes.clone();
    spliced[first.clone()].copy_from_slice(&foreign[first.clone()]);
    assert!(matches!(
        open(&spliced, Some(&anchor)),
        Err(ScanError::Corrupt { .. })
    ));
    // The same file with another second epoch: a cloned machine, say.
    let (mut clone, mut history) = create(1);
    append(&mut clone, &mut history, 4);
    history.extend(
        clone
            .begin_epoch(&start(2, 1140), &mut Counting(77))
            .unwrap(),
    );
    append(&mut clone, &mut history, 3);
    let refusal = open(&history, Some(&anchor)).err();
    assert_eq!(refusal, Some(ScanError::EpochMissing { expected: 2 }));
    // Its last frame does not fit behind ours: sequence and position agree, the chain does not.
    let last = bytes.len() - FRAME..bytes.len();
    let mut mixed = bytes.clone();
    mixed[last.clone()].copy_from_slice(&history[last.clone()]);
    let log = open(&mixed, Some(&anchor)).unwrap();
    assert!(log.is_torn() && log.end_offset() == last.start as u64);
}

#[test]
fn a_log_without_its_last_epoch_is_caught_by_the_anchor_alone() {
    let (writer, bytes) = two_epochs();
    let older = &bytes[..FIRST_FRAME + 4 * FRAME];
    let log = open(older, None).unwrap();
    assert_eq!(
        (log.end_lsn(), log.is_torn()),
        (Lsn(1160), false),
        "nothing in it can tell"
    );
    let refusal = open(older, Some(&anchor(writer.log(), 1140))).err();
    assert_eq!(refusal, Some(ScanError::EpochMissing { expected: 2 }));
}

#[test]
fn a_log_of_another_place_or_key_is_refused() {
    let (_, bytes) = two_epochs();
    let asked = Expected {
        name: "another".to_owned(),
        ..expected(KIND)
    };
    let refusal = scan(&bytes, &dek(), &asked, None, Verify::All).err();
    assert_eq!(refusal, Some(ScanError::Open(OpenError::Other("name"))));
    let other = sealed::Dek::from_bytes([1; 32]);
    let refusal = scan(&bytes, &other, &expected(KIND), None, Verify::All).err();
    assert_eq!(refusal, Some(ScanError::Open(OpenError::Commitment)));
}

#[test]
fn damage_in_an_older_epoch_is_found_at_reading_where_the_scan_is_lazy() {
    let (writer, mut bytes) = two_epochs();
    bytes[FIRST_FRAME + 40] ^= 1;
    let log = scan(&bytes, &dek(), &expected(KIND), None, Verify::LastEpoch).unwrap();
    assert_eq!(log.end_lsn(), writer.log().end_lsn());
    let frame = log.frames()[0];
    let range = frame.sealed_range();
    let refusal = log.read(&frame, &bytes[range.start as usize..range.end as usize]);
    assert_eq!(refusal.unwrap_err().offset, FIRST_FRAME as u64);
}

#[test]
fn a_torn_log_is_cut_before_it_goes_on() {
    let (_, bytes) = two_epochs();
    let mut file = bytes[..bytes.len() - 1].to_vec();
    let log = open(&file, None).unwrap();
    let at = log.end_offset();
    let refusal = LogWriter::resume(log, &start(3, 1220), &mut Counting(5)).err();
    assert_eq!(refusal, Some(AppendError::Torn { at }));

    let mut log = open(&file, None).unwrap();
    file.truncate(at as usize);
    log.cut();
    let (mut writer, epoch) = LogWriter::resume(log, &start(3, 1220), &mut Counting(5)).unwrap();
    file.extend(epoch);
    append(&mut writer, &mut file, 2);
    let log = open(&file, None).unwrap();
    assert_eq!(log.end_lsn(), Lsn(1300));
    assert_eq!(
        log.epochs().map(|e| e.number).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(wal(&log, &file), plaintext(1300)[1000..].to_vec());
}

#[test]
fn one_position_in_two_epochs_shares_no_ciphertext() {
    let (mut writer, mut bytes) = create(1);
    append(&mut writer, &mut bytes, 1);
    bytes.extend(
        writer
            .begin_epoch(&start(1, 1000), &mut Counting(8))
            .unwrap(),
    );
    append(&mut writer, &mut bytes, 1);
    let (a, b) = (FIRST_FRAME + 32, FIRST_FRAME + FRAME + 128 + 32);
    assert!(
        !bytes[a..a + 40]
            .windows(8)
            .any(|w| bytes[b..b + 40].windows(8).any(|v| v == w))
    );
}

#[test]
fn a_seal_makes_the_length_authentic_until_a_later_epoch() {
    let (writer, mut bytes) = two_epochs();
    let (log, seal) = writer.finish();
    bytes.extend(seal);
    assert!(log.is_sealed() && open(&bytes, None).unwrap().is_sealed());
    let mut behind = bytes.clone();
    behind.extend_from_slice(&bytes[FIRST_FRAME..FIRST_FRAME + FRAME]);
    assert!(
        open(&behind, None).unwrap().is_torn(),
        "nothing but an epoch follows a seal"
    );
    let (writer, epoch) = LogWriter::resume(log, &start(4, 1200), &mut Counting(6)).unwrap();
    bytes.extend(epoch);
    let log = open(&bytes, None).unwrap();
    assert!(!log.is_sealed());
    assert_eq!(log.end_lsn(), writer.log().end_lsn());
}

#[test]
fn a_mark_moves_nothing_and_proves_the_frame_before_it() {
    let (mut writer, mut bytes) = create(1);
    append(&mut writer, &mut bytes, 2);
    bytes.extend(writer.append(Lsn(1080), b"").unwrap());
    let log = open(&bytes, None).unwrap();
    assert_eq!((log.end_lsn(), log.frames().len()), (Lsn(1080), 2));
    bytes[FIRST_FRAME + FRAME + 33] ^= 1;
    assert!(matches!(open(&bytes, None), Err(ScanError::Corrupt { .. })));
}

#[test]
fn writers_refuse_gaps_old_terms_and_long_frames() {
    let (mut writer, _) = two_epochs();
    let (end, at) = (Lsn(1260), Lsn(1261));
    assert_eq!(writer.append(at, b"x"), Err(AppendError::Gap { end, at }));
    assert_eq!(
        writer.append(end, &vec![0; (1 << 20) + 1]),
        Err(AppendError::TooLong(1_048_577))
    );
    let mut begin = |term, lsn| writer.begin_epoch(&start(term, lsn), &mut Counting(1));
    assert_eq!(begin(2, 1261), Err(AppendError::Gap { end, at }));
    let (have, given) = (Term(2), Term(1));
    assert_eq!(begin(1, 1260), Err(AppendError::OldTerm { have, given }));
}

proptest! {
    #[test]
    fn hostile_logs_do_not_panic(tail in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..700) {
        let (_, mut bytes) = two_epochs();
        let at = HEADER_BYTES + at;
        let end = bytes.len().min(at + tail.len());
        bytes[at..end].copy_from_slice(&tail[..end - at]);
        let _ = open(&bytes, None);
    }
}
