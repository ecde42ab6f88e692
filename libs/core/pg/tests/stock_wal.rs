//! WAL and data directories of stock PostgreSQL servers, held to what the tools of the same
//! release say of them: `pg_waldump` line by line, `pg_controldata` field by field.

// Helpers of tests are not tests to clippy.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "stock_wal/control.rs"]
mod control;
#[path = "stock_wal/description.rs"]
mod description;
#[path = "stock_wal/directory.rs"]
mod directory;
#[path = "stock_wal/line.rs"]
mod line;
#[path = "stock_wal/restart.rs"]
mod restart;
#[path = "stock_wal/workload.rs"]
mod workload;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ids::Lsn;
use pg::control::{CheckPoint, ControlFile};
use pg::datadir::{parse_wal_segment_name, twophase_path, wal_segment_name};
use pg::rmgr::{Payload, Prepare, XactRecord};
use pg::wal::{Decoder, Record, WalShape, decode, op_name, rmgr};
use stock::{DEBIAN, Release, Scene};

#[test]
fn of_14_23() {
    check("14.23", "--wal-segsize=1");
}

#[test]
fn of_debian_15() {
    check(DEBIAN, "--wal-segsize=1 -k");
}

#[test]
fn of_16_15() {
    check("16.15", "--wal-segsize=64");
}

#[test]
fn of_17_10() {
    check("17.10", "");
}

#[test]
fn of_17_11() {
    check("17.11", "--wal-segsize=1");
}

#[test]
fn of_18_4() {
    check("18.4", "");
}

#[test]
fn of_18_6() {
    check("18.6", "--wal-segsize=1 --no-data-checksums");
}

fn check(release: &'static str, initdb: &str) {
    let scene = Scene::of(Release::of(release));
    workload::run(&scene, initdb);
    let data = scene.at().join("data");
    let control = ControlFile::parse(&std::fs::read(data.join("global/pg_control")).unwrap());
    let control = control.unwrap();
    control::check(&scene, &control);
    let found = read_all(&scene, &data, &control);

    let kept = found.prepared.expect("a prepared transaction");
    assert_eq!(kept.gid[..], *b"kept");
    let next_xid = control.checkpoint().next_xid;
    let state = twophase_path(control.version(), kept.xid, next_xid);
    assert_eq!(kept.state_file(), std::fs::read(data.join(state)).unwrap());
    directory::check(&data, control.version());

    let missing: Vec<_> = workload::ops(control.version())
        .filter(|op| !found.kinds.contains(*op))
        .collect();
    assert!(missing.is_empty(), "{missing:?} of {:?}", found.kinds);
    for method in workload::compressions(control.version()) {
        let count = found.images[*method as usize];
        assert!(count > 0, "{method:?}: {:?}", found.images);
    }
    restart::check(&scene, &control, found.end);
}

/// What was in WAL.
#[derive(Default)]
struct Found {
    /// Resource managers and kinds of records.
    kinds: BTreeSet<String>,
    /// How many images, by compression.
    images: [usize; 4],
    /// The last transaction that was prepared.
    prepared: Option<Prepare>,
    /// Where the last record begins and ends.
    end: (Lsn, Lsn),
}

/// Reads all WAL from the first segment on, record by record against `pg_waldump`.
fn read_all(scene: &Scene, data: &Path, control: &ControlFile) -> Found {
    let (version, last) = (control.version(), control.checkpoint_lsn());
    let (start, segments) = segments(data, control.segment_bytes());
    let dump = scene.run(&format!(
        "TZ=UTC pg_waldump -p data/pg_wal -s {start} -e {last} 2>/dev/null"
    ));
    let mut lines = dump.lines();
    let shape = WalShape {
        version,
        segment_bytes: control.segment_bytes(),
        system_id: control.system_id(),
        tli: 1,
    };
    let mut decoder = Decoder::scanning(shape, start);
    let mut found = Found::default();
    for segment in &segments {
        decoder.feed(&std::fs::read(segment).unwrap());
        while let Some((at, end, bytes)) = decoder.next().unwrap() {
            let total = bytes.len();
            let record = decode(version, at, end, bytes).unwrap();
            if at == last {
                let checkpoint = CheckPoint::decode(record.main_data).unwrap();
                assert_eq!(checkpoint, control.checkpoint());
                assert_eq!(checkpoint.encode(), record.main_data[..]);
                assert_eq!(lines.next(), None, "pg_waldump shows no more");
                found.end = (at, end);
                return found;
            }
            let line = lines.next().expect("a line");
            assert_eq!(line::of(&record, total), line::expected(line));
            found.take(version, &record, line);
        }
    }
    panic!("no record at {last}");
}

/// Where WAL begins, and its segments in order.
fn segments(data: &Path, segment_bytes: u64) -> (Lsn, Vec<PathBuf>) {
    let mut segments: Vec<_> = std::fs::read_dir(data.join("pg_wal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && path.extension().is_none())
        .collect();
    segments.sort();
    let first = segments[0].file_name().unwrap().to_str().unwrap();
    let (tli, start) = parse_wal_segment_name(first, segment_bytes).unwrap();
    assert_eq!(wal_segment_name(tli, start, segment_bytes), first);
    (start, segments)
}

impl Found {
    fn take(&mut self, version: pg::PgMajor, record: &Record, line: &str) {
        let payload = Payload::read(version, record).unwrap();
        let kind = op_name(version, record.rmid, record.info).unwrap();
        assert_eq!(Some(kind), line::kind(line), "{line}");
        if let Some(text) = description::of(version, record, &payload) {
            assert_eq!(text, description::expected(line));
        }
        self.kinds
            .insert(format!("{} {kind}", rmgr::name(record.rmid)));
        if let Payload::Xact(XactRecord::Prepare(prepare)) = payload {
            self.prepared = Some(prepare);
        }
        for image in record
            .blocks
            .iter()
            .filter_map(|block| block.image.as_ref())
        {
            let page = image.restore().unwrap();
            assert!(pg::page::is_new(&page) || pg::page::size_version(&page) == 0x2004);
            self.images[image.compression as usize] += 1;
        }
    }
}
