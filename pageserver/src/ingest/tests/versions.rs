//! What differs between major and minor releases, or is on in some clusters alone.

use super::*;

const OFFSETS: SlruKind = SlruKind::MultiXactOffsets;

/// The same cluster, of another version.
fn of(version: PgMajor, forks: &[(RelTag, u32)]) -> Ingest {
    let mut ingest = with(forks);
    ingest.control = control(version);
    ingest
}

fn parameters(wal_log_hints: u8, track_commit_timestamp: u8) -> Vec<u8> {
    let mut main = words(&[100, 8, 10, 9, 64, 1]);
    main.extend([wal_log_hints, track_commit_timestamp, 0, 0]);
    main
}

/// A record of a resource manager that redo knows nothing of, with a block or without.
fn custom(version: PgMajor, rmid: u8, with_block: bool) -> (Ingest, Result<Changes, IngestError>) {
    let mut ingest = of(version, &[(HEAP, 1)]);
    ingest.skipped = Arc::new([200]);
    let bytes = match with_block {
        true => block_record(0x00, rmid, 0, 0, &[0; 8]),
        false => encode_record(Lsn(0x10), 700, rmid, 0x00, &[0; 8]).into(),
    };
    let out = ingest.ingest(Lsn(0x100), Lsn(0x180), &bytes);
    (ingest, out)
}

#[test]
fn records_of_extensions_are_stored_for_their_pages_and_stop_ingest_without_one() {
    let (_, out) = custom(PgMajor::V15, 140, true);
    let key = Key::new(KeyKind::RelBlock(HEAP, 0));
    let stored = out.unwrap().values;
    assert!(
        matches!(&stored[0], (k, Value::Record { will_init: false, .. }) if *k == key),
        "{stored:?}"
    );
    let (mut ingest, out) = custom(PgMajor::V15, 140, false);
    let error = out.unwrap_err().to_string();
    assert!(
        error.contains("custom rmgr 140") && error.contains("custom_rmgrs_to_skip"),
        "{error}"
    );
    // For good.
    assert!(feed(&mut ingest, 0, rmgr::XLOG, 0x20, &[]).is_err());
    let (mut ingest, out) = custom(PgMajor::V15, 200, false);
    // Nothing but that there was a transaction.
    let kinds = out.unwrap().values.into_iter().map(|(key, _)| key.kind());
    assert!(kinds.eq([Some(KeyKind::Checkpoint)]));
    assert!(feed(&mut ingest, 0, rmgr::XLOG, 0x20, &[]).is_ok());
    // There are no extensions in 14.
    assert!(matches!(
        custom(PgMajor::V14, 140, true).1,
        Err(IngestError::Decode(_))
    ));
}

#[test]
fn a_page_says_whether_hints_were_logged_when_it_was_changed() {
    let mut ingest = with(&[(HEAP, 1)]);
    let bytes = block_record(0x00, rmgr::HEAP, 0, 0x40, &[0, 0, 0]);
    let logs_hints = |ingest: &mut Ingest| {
        let out = ingest.ingest(Lsn(0x100), Lsn(0x180), &bytes).unwrap();
        let mut values = out.values.into_iter();
        values.find_map(|(_, value)| match value {
            Value::Record { logs_hints, .. } => Some(logs_hints),
            _ => None,
        })
    };
    assert_eq!(logs_hints(&mut ingest), Some(false));
    feed(&mut ingest, 0, rmgr::XLOG, 0x60, &parameters(1, 0)).unwrap();
    assert_eq!(logs_hints(&mut ingest), Some(true));
    feed(&mut ingest, 0, rmgr::XLOG, 0x60, &parameters(0, 0)).unwrap();
    assert_eq!(logs_hints(&mut ingest), Some(false));
}

#[test]
fn commits_leave_their_time_while_that_is_on() {
    let mut ingest = with(&[]);
    let commit = |ingest: &mut Ingest| {
        let main = [&700_u64.to_le_bytes()[..], &words(&[2, 1, 818])].concat(); // a subtransaction
        let out = feed(ingest, 819, rmgr::XACT, 0x80, &main).unwrap().values;
        let patches = out.into_iter().filter_map(|(key, value)| match value {
            Value::Patch { offset, bytes } => Some((key, offset, bytes)),
            _ => None,
        });
        patches.collect::<Vec<_>>()
    };
    assert_eq!(commit(&mut ingest), []);
    feed(&mut ingest, 0, rmgr::XLOG, 0x60, &parameters(0, 1)).unwrap();
    let checkpoint = *ingest.checkpoint();
    let range = |of: &CheckPoint| (of.oldest_commit_ts_xid, of.newest_commit_ts_xid);
    assert_eq!(range(&checkpoint), (820, 820));
    // The page of the next transaction is there now, and others come with their first.
    assert!(ingest.directory().has_page(SlruKind::CommitTs, 1));
    let entry = Bytes::from([&700_u64.to_le_bytes()[..], &[0, 0]].concat());
    let page = |page| Key::new(KeyKind::SlruBlock(SlruKind::CommitTs, 0, page));
    assert_eq!(
        commit(&mut ingest),
        [(page(0), 8180, entry.clone()), (page(1), 0, entry)]
    );
    let cut = words(&[1, 819]);
    feed(&mut ingest, 0, rmgr::COMMIT_TS, 0x10, &cut).unwrap();
    feed(&mut ingest, 0, rmgr::XLOG, 0x60, &parameters(0, 0)).unwrap();
    assert_eq!(range(ingest.checkpoint()), (0, 0));
    assert!(!ingest.directory().has_page(SlruKind::CommitTs, 1));
}

#[test]
fn segments_of_commit_times_go_when_all_of_them_are_older() {
    let mut ingest = with(&[]);
    for segment in [0, 1, 163_879] {
        ingest
            .directory
            .slru
            .insert((SlruKind::CommitTs, segment), 32);
    }
    // The last segment is older than the first: numbers go round.
    let cut = words(&[32, 819 * 32]);
    feed(&mut ingest, 0, rmgr::COMMIT_TS, 0x10, &cut).unwrap();
    let left: Vec<u32> = ingest.directory.slru.keys().map(|(_, at)| *at).collect();
    assert_eq!(left, [0, 1], "pg_xact, and what is not older");
}

#[test]
fn the_page_of_the_next_multixact_keeps_what_the_last_one_wrote_into_it() {
    let create = |multi: u32, offset: u32| words(&[multi, offset, 1, 700, 0]);
    let zeroed = |out: Changes| {
        let page = Key::new(KeyKind::SlruBlock(OFFSETS, 0, 1));
        out.values.contains(&(page, Value::Zeros))
    };
    let begin = || {
        let mut ingest = with(&[]);
        ingest.checkpoint.next_multi = 2047;
        feed(&mut ingest, 0, rmgr::MULTIXACT, 0x00, &words(&[0])).unwrap();
        feed(&mut ingest, 0, rmgr::MULTIXACT, 0x10, &words(&[0])).unwrap();
        ingest
    };
    // Up to the minor releases of 2026 the page begins when its first multixact is made.
    let mut ingest = begin();
    let out = feed(&mut ingest, 0, rmgr::MULTIXACT, 0x20, &create(2047, 5)).unwrap();
    assert!(zeroed(out), "nobody has made it");
    let page = words(&[1]);
    let out = feed(&mut ingest, 0, rmgr::MULTIXACT, 0x00, &page).unwrap();
    assert!(!zeroed(out), "it was made ahead");
    let out = feed(&mut ingest, 0, rmgr::MULTIXACT, 0x20, &create(2048, 6)).unwrap();
    assert!(!zeroed(out));
    // Those after make it before the one that writes into it.
    let mut ingest = begin();
    let out = feed(&mut ingest, 0, rmgr::MULTIXACT, 0x00, &page).unwrap();
    assert!(zeroed(out));
    let out = feed(&mut ingest, 0, rmgr::MULTIXACT, 0x20, &create(2047, 5)).unwrap();
    assert!(!zeroed(out));
}
