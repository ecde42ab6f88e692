//! Payloads made by hand, for what a stock server seldom writes and for what none writes.

use bytes::Bytes;
use ids::{Fork, Lsn};

use super::*;
use crate::control::CheckPoint;
use crate::wal::{Block, Blocks};

fn record(rmid: u8, info: u8, main_data: &[u8]) -> Record<'_> {
    Record {
        start: Lsn(0x100),
        end: Lsn(0x200),
        prev: Lsn(0x80),
        xid: 700,
        info,
        rmid,
        origin: None,
        toplevel_xid: None,
        main_data,
        blocks: Blocks::new(),
    }
}

fn parse(version: PgMajor, rmid: u8, info: u8, main_data: &[u8]) -> Result<Payload, Malformed> {
    Payload::read(version, &record(rmid, info, main_data)).map_err(|error| error.reason)
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The page of an SLRU, as wide as the version has it.
fn page(version: PgMajor, page: u32) -> Vec<u8> {
    if version < PgMajor::V17 {
        words(&[page])
    } else {
        words(&[page, 0])
    }
}

/// Every payload that these tests know to be good, and that all versions have.
fn good(version: PgMajor) -> Vec<(u8, u8, Vec<u8>, Payload)> {
    let since_17 = version >= PgMajor::V17;
    let of_page = |rest: &[u32]| [page(version, 3), words(rest)].concat();
    let mut end_of_recovery = words(&[7, 0, 3, 2]);
    if since_17 {
        end_of_recovery.extend(words(&[1, 0xEEEE_EEEE]));
    }
    let file = RelFile {
        spc: 1663,
        db: 5,
        rel: 16384,
    };
    let mut origin_set = words(&[0x77, 1]);
    origin_set.extend([9, 0, 1, 0xEE, 0xEE, 0xEE, 0xEE, 0xEE]);
    let mut message = words(&[5, 1, 4, 0, 2, 0]);
    message.extend(b"abc\0hi");
    let mut tablespace = words(&[16400]);
    tablespace.extend(b"/srv/x\0");
    let mut parameters = words(&[100, 8, 10, 0, 64, 2]);
    parameters.extend([0, 1, 0xEE, 0xEE]);
    let mut restore_point = words(&[7, 0]);
    restore_point.extend(b"here\0junk");
    restore_point.resize(72, 0xEE);
    vec![
        (
            rmgr::XLOG,
            0x60,
            parameters,
            Payload::Xlog(XlogRecord::ParameterChange(ParameterChange {
                max_connections: 100,
                max_worker_processes: 8,
                max_wal_senders: 10,
                max_prepared_xacts: 0,
                max_locks_per_xact: 64,
                wal_level: 2,
                wal_log_hints: false,
                track_commit_timestamp: true,
            })),
        ),
        (
            rmgr::XLOG,
            0x70,
            restore_point,
            Payload::Xlog(XlogRecord::RestorePoint {
                time: 7,
                name: Bytes::from_static(b"here"),
            }),
        ),
        (
            rmgr::XLOG,
            0x80,
            vec![1],
            Payload::Xlog(XlogRecord::FullPageWrites(true)),
        ),
        (
            rmgr::XLOG,
            0x90,
            end_of_recovery,
            Payload::Xlog(XlogRecord::EndOfRecovery {
                time: 7,
                tli: 3,
                prev_tli: 2,
                wal_level: u32::from(since_17),
            }),
        ),
        (
            rmgr::XLOG,
            0xD0,
            words(&[0x80, 0, 7, 0]),
            Payload::Xlog(XlogRecord::OverwriteContrecord {
                lsn: Lsn(0x80),
                time: 7,
            }),
        ),
        (
            rmgr::XLOG,
            0x50,
            words(&[0x80, 0]),
            Payload::Xlog(XlogRecord::BackupEnd(Lsn(0x80))),
        ),
        (
            rmgr::XLOG,
            0x30,
            words(&[24576]),
            Payload::Xlog(XlogRecord::NextOid(24576)),
        ),
        (
            rmgr::SMGR,
            0x11,
            words(&[1663, 5, 16384, 3]),
            Payload::Storage(StorageRecord::Create(file.fork(Fork::Init))),
        ),
        (
            rmgr::SMGR,
            0x21,
            words(&[4, 1663, 5, 16384, 7]),
            Payload::Storage(StorageRecord::Truncate {
                file,
                blocks: 4,
                flags: 7,
            }),
        ),
        (
            rmgr::CLOG,
            0x00,
            of_page(&[]),
            Payload::Clog(ClogRecord::ZeroPage(3)),
        ),
        (
            rmgr::CLOG,
            0x10,
            of_page(&[98304, 5]),
            Payload::Clog(ClogRecord::Truncate {
                page: 3,
                oldest_xid: 98304,
                oldest_xid_db: 5,
            }),
        ),
        (
            rmgr::COMMIT_TS,
            0x00,
            of_page(&[]),
            Payload::CommitTs(CommitTsRecord::ZeroPage(3)),
        ),
        (
            rmgr::COMMIT_TS,
            0x10,
            of_page(&[98304]),
            Payload::CommitTs(CommitTsRecord::Truncate {
                page: 3,
                oldest_xid: 98304,
            }),
        ),
        (
            rmgr::MULTIXACT,
            0x00,
            of_page(&[]),
            Payload::MultiXact(MultiXactRecord::ZeroOffsetsPage(3)),
        ),
        (
            rmgr::MULTIXACT,
            0x10,
            of_page(&[]),
            Payload::MultiXact(MultiXactRecord::ZeroMembersPage(3)),
        ),
        (
            rmgr::MULTIXACT,
            0x30,
            words(&[5, 1, 2, 3, 4]),
            Payload::MultiXact(MultiXactRecord::Truncate {
                oldest_multi_db: 5,
                start_multi: 1,
                end_multi: 2,
                start_member: 3,
                end_member: 4,
            }),
        ),
        (
            rmgr::TBLSPC,
            0x00,
            tablespace,
            Payload::Tablespace(TablespaceRecord::Create {
                spc: 16400,
                path: Bytes::from_static(b"/srv/x"),
            }),
        ),
        (
            rmgr::TBLSPC,
            0x10,
            words(&[16400]),
            Payload::Tablespace(TablespaceRecord::Drop { spc: 16400 }),
        ),
        (
            rmgr::REPLORIGIN,
            0x00,
            origin_set,
            Payload::Origin(OriginRecord::Set {
                origin: 9,
                lsn: Lsn(0x1_0000_0077),
                force: true,
            }),
        ),
        (
            rmgr::REPLORIGIN,
            0x10,
            vec![9, 0],
            Payload::Origin(OriginRecord::Drop { origin: 9 }),
        ),
        (
            rmgr::LOGICALMSG,
            0x00,
            message,
            Payload::LogicalMessage(LogicalMessage {
                db: 5,
                transactional: true,
                prefix: Bytes::from_static(b"abc"),
                message: Bytes::from_static(b"hi"),
            }),
        ),
        (
            rmgr::STANDBY,
            0x10,
            words(&[1, 2, 1, 9, 5, 8, 5, 6, 7]),
            Payload::Standby(StandbyRecord::RunningXacts(RunningXacts {
                subxids_overflowed: true,
                next_xid: 9,
                oldest_running_xid: 5,
                latest_completed_xid: 8,
                xids: vec![5],
                subxids: vec![6, 7],
            })),
        ),
        (
            rmgr::XACT,
            0x50,
            words(&[5, 2, 6, 7]),
            Payload::Xact(XactRecord::Assignment {
                top: 5,
                subxacts: vec![6, 7],
            }),
        ),
    ]
}

/// Those that only some versions have, or have in another form.
fn good_since() -> Vec<(PgMajor, u8, u8, Vec<u8>, Payload)> {
    let copied = Payload::Database(DatabaseRecord::CreateFileCopy {
        db: 5,
        spc: 1663,
        from_db: 1,
        from_spc: 1663,
    });
    let dropped = Payload::Database(DatabaseRecord::Drop {
        db: 5,
        spcs: vec![1663, 16400],
    });
    let made = Payload::Database(DatabaseRecord::CreateWalLog { db: 5, spc: 1663 });
    let copy = words(&[5, 1663, 1, 1663]);
    let drop = words(&[5, 2, 1663, 16400]);
    let redo = Payload::Xlog(XlogRecord::CheckPointRedo { wal_level: 2 });
    let mut rows = vec![
        (
            PgMajor::V14,
            rmgr::DBASE,
            0x00,
            copy.clone(),
            copied.clone(),
        ),
        (
            PgMajor::V14,
            rmgr::DBASE,
            0x10,
            drop.clone(),
            dropped.clone(),
        ),
    ];
    for version in &PgMajor::ALL[1..] {
        rows.push((*version, rmgr::DBASE, 0x00, copy.clone(), copied.clone()));
        rows.push((*version, rmgr::DBASE, 0x10, words(&[5, 1663]), made.clone()));
        rows.push((*version, rmgr::DBASE, 0x20, drop.clone(), dropped.clone()));
        rows.push((
            *version,
            rmgr::NEON,
            0x30,
            words(&[1, 2, 3]),
            Payload::Custom,
        ));
    }
    for version in &PgMajor::ALL[3..] {
        rows.push((*version, rmgr::XLOG, 0xE0, words(&[2]), redo.clone()));
    }
    rows
}

#[test]
fn payloads_are_read_field_by_field() {
    for version in PgMajor::ALL {
        for (rmid, info, bytes, payload) in good(version) {
            assert_eq!(parse(version, rmid, info, &bytes), Ok(payload));
        }
    }
    for (version, rmid, info, bytes, payload) in good_since() {
        assert_eq!(parse(version, rmid, info, &bytes), Ok(payload));
    }
}

#[test]
fn a_payload_of_any_other_length_is_refused() {
    let of_all = |version| {
        let with_version =
            move |(rmid, info, bytes, payload)| (version, rmid, info, bytes, payload);
        good(version).into_iter().map(with_version)
    };
    let all = PgMajor::ALL
        .into_iter()
        .flat_map(of_all)
        .chain(good_since());
    for (version, rmid, info, mut bytes, payload) in all {
        if payload == Payload::Custom {
            continue;
        }
        for length in 0..bytes.len() {
            let short = parse(version, rmid, info, &bytes[..length]);
            assert!(short.is_err(), "{version} {payload:?}");
        }
        bytes.push(0);
        let refused = parse(version, rmid, info, &bytes);
        assert!(
            matches!(refused, Err(Malformed::Trailing { bytes: 1, .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn opcodes_that_nobody_knows_are_refused() {
    for (rmid, op) in [
        (rmgr::XLOG, 0xC0),
        (rmgr::XLOG, 0xF0),
        (rmgr::XACT, 0x70),
        (rmgr::XACT, 0x90),
        (rmgr::SMGR, 0x00),
        (rmgr::CLOG, 0x20),
        (rmgr::DBASE, 0x30),
        (rmgr::TBLSPC, 0x20),
        (rmgr::MULTIXACT, 0x40),
        (rmgr::RELMAP, 0x10),
        (rmgr::STANDBY, 0x30),
        (rmgr::COMMIT_TS, 0x20),
        (rmgr::REPLORIGIN, 0x20),
        (rmgr::LOGICALMSG, 0x10),
        (rmgr::HEAP2, 0x80),
        (rmgr::HEAP, 0x90),
        (rmgr::BTREE, 0xF0),
        (rmgr::HASH, 0xD0),
        (rmgr::GIN, 0x00),
        (rmgr::GIST, 0x40),
        (rmgr::SEQ, 0x10),
        (rmgr::SPGIST, 0x00),
        (rmgr::BRIN, 0xB0),
        (rmgr::GENERIC, 0x10),
    ] {
        for version in PgMajor::ALL {
            let refused = parse(version, rmid, op, &[0; 16]);
            assert_eq!(refused, Err(Malformed::UnknownOp), "{rmid} {op:#x}");
        }
    }
    let of_17 = (rmgr::XLOG, 0xE0);
    for (version, (rmid, op)) in [
        (PgMajor::V14, (rmgr::DBASE, 0x20)),
        (PgMajor::V14, of_17),
        (PgMajor::V16, of_17),
    ] {
        assert_eq!(parse(version, rmid, op, &[0; 4]), Err(Malformed::UnknownOp));
    }
    assert_eq!(
        parse(PgMajor::V18, 127, 0, &[]),
        Err(Malformed::UnknownRmgr)
    );
    assert_eq!(
        parse(PgMajor::V14, 200, 0, &[]),
        Err(Malformed::UnknownRmgr)
    );
}

#[test]
fn values_that_nobody_knows_are_refused() {
    for (version, rmid, info, payload) in [
        (PgMajor::V15, rmgr::CLOG, 0x04, words(&[3])),
        (PgMajor::V15, rmgr::CLOG, 0x00, words(&[u32::MAX])),
        (PgMajor::V17, rmgr::CLOG, 0x00, words(&[3, 1])),
        (PgMajor::V17, rmgr::CLOG, 0x00, words(&[u32::MAX, u32::MAX])),
        (PgMajor::V15, rmgr::XLOG, 0x80, vec![2]),
        (PgMajor::V15, rmgr::XLOG, 0xB0, vec![]),
        (PgMajor::V17, rmgr::XLOG, 0xE0, words(&[3])),
        (PgMajor::V17, rmgr::XLOG, 0x90, words(&[7, 0, 3, 2, 3, 0])),
        (PgMajor::V15, rmgr::SMGR, 0x10, words(&[1663, 5, 16384, 4])),
        (
            PgMajor::V15,
            rmgr::SMGR,
            0x20,
            words(&[4, 1663, 5, 16384, 8]),
        ),
        (
            PgMajor::V15,
            rmgr::MULTIXACT,
            0x20,
            words(&[1, 1, 1, 700, 6]),
        ),
        (
            PgMajor::V15,
            rmgr::MULTIXACT,
            0x20,
            words(&[0, 1, 1, 700, 1]),
        ),
        (PgMajor::V15, rmgr::HEAP, 0x30, words(&[5, 1, 4, 16384])),
        (PgMajor::V15, rmgr::HEAP, 0x00, words(&[5])),
    ] {
        let refused = parse(version, rmid, info, &payload);
        assert!(
            matches!(refused, Err(Malformed::Field { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn a_checkpoint_has_a_wal_level_since_17() {
    let mut checkpoint = CheckPoint {
        redo: Lsn(0x100),
        full_page_writes: true,
        wal_level: 1,
        next_xid: 700,
        ..CheckPoint::default()
    };
    let bytes = checkpoint.encode();
    let read = |version, bytes: &[u8]| match parse(version, rmgr::XLOG, 0x10, bytes)? {
        Payload::Xlog(XlogRecord::CheckPoint {
            shutdown: false,
            checkpoint,
        }) => Ok(checkpoint),
        other => panic!("{other:?}"),
    };
    assert_eq!(read(PgMajor::V17, &bytes), Ok(checkpoint));
    checkpoint.wal_level = 0;
    assert_eq!(read(PgMajor::V16, &bytes), Ok(checkpoint));
    for (at, what) in [(16, "full_page_writes"), (20, "wal_level")] {
        let mut bytes = bytes;
        bytes[at] = 3;
        let value = 3;
        assert_eq!(
            read(PgMajor::V18, &bytes),
            Err(Malformed::Field { what, value })
        );
    }
}

#[test]
fn an_image_of_a_hint_may_be_missing() {
    let block = Block {
        id: 0,
        rel: RelFile {
            spc: 1663,
            db: 5,
            rel: 16384,
        }
        .fork(Fork::Main),
        blkno: 0,
        flags: 0,
        image: None,
        data: &[],
    };
    for (op, main_data, fits) in [
        (0xA0, &[][..], true),
        (0xB0, &[], false),
        (0x80, &[1], false),
    ] {
        let mut record = record(rmgr::XLOG, op, main_data);
        record.blocks.push(block.clone());
        assert_eq!(
            Payload::read(PgMajor::V18, &record).is_ok(),
            fits,
            "{op:#x}"
        );
    }
}

#[test]
fn what_is_for_logical_decoding_alone_is_read_to_its_end() {
    let mut truncate = words(&[5, 1]);
    truncate.extend([3, 0xEE, 0xEE, 0xEE, 0, 0x40, 0, 0]);
    let mut rewrite = words(&[700, 5, 16384, 0xEEEE_EEEE, 0, 0, 1, 0xEEEE_EEEE, 9, 0]);
    rewrite.extend([7; 36]);
    for version in PgMajor::ALL {
        let mut reuse = vec![1; 24];
        if version >= PgMajor::V16 {
            reuse.push(1);
        }
        for (rmid, op, bytes) in [
            (rmgr::HEAP, 0x30, truncate.clone()),
            (rmgr::HEAP2, 0x00, rewrite.clone()),
            (rmgr::HEAP2, 0x70, vec![1; 34]),
            (rmgr::BTREE, 0xD0, reuse.clone()),
            (rmgr::GIST, 0x20, reuse),
            (rmgr::GIST, 0x70, vec![0; 4]),
        ] {
            assert_eq!(parse(version, rmid, op, &bytes), Ok(Payload::Pages));
            for length in 0..bytes.len() {
                assert!(parse(version, rmid, op, &bytes[..length]).is_err());
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(parse(version, rmid, op, &longer).is_err());
        }
    }
}

#[test]
fn a_huge_count_allocates_nothing() {
    let count = i32::MAX as u32;
    for (rmid, info, payload) in [
        (rmgr::MULTIXACT, 0x20, words(&[1, 1, count, 700, 1])),
        (rmgr::DBASE, 0x20, words(&[5, count, 1663])),
        (rmgr::STANDBY, 0x00, words(&[count, 1, 2, 3])),
        (
            rmgr::XACT,
            0x80,
            words(&[0, 0, xinfo_bits::SUBXACTS, count, 1]),
        ),
    ] {
        let refused = parse(PgMajor::V15, rmid, info, &payload);
        assert!(
            matches!(refused, Err(Malformed::Truncated(_))),
            "{refused:?}"
        );
    }
}
