mod cluster;
mod files;
mod kept;
mod limits;
#[path = "../../tests/world/postgres.rs"]
mod postgres;
mod stock;
mod stream;
mod versions;

use ids::{Key, RelTag, SlruKind};
use pg::wal::{encode_record, rmgr};

use super::*;
use crate::value::XidStatus;

const HEAP: RelTag = RelTag {
    spc: 1663,
    db: 5,
    rel: 16384,
    fork: Fork::Main,
};
const VM: RelTag = RelTag {
    fork: Fork::Vm,
    ..HEAP
};

fn with(forks: &[(RelTag, u32)]) -> Ingest {
    let mut directory = Directory::default();
    directory.forks.extend(forks.iter().copied());
    directory.slru.insert((SlruKind::Clog, 0), 1);
    directory.databases.insert((1663, 5));
    let checkpoint = CheckPoint {
        next_xid: 700,
        next_oid: 16384,
        ..CheckPoint::default()
    };
    Ingest::new(control(PgMajor::V15), directory, checkpoint, Arc::new([]))
}

/// A `pg_control` of a cluster of which nothing else is known.
fn control(version: PgMajor) -> ControlFile {
    let mut file = vec![0; pg::control::CONTROL_FILE_BYTES];
    let (shape, crc_at) = match version {
        PgMajor::V18 => (1800, 292),
        _ => (1300, 288),
    };
    for (at, value) in [
        (8, shape),
        (12, version.catalog_version()),
        (204, 8),
        (216, 8192),
        (220, 131_072),
        (224, 8192),
        (228, 16 << 20),
    ] {
        file[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    file[208..216].copy_from_slice(&1_234_567.0_f64.to_le_bytes());
    let crc = crc32c::crc32c(&file[..crc_at]);
    file[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    ControlFile::parse(&file).unwrap()
}

fn feed(
    ingest: &mut Ingest,
    xid: u32,
    rmid: u8,
    info: u8,
    main: &[u8],
) -> Result<Changes, IngestError> {
    let bytes = Bytes::from(encode_record(Lsn(0x10), xid, rmid, info, main));
    ingest.ingest(Lsn(0x100), Lsn(0x180), &bytes)
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A record with one block and no data; `flags` are those of the block.
fn block_record(info: u8, rmid: u8, block: u32, flags: u8, main: &[u8]) -> Bytes {
    let mut body = vec![0, flags, 0, 0];
    body.extend(words(&[HEAP.spc, HEAP.db, HEAP.rel, block]));
    body.extend([255, main.len() as u8]);
    body.extend(main);
    let mut header = pg::wal::RecordHeader {
        total_bytes: 24 + body.len() as u32,
        xid: 700,
        prev: Lsn(0x10),
        info,
        rmid,
        crc: 0,
    };
    let mut record = [&header.encode()[..], &body].concat();
    header.crc = pg::wal::record_crc(&record).unwrap();
    record[..24].copy_from_slice(&header.encode());
    record.into()
}

#[test]
fn a_block_past_the_end_extends_with_zeros() {
    for (flags, zeros) in [(0x40, 2), (0x00, 3)] {
        let mut ingest = with(&[(HEAP, 1)]);
        let bytes = block_record(0x00, rmgr::HEAP, 3, flags, &[0, 0, 0]);
        let out = ingest
            .ingest(Lsn(0x100), Lsn(0x180), &bytes)
            .unwrap()
            .values;
        let made = out.iter().filter(|(_, value)| *value == Value::Zeros);
        assert_eq!(made.count(), zeros);
        assert_eq!(ingest.directory().forks[&HEAP], 4);
        let key = Key::new(KeyKind::RelBlock(HEAP, 3));
        assert!(out.iter().any(|(k, v)| *k == key
            && matches!(v, Value::Record { will_init, .. } if *will_init == (flags != 0))));
    }
}

#[test]
fn an_insert_clears_the_map_only_where_there_is_one() {
    // XLH_INSERT_ALL_VISIBLE_CLEARED
    let bytes = block_record(0x00, rmgr::HEAP, 0, 0, &[1, 0, 1]);
    for (map_len, clears) in [(0, false), (1, true)] {
        let mut ingest = with(&[(HEAP, 1), (VM, map_len)]);
        let out = ingest
            .ingest(Lsn(0x100), Lsn(0x180), &bytes)
            .unwrap()
            .values;
        let clear = Value::VmClear {
            heap_block: 0,
            flags: 3,
        };
        let key = Key::new(KeyKind::RelBlock(VM, 0));
        assert_eq!(out.contains(&(key, clear)), clears);
    }
}

#[test]
fn truncation_cuts_the_heap_and_the_tail_of_its_map() {
    let mut ingest = with(&[(HEAP, 9), (VM, 1)]);
    let main = words(&[6, HEAP.spc, HEAP.db, HEAP.rel, 7]);
    let out = feed(&mut ingest, 0, rmgr::SMGR, 0x20, &main)
        .unwrap()
        .values;
    assert_eq!(ingest.directory().forks[&HEAP], 6);
    assert_eq!(ingest.directory().forks[&VM], 1);
    let cut = Value::VmTruncate { heap_blocks: 6 };
    assert!(out.contains(&(Key::new(KeyKind::RelBlock(VM, 0)), cut)));
}

#[test]
fn a_commit_sets_its_bits_and_moves_the_next_transaction() {
    let mut ingest = with(&[]);
    let out = feed(&mut ingest, 702, rmgr::XACT, 0x00, &[0; 8])
        .unwrap()
        .values;
    let set = Value::ClogSet {
        status: XidStatus::Committed,
        xids: vec![702],
    };
    assert!(out.contains(&(Key::new(KeyKind::SlruBlock(SlruKind::Clog, 0, 0)), set)));
    assert_eq!(ingest.checkpoint().next_xid, 703);
}

#[test]
fn a_commit_without_its_status_page_is_refused_and_ingest_stays_stopped() {
    let mut ingest = with(&[]);
    let error = feed(&mut ingest, 40_000, rmgr::XACT, 0x00, &[0; 8]).unwrap_err();
    assert!(matches!(
        error,
        IngestError::Refused {
            lsn: Lsn(0x100),
            reason: Reason::NoSlruPage {
                slru: SlruKind::Clog,
                page: 1
            },
            ..
        }
    ));
    assert_eq!(
        feed(&mut ingest, 701, rmgr::XACT, 0x00, &[0; 8]),
        Err(error)
    );
}

#[test]
fn a_shutdown_checkpoint_below_a_seen_transaction_is_refused() {
    let low = CheckPoint {
        next_xid: 702,
        ..CheckPoint::default()
    };
    let mut ingest = with(&[]);
    feed(&mut ingest, 702, rmgr::XACT, 0x00, &[0; 8]).unwrap();
    let mut online = ingest.clone();
    let error = feed(&mut ingest, 0, rmgr::XLOG, 0x00, &low.encode()).unwrap_err();
    assert!(error.to_string().contains("702, below 703"), "{error}");
    feed(&mut online, 0, rmgr::XLOG, 0x10, &low.encode()).unwrap();
    assert_eq!(online.checkpoint().next_xid, 703);
    assert_eq!(online.checkpoint().next_oid, 16384);
}

#[test]
fn clog_pages_begin_as_zeros_and_whole_segments_go() {
    let mut ingest = with(&[]);
    feed(&mut ingest, 0, rmgr::CLOG, 0x00, &words(&[32])).unwrap();
    feed(&mut ingest, 0, rmgr::CLOG, 0x10, &words(&[31, 5, 1])).unwrap();
    assert_eq!(ingest.directory().slru.len(), 2);
    feed(&mut ingest, 0, rmgr::CLOG, 0x10, &words(&[32, 5, 1])).unwrap();
    assert!(!ingest.directory().has_page(SlruKind::Clog, 0));
    assert!(ingest.directory().has_page(SlruKind::Clog, 32));
}

#[test]
fn what_is_not_supported_names_its_record() {
    let mut ingest = with(&[]);
    let error = feed(&mut ingest, 0, rmgr::TBLSPC, 0x10, &words(&[1663])).unwrap_err();
    assert!(error.to_string().contains("tablespace 1663"), "{error}");
    let error = feed(&mut with(&[]), 0, 99, 0x00, &[]).unwrap_err();
    assert!(matches!(error, IngestError::Decode(_)));
}

#[test]
fn the_next_transaction_skips_the_special_ones_at_wraparound() {
    let mut ingest = with(&[]);
    ingest.checkpoint.next_xid = 0xFFFF_FFFE;
    ingest.saw_xid(u32::MAX);
    assert_eq!(ingest.checkpoint.next_xid, 0x1_0000_0003);
}

#[test]
fn a_multixact_writes_its_offset_the_next_one_and_its_members() {
    let mut ingest = with(&[]);
    let create = words(&[2047, 5, 2, 800, 0, 801, 5]);
    let error = feed(&mut ingest.clone(), 0, rmgr::MULTIXACT, 0x20, &create).unwrap_err();
    assert!(error.to_string().contains("never made"), "{error}");
    feed(&mut ingest, 0, rmgr::MULTIXACT, 0x00, &words(&[0])).unwrap();
    feed(&mut ingest, 0, rmgr::MULTIXACT, 0x10, &words(&[0])).unwrap();
    let out = feed(&mut ingest, 0, rmgr::MULTIXACT, 0x20, &create)
        .unwrap()
        .values;
    let patch = |slru, block, offset, bytes: &[u8]| {
        let bytes = Bytes::copy_from_slice(bytes);
        let key = Key::new(KeyKind::SlruBlock(slru, 0, block));
        (key, Value::Patch { offset, bytes })
    };
    let (offsets, members) = (SlruKind::MultiXactOffsets, SlruKind::MultiXactMembers);
    for wanted in [
        patch(offsets, 0, 8188, &[5, 0, 0, 0]),
        patch(offsets, 1, 0, &[7, 0, 0, 0]),
        patch(members, 0, 21, &[0]),
        patch(members, 0, 28, &800_u32.to_le_bytes()),
        patch(members, 0, 22, &[5]),
        patch(members, 0, 32, &801_u32.to_le_bytes()),
    ] {
        assert!(out.contains(&wanted), "{wanted:?} in {out:?}");
    }
    let checkpoint = ingest.checkpoint();
    assert_eq!(
        (checkpoint.next_multi, checkpoint.next_multi_offset),
        (2048, 7)
    );
    assert_eq!(checkpoint.next_xid, 802);
    // An online checkpoint may have read its numbers before that record was written.
    let early = CheckPoint {
        next_multi: 2047,
        next_multi_offset: 5,
        ..CheckPoint::default()
    };
    feed(&mut ingest, 0, rmgr::XLOG, 0x10, &early.encode()).unwrap();
    let checkpoint = ingest.checkpoint();
    assert_eq!(
        (checkpoint.next_multi, checkpoint.next_multi_offset),
        (2048, 7)
    );
}

#[test]
fn a_relation_map_is_stored_whole_and_without_its_header() {
    let mut map = words(&[0x0059_2717, 1, 1259, 16_999]);
    map.resize(504, 0);
    map.extend(words(&[0x5B27_B439])); // CRC-32C of what is before
    map.resize(512, 0);
    let mut main = words(&[5, 1663, 512]);
    main.extend(&map);
    let out = feed(&mut with(&[]), 0, rmgr::RELMAP, 0x00, &main)
        .unwrap()
        .values;
    let key = Key::new(KeyKind::RelMap { spc: 1663, db: 5 });
    assert_eq!(out, [(key, Value::Image(map.into()))]);
}

#[test]
fn the_end_of_a_prepared_transaction_removes_its_state_and_sets_its_bits() {
    // XACT_XINFO_HAS_TWOPHASE, and the transaction.
    let mut main = vec![0; 8];
    main.extend(words(&[1 << 4, 705]));
    let mut ingest = with(&[]);
    let error = feed(&mut ingest.clone(), 0, rmgr::XACT, 0xC0, &main).unwrap_err();
    assert!(error.to_string().contains("705 was never"), "{error}");
    let mut out = Changes::default();
    let file = Bytes::from_static(b"state");
    ingest.directory.add_prepared(705, file, &mut out);
    assert_eq!(out.values.len(), 2);
    let out = feed(&mut ingest, 0, rmgr::XACT, 0xC0, &main)
        .unwrap()
        .values;
    assert!(out.contains(&(Key::new(KeyKind::TwoPhase(705)), Value::Gone)));
    let set = Value::ClogSet {
        status: XidStatus::Aborted,
        xids: vec![705],
    };
    assert!(out.contains(&(Key::new(KeyKind::SlruBlock(SlruKind::Clog, 0, 0)), set)));
    assert!(ingest.directory().prepared.is_empty());
}
