//! The bytes of version 1. A later version must go on reading these files; none may change.
//!
//! `SEALED_GOLDEN=write` makes files that do not exist yet; it never replaces one.

use std::path::PathBuf;

use ids::{FileId, NodeId, TenantId};
use sealed::header::{Header, stage};
use sealed::log::{LogWriter, SegmentSpec, Verify, scan};
use sealed::object::{self, open_all, seal};
use sealed::{ObjectKind, record};

use crate::support::{Counting, TIMELINE, dek, expected, plaintext, slot, spec, start};
use crate::{rehome, rewrap};

fn check(name: &str, made: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors/v1")
        .join(name);
    if std::env::var("SEALED_GOLDEN").is_ok_and(|v| v == "write") && !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, made).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert!(
        golden == made,
        "{name}: version 1 is written in these bytes for ever"
    );
}

#[test]
fn wrap_slot() {
    check("wrap-slot.bin", &slot().0);
}

#[test]
fn objects() {
    for (name, kind, n) in [
        ("image-layer-empty.bin", ObjectKind::ImageLayer, 0),
        ("delta-layer-two-chunks.bin", ObjectKind::DeltaLayer, 8200),
        ("manifest.bin", ObjectKind::Manifest, 300),
    ] {
        let made = seal(&spec(kind), &dek(), &slot(), &plaintext(n));
        check(name, &made);
        assert_eq!(
            open_all(&made, &dek(), &expected(kind)).unwrap(),
            plaintext(n)
        );
    }
}

#[test]
fn an_object_at_another_place_and_under_another_kek() {
    let kind = ObjectKind::DeltaLayer;
    let made = seal(&spec(kind), &dek(), &slot(), &plaintext(8200));
    let to = rehome::home(TenantId([0x0B; 16]));
    let moved = object::rehome(&made, &dek(), &expected(kind), &to).unwrap();
    check("rehomed-header.bin", &moved);
    let staged = stage(&Header::decode(&made).unwrap(), &rewrap::new_slot(8));
    check("rewrap-staged-header.bin", &staged);
    check("rewrap-flipped-header.bin", &rewrap::flip(&staged).unwrap());
}

#[test]
fn log() {
    let object = spec(ObjectKind::LocalWal);
    let segment = SegmentSpec {
        tenant: object.tenant,
        timeline: object.timeline,
        generation: object.generation,
        name: object.name,
        segment: 1,
        created_unix: object.created_unix,
        file_id: FileId([0xD4; 16]),
    };
    let mut entropy = Counting(3);
    let (mut writer, bytes) =
        LogWriter::create(&segment, &dek(), &slot(), 1, &start(1, 1000), &mut entropy);
    let mut made = bytes.to_vec();
    made.extend(writer.append(ids::Lsn(1000), &plaintext(100)).unwrap());
    made.extend(writer.begin_epoch(&start(2, 1050), &mut entropy).unwrap());
    made.extend(writer.append(ids::Lsn(1050), &plaintext(64)).unwrap());
    made.extend(writer.append(ids::Lsn(1114), b"").unwrap());
    made.extend(writer.finish().1);
    check("log-two-epochs-sealed.bin", &made);
    let log = scan(
        &made,
        &dek(),
        &expected(ObjectKind::LocalWal),
        None,
        Verify::All,
    )
    .unwrap();
    assert_eq!((log.end_lsn(), log.is_sealed()), (ids::Lsn(1114), true));
}

#[test]
fn sealed_record() {
    let place = record::Place {
        node: NodeId(5),
        timeline: TIMELINE,
        table: "acceptor",
        key: b"key",
    };
    let made = record::seal(&dek(), &slot(), &place, b"a record", &mut Counting(2));
    check("record.bin", &made);
    assert_eq!(
        record::open(&made, &dek(), &place).unwrap(),
        &b"a record"[..]
    );
}
