//! The command line, run as a user runs it, on files that the sealed crate made.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ids::{FileId, Generation, KekId, KekVersion, Lsn, NodeId, TenantId, Term, TimelineId};
use sealed::log::{EpochStart, LogWriter, SegmentSpec};
use sealed::object::{self, ObjectSpec};
use sealed::{Dek, Entropy, Kek, ObjectKind, wrap};

struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
    }
}

fn layer(length: usize) -> Vec<u8> {
    let mut entropy = Counting(0);
    let dek = Dek::generate(&mut entropy);
    let slot = slot(&dek, &mut entropy);
    let spec = ObjectSpec {
        kind: ObjectKind::DeltaLayer,
        tenant: TenantId([0xAA; 16]),
        timeline: TimelineId([0xBB; 16]),
        generation: Generation(7),
        name: "layer".to_owned(),
        aux: 9,
        created_unix: 1_700_000_000,
        file_id: FileId([0xCC; 16]),
    };
    object::seal(&spec, &dek, &slot, &vec![b'x'; length]).to_vec()
}

/// A segment with frames of 100, 200 and 300 bytes and a second epoch after the second.
fn wal() -> Vec<u8> {
    complete_wal().1
}

fn complete_wal() -> (sealed::log::Log, Vec<u8>) {
    let mut entropy = Counting(0);
    let dek = Dek::generate(&mut entropy);
    let slot = slot(&dek, &mut entropy);
    let segment = SegmentSpec {
        tenant: TenantId([0xAA; 16]),
        timeline: TimelineId([0xBB; 16]),
        generation: Generation(7),
        name: "wal".to_owned(),
        segment: 1,
        created_unix: 0,
        file_id: FileId([0xDD; 16]),
    };
    let start = |term, start_lsn| EpochStart {
        term: Term(term),
        start_lsn: Lsn(start_lsn),
        node: NodeId(3),
        boot_nonce: 5,
    };
    let (mut log, first) = LogWriter::create(
        &segment,
        &dek,
        &slot,
        1,
        &start(1, 0x100_0000),
        &mut entropy,
    );
    let mut bytes = first.to_vec();
    for length in [100, 200] {
        let at = log.log().end_lsn();
        bytes.extend_from_slice(&log.append(at, &vec![1; length]).unwrap());
    }
    let cut_back = start(2, 0x100_0000 + 250);
    bytes.extend_from_slice(&log.begin_epoch(&cut_back, &mut entropy).unwrap());
    let at = log.log().end_lsn();
    bytes.extend_from_slice(&log.append(at, &[2; 300]).unwrap());
    let (log, seal) = log.finish();
    bytes.extend_from_slice(&seal);
    (log, bytes)
}

fn slot(dek: &Dek, entropy: &mut Counting) -> ids::WrapSlot {
    let kek = Kek::from_bytes([9; 32]);
    wrap::wrap(
        &kek,
        TenantId([0xAA; 16]),
        KekId([0xEE; 16]),
        KekVersion(4),
        dek,
        entropy,
    )
}

struct Sample {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn sample(bytes: &[u8]) -> Sample {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, bytes).unwrap();
    Sample {
        _directory: directory,
        path,
    }
}

fn redoubt(verb: &str, path: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_redoubt"))
        .args(["sealed", verb])
        .arg(path)
        .args(more)
        .output()
        .unwrap()
}

/// The exit code and everything that was said.
fn verify(bytes: &[u8]) -> (i32, String) {
    let file = sample(bytes);
    let output = redoubt("verify", &file.path, &[]);
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(said).unwrap(),
    )
}

fn inspect(bytes: &[u8]) -> serde_json::Value {
    let file = sample(bytes);
    let output = redoubt("inspect", &file.path, &["--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn inspect_names_kind_key_chunks_and_sizes_of_a_layer() {
    let report = inspect(&layer(20_000));
    assert_eq!(report["kind"], "delta layer");
    assert_eq!(report["tenant"], "aa".repeat(16));
    assert_eq!(report["kek_id"], "ee".repeat(16));
    assert_eq!(report["kek_version"], 4);
    assert_eq!(report["plaintext_bytes"], 20_000);
    assert_eq!(report["chunks"], 3);
    assert_eq!(report["bytes"], 512 + 20_000 + 3 * 16);
    assert_eq!(report["log"], serde_json::Value::Null);
}

#[test]
fn inspect_shows_the_same_to_a_person() {
    let file = sample(&layer(0));
    let output = redoubt("inspect", &file.path, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    for line in ["kind          delta layer", "chunks        1 of 8192 bytes"] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn inspect_lists_epochs_and_frames_of_a_log() {
    let log = &inspect(&wal())["log"];
    assert_eq!(log["frames"], 3);
    assert_eq!(log["wal_bytes"], 600);
    assert_eq!(log["complete"], true);
    assert_eq!(log["tail"], "clean");
    let epochs = log["epochs"].as_array().unwrap();
    assert_eq!(epochs.len(), 2);
    assert_eq!(epochs[1]["term"], 2);
    assert_eq!(epochs[1]["node"], 3);
}

#[test]
fn verify_of_sound_files_succeeds_and_says_what_it_did_not_check() {
    let allocated_ahead = [wal(), vec![0; 4096]].concat();
    for bytes in [layer(0), layer(8192), layer(8193), wal(), allocated_ahead] {
        let (code, said) = verify(&bytes);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("authenticity: not checked"), "{said}");
    }
}

#[test]
fn verify_sees_every_cut_of_a_layer() {
    let whole = layer(9_000);
    for length in [0, 100, 511, 512, 513, 9_000, whole.len() - 1] {
        assert_eq!(verify(&whole[..length]).0, 3, "cut to {length}");
    }
    assert_eq!(
        verify(&[whole, vec![0]].concat()).0,
        3,
        "extended by one byte"
    );
}

#[test]
fn verify_sees_a_flip_in_the_header_and_a_file_that_is_not_sealed() {
    let mut flipped = layer(10);
    flipped[80] ^= 1;
    assert_eq!(verify(&flipped).0, 3);
    let (code, said) = verify(&[b'p'; 4096]);
    assert_eq!(code, 3);
    assert!(said.contains("not sealed"), "{said}");
}

#[test]
fn verify_tells_damage_inside_a_log_from_a_write_cut_short() {
    let whole = wal();
    let mut damaged = whole.clone();
    damaged[512 + 128] ^= 1; // the marker of the first frame
    let (code, said) = verify(&damaged);
    assert_eq!(code, 3);
    assert!(said.contains("damaged at offset 640"), "{said}");

    let torn = &whole[..whole.len() - 128 - 10]; // into the last frame, the SEAL gone
    let (code, said) = verify(torn);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("cut short"), "{said}");
}

#[test]
fn a_complete_segment_that_went_on_is_sound() {
    let (log, mut bytes) = complete_wal();
    let start = EpochStart {
        term: Term(3),
        start_lsn: log.end_lsn(),
        node: NodeId(3),
        boot_nonce: 6,
    };
    let (_, epoch) = LogWriter::resume(log, &start, &mut Counting(100)).unwrap();
    bytes.extend_from_slice(&epoch);
    assert_eq!(verify(&bytes).0, 0);
    assert_eq!(inspect(&bytes)["log"]["complete"], false);
}

#[test]
fn verify_sees_a_dropped_frame_and_a_foreign_record() {
    let whole = wal();
    let second_frame = 512 + 128 + 100 + 48;
    let dropped = [&whole[..640], &whole[second_frame..]].concat();
    assert_eq!(verify(&dropped).0, 3);
    let mut foreign = whole.clone();
    foreign[16] ^= 1; // another file id: its header no longer holds
    assert_eq!(verify(&foreign).0, 3);
}

#[test]
fn a_file_that_is_not_there_is_the_users_to_fix() {
    let output = redoubt("inspect", Path::new("/nonexistent/file"), &[]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn no_noun_prints_help_and_is_a_wrong_request() {
    let output = Command::new(env!("CARGO_BIN_EXE_redoubt"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("Usage"));
}
