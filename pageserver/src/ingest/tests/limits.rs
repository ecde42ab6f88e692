//! What stops ingest by name, and what it passes over.

use super::super::directory::EXTENSION_MAX;
use super::*;

fn refused(ingest: &Ingest, rmid: u8, info: u8, main: &[u8], words: &str) {
    let error = feed(&mut ingest.clone(), 0, rmid, info, main).unwrap_err();
    assert!(error.to_string().contains(words), "{words:?} in {error}");
    assert!(matches!(
        error,
        IngestError::Refused {
            lsn: Lsn(0x100),
            ..
        }
    ));
}

fn parameters(wal_level: u32, track_commit_timestamp: u8) -> Vec<u8> {
    let mut main = words(&[100, 8, 10, 9, 64, wal_level]);
    main.extend([0, track_commit_timestamp, 0, 0]);
    main
}

#[test]
fn settings_that_keep_data_out_of_wal_are_refused_and_others_are_kept() {
    let mut ingest = with(&[]);
    refused(&ingest, rmgr::XLOG, 0x60, &parameters(0, 0), "minimal");
    for wal_level in [1, 2] {
        let main = parameters(wal_level, 0);
        let out = feed(&mut ingest, 0, rmgr::XLOG, 0x60, &main).unwrap();
        let [(key, Value::Image(file))] = &out.values[..] else {
            unreachable!("{out:?}")
        };
        assert_eq!(*key, Key::new(KeyKind::ControlFile));
        let file = ControlFile::parse(file).unwrap();
        // max_connections and wal_level.
        assert_eq!(file.as_bytes()[172..176], wal_level.to_le_bytes());
        assert_eq!(file.as_bytes()[180..184], 100_u32.to_le_bytes());
        assert_eq!(file, ingest.control);
    }
}

#[test]
fn an_end_of_recovery_on_the_same_timeline_and_a_lost_record_change_nothing() {
    let mut ingest = with(&[]);
    ingest.checkpoint.tli = 1;
    let recovered = |tli| [&[0; 8][..], &words(&[tli, tli])].concat();
    refused(&ingest, rmgr::XLOG, 0x90, &recovered(2), "timeline 2");
    for (op, main) in [(0x90, recovered(1)), (0xD0, vec![0; 16])] {
        let out = feed(&mut ingest, 0, rmgr::XLOG, op, &main).unwrap();
        assert_eq!(out, Changes::default());
    }
}

#[test]
fn a_block_far_past_the_end_is_refused_before_anything_is_made_of_it() {
    for (len, block, is_near) in [
        (1, 1 + EXTENSION_MAX, true),
        (1, 2 + EXTENSION_MAX, false),
        (u32::MAX - 1, u32::MAX, false),
        (u32::MAX - 1, u32::MAX - 1, true),
        (0, u32::MAX, false),
    ] {
        let bytes = block_record(0x00, rmgr::HEAP, block, 0x40, &[0, 0, 0]);
        let mut ingest = with(&[(HEAP, len)]);
        let out = ingest.ingest(Lsn(0x100), Lsn(0x180), &bytes);
        assert_eq!(out.is_ok(), is_near, "{block} of {len}");
        if let Err(error) = out {
            let words = if block == u32::MAX {
                "invalid block number"
            } else {
                "past its end"
            };
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(ingest.directory().forks[&HEAP], len);
        }
    }
}

#[test]
fn what_is_in_no_database_or_another_tablespace_is_refused() {
    let ingest = with(&[]);
    for (spc, db, words_in_it) in [
        (1663, 6, "database 6"),
        (1663, 0, "database 0"),
        (1664, 5, "tablespace 1664"),
        (16_400, 5, "tablespace 16400 was never"),
    ] {
        let make = words(&[spc, db, 9, 0]);
        refused(&ingest, rmgr::SMGR, 0x10, &make, words_in_it);
        let cut = words(&[6, spc, db, 9, 7]);
        refused(&ingest, rmgr::SMGR, 0x20, &cut, words_in_it);
    }
    let foreign = words(&[77, 16_400]);
    refused(&ingest, rmgr::DBASE, 0x10, &foreign, "never made");
    let copy = words(&[77, 1663, 6, 1663]);
    refused(&ingest, rmgr::DBASE, 0x00, &copy, "database 6");
    let shared = words(&[1664, 0, 9, 0]);
    feed(&mut with(&[]), 0, rmgr::SMGR, 0x10, &shared).unwrap();
}

#[test]
fn the_next_transaction_stays_above_those_that_only_lock_and_never_overflows() {
    let mut ingest = with(&[]);
    let locks = words(&[1, 750, 5, 16384]);
    feed(&mut ingest, 0, rmgr::STANDBY, 0x00, &locks).unwrap();
    assert_eq!(ingest.checkpoint().next_xid, 751);
    let subxacts = words(&[751, 2, 760, 761]);
    feed(&mut ingest, 0, rmgr::XACT, 0x50, &subxacts).unwrap();
    assert_eq!(ingest.checkpoint().next_xid, 762);
    ingest.checkpoint.next_xid = u64::MAX;
    ingest.saw_xid(u32::MAX);
    assert_eq!(ingest.checkpoint().next_xid, u64::MAX);
}

#[test]
fn an_online_checkpoint_does_not_bring_back_what_was_cut_off() {
    let mut ingest = with(&[]);
    let early = CheckPoint {
        oldest_xid: 400,
        oldest_multi: 4,
        ..CheckPoint::default()
    };
    ingest.checkpoint.oldest_xid = 500;
    ingest.checkpoint.oldest_xid_db = 5;
    ingest.checkpoint.oldest_multi = 3;
    feed(&mut ingest, 0, rmgr::XLOG, 0x10, &early.encode()).unwrap();
    let now = ingest.checkpoint();
    assert_eq!((now.oldest_xid, now.oldest_xid_db), (500, 5));
    assert_eq!(now.oldest_multi, 4);
}

#[test]
fn progress_of_replication_is_kept_until_its_origin_is_dropped() {
    let mut ingest = with(&[]);
    let mut set = words(&[0xAFFE, 0]);
    set.extend([7, 0, 1, 0, 0, 0, 0, 0]);
    let key = Key::new(KeyKind::ReplOrigin(7));
    let out = feed(&mut ingest, 0, rmgr::REPLORIGIN, 0x00, &set).unwrap();
    let lsn = |lsn: u64| Value::Image(Bytes::copy_from_slice(&lsn.to_le_bytes()));
    let (list, item) = (Key::new(KeyKind::ReplOrigins), Bytes::from_static(&[0, 7]));
    let listed = (list, Value::ListAdd(item.clone()));
    assert_eq!(out.values, [listed, (key, lsn(0xAFFE))]);
    // Back only by force.
    set[0] = 0xFD;
    let out = feed(&mut ingest.clone(), 0, rmgr::REPLORIGIN, 0x00, &set);
    assert_eq!(out.unwrap().values, [(key, lsn(0xAFFD))]);
    set[10] = 0;
    let out = feed(&mut ingest, 0, rmgr::REPLORIGIN, 0x00, &set).unwrap();
    assert_eq!(out, Changes::default());
    let out = feed(&mut ingest, 0, rmgr::REPLORIGIN, 0x10, &[7, 0]).unwrap();
    let unlisted = (list, Value::ListRemove(item));
    assert_eq!(out.values, [unlisted, (key, Value::Gone)]);
}

#[test]
fn a_change_of_pages_that_nobody_can_redo_is_refused_and_what_brings_none_is_not() {
    let mut ingest = with(&[(HEAP, 1)]);
    let unknown = block_record(0x60, rmgr::BRIN, 0, 0, &[0; 8]);
    let error = ingest.clone().ingest(Lsn(0x100), Lsn(0x180), &unknown);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("BRIN rmgr 17") && error.contains("unknown opcode"),
        "{error}"
    );
    let set = block_record(0x00, rmgr::SEQ, 0, 0x40, &[0; 12]);
    ingest.ingest(Lsn(0x100), Lsn(0x180), &set).unwrap();
}
