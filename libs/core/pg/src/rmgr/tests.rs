//! Payloads made by hand, for what a stock server seldom writes and for what none writes.

use bytes::Bytes;
use ids::{Fork, Lsn};

use super::*;
use crate::wal::Blocks;

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

fn parse(rmid: u8, info: u8, main_data: &[u8]) -> Result<Payload, Malformed> {
    Payload::read(PgMajor::V15, &record(rmid, info, main_data)).map_err(|error| error.reason)
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Every payload that these tests know to be good.
fn good() -> Vec<(u8, u8, Vec<u8>, Payload)> {
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
            words(&[7, 0, 3, 2]),
            Payload::Xlog(XlogRecord::EndOfRecovery {
                time: 7,
                tli: 3,
                prev_tli: 2,
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
            words(&[3]),
            Payload::Clog(ClogRecord::ZeroPage(3)),
        ),
        (
            rmgr::CLOG,
            0x10,
            words(&[3, 98304, 5]),
            Payload::Clog(ClogRecord::Truncate {
                page: 3,
                oldest_xid: 98304,
                oldest_xid_db: 5,
            }),
        ),
        (
            rmgr::COMMIT_TS,
            0x00,
            words(&[3]),
            Payload::CommitTs(CommitTsRecord::ZeroPage(3)),
        ),
        (
            rmgr::COMMIT_TS,
            0x10,
            words(&[3, 98304]),
            Payload::CommitTs(CommitTsRecord::Truncate {
                page: 3,
                oldest_xid: 98304,
            }),
        ),
        (
            rmgr::MULTIXACT,
            0x00,
            words(&[3]),
            Payload::MultiXact(MultiXactRecord::ZeroOffsetsPage(3)),
        ),
        (
            rmgr::MULTIXACT,
            0x10,
            words(&[3]),
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

#[test]
fn payloads_are_read_field_by_field() {
    for (rmid, info, bytes, payload) in good() {
        assert_eq!(parse(rmid, info, &bytes), Ok(payload));
    }
}

#[test]
fn a_payload_of_any_other_length_is_refused() {
    for (rmid, info, mut bytes, payload) in good() {
        for length in 0..bytes.len() {
            assert!(parse(rmid, info, &bytes[..length]).is_err(), "{payload:?}");
        }
        bytes.push(0);
        let refused = parse(rmid, info, &bytes);
        assert!(
            matches!(refused, Err(Malformed::Trailing { bytes: 1, .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn opcodes_and_values_that_nobody_knows_are_refused() {
    for (rmid, op) in [
        (rmgr::XLOG, 0xC0),
        (rmgr::XLOG, 0xE0),
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
    ] {
        assert_eq!(parse(rmid, op, &[0; 16]), Err(Malformed::UnknownOp));
    }
    assert_eq!(parse(200, 0, &[]), Err(Malformed::UnknownRmgr));
    for (rmid, info, payload) in [
        (rmgr::CLOG, 0x04, words(&[3])),
        (rmgr::CLOG, 0x00, words(&[u32::MAX])),
        (rmgr::XLOG, 0x80, vec![2]),
        (rmgr::XLOG, 0xB0, vec![]),
        (rmgr::SMGR, 0x10, words(&[1663, 5, 16384, 4])),
        (rmgr::SMGR, 0x20, words(&[4, 1663, 5, 16384, 8])),
        (rmgr::MULTIXACT, 0x20, words(&[1, 1, 1, 700, 6])),
        (rmgr::MULTIXACT, 0x20, words(&[0, 1, 1, 700, 1])),
    ] {
        let refused = parse(rmid, info, &payload);
        assert!(
            matches!(refused, Err(Malformed::Field { .. })),
            "{refused:?}"
        );
    }
    let v17 = Payload::read(PgMajor::V17, &record(rmgr::CLOG, 0, &words(&[3])));
    assert_eq!(v17.unwrap_err().reason, Malformed::Version(PgMajor::V17));
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
        let refused = parse(rmid, info, &payload);
        assert!(
            matches!(refused, Err(Malformed::Truncated(_))),
            "{refused:?}"
        );
    }
}

#[test]
fn the_end_of_a_transaction_is_read_with_all_its_parts() {
    let all = 0x1FF | xinfo_bits::FORCE_SYNC;
    let mut bytes = words(&[7, 0, all, 5, 1663, 2, 701, 702, 1, 1663, 5, 16384]);
    bytes.extend(words(&[1, 2, 5, 16384])); // stats
    bytes.extend(words(&[1, 0, 0, 0, 0])); // an invalidation
    bytes.extend(words(&[690]));
    bytes.extend(b"name\0");
    bytes.extend(words(&[0x55, 0, 8, 0]));
    let expected = Finish {
        outcome: Outcome::Commit,
        xid: 690,
        was_prepared: true,
        time: 7,
        xinfo: all,
        database: Some((5, 1663)),
        subxacts: vec![701, 702],
        dropped: vec![RelFile {
            spc: 1663,
            db: 5,
            rel: 16384,
        }],
        dropped_stats: vec![DroppedStats {
            kind: 2,
            db: 5,
            object: 16384,
        }],
        gid: Some(Bytes::from_static(b"name")),
        origin: Some(XactOrigin {
            lsn: Lsn(0x55),
            time: 8,
        }),
    };
    let read = parse(rmgr::XACT, 0xB0, &bytes);
    assert_eq!(read, Ok(Payload::Xact(XactRecord::Finish(expected))));
    for length in 0..bytes.len() {
        assert!(parse(rmgr::XACT, 0xB0, &bytes[..length]).is_err());
    }
    // The same bits with an opcode that they do not go with; a bit of no meaning.
    for (op, xinfo) in [
        (0x80, xinfo_bits::TWOPHASE),
        (0xA0, xinfo_bits::INVALIDATIONS),
        (0xB0, 0),
        (0x80, xinfo_bits::GID),
        (0x80, 1 << 9),
    ] {
        let refused = parse(rmgr::XACT, op, &words(&[7, 0, xinfo, 0, 0, 0, 0]));
        let value = u64::from(xinfo);
        assert_eq!(
            refused,
            Err(Malformed::Field {
                what: "xinfo",
                value
            })
        );
    }
}
