//! Crashes inside roll-over and truncation, and what no crash explains.

use api::keys::RevokeReason;
use sealed::log::ScanError;

use super::*;

/// Ends of WAL after a crash in a roll-over, for each state of the files that it may leave.
#[tokio::test]
async fn a_crash_at_any_step_of_a_roll_over_loses_nothing() {
    let bench = Bench::new();
    let mut store = bench.create().await;
    fill(&mut store, 3, 1).await;
    let full = bench.save();
    fill(&mut store, 1, 1).await;
    let rolled = bench.save();
    let sealed = &rolled[&bench.file(4)];
    let states = (full[&bench.file(4)].len()..=sealed.len()).flat_map(|cut| [(cut, 0), (cut, 100)]);
    for (cut, unfinished) in states {
        bench.restore(&full);
        fs::write(bench.file(4), &sealed[..cut]).unwrap();
        if unfinished > 0 {
            let new = bench.file(5).with_extension("new");
            fs::write(new, &rolled[&bench.file(5)][..unfinished]).unwrap();
        }
        let mut store = bench.open().await.unwrap();
        assert_eq!(store.end_lsn(), Some(START + 300), "cut at {cut}");
        fill(&mut store, 2, 1).await;
        assert_holds(&store, START, START + 500, 1).await;
        drop(store);
        let store = bench.open().await.unwrap();
        assert_holds(&store, START, START + 500, 1).await;
        assert_eq!(bench.save().len(), 2);
    }
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_truncation_leaves_the_old_view_or_the_new_one() {
    let bench = Bench::new();
    let mut store = bench.create().await;
    let length = 300 + SEGMENT_BYTES as usize + 100;
    store.append(START, &wal(START, length, 1)).await.unwrap();
    let end = START + length as u64;
    let old = bench.save();
    let before = store.anchor(START + 100).unwrap();
    store.truncate(START + 150, Term(2)).await.unwrap();
    let after = store.anchor(START + 100).unwrap();
    let new = bench.save();
    assert_eq!((old.len(), new.len()), (3, 1));

    let whole = &new[&bench.file(4)];
    let durable = old[&bench.file(4)].len();
    for cut in [durable, durable + 1, durable + 127] {
        bench.restore(&old);
        fs::write(bench.file(4), &whole[..cut]).unwrap();
        let store = bench.open_with(Some(&before)).await.unwrap();
        assert_eq!(store.end_lsn(), Some(end), "cut at {cut}");
        drop(store);
        // The epoch is known to have been durable: then its loss is no crash.
        let lost = bench.open_with(Some(&after)).await.err();
        assert!(matches!(
            lost,
            Some(OpenError::Lost(ScanError::EpochMissing { .. }))
        ));
    }
    for removed in 0..3 {
        for anchor in [&before, &after] {
            bench.restore(&old);
            fs::write(bench.file(4), whole).unwrap();
            for number in (5..7).rev().take(removed) {
                fs::remove_file(bench.file(number)).unwrap();
            }
            let mut store = bench.open_with(Some(anchor)).await.unwrap();
            assert_eq!(store.end_lsn(), Some(START + 150));
            assert_eq!(bench.save().len(), 1, "what is void was left");
            fill(&mut store, 3, 2).await;
            assert_holds(&store, START + 150, START + 450, 2).await;
            drop(store);
            let store = bench.open_with(Some(anchor)).await.unwrap();
            assert_holds(&store, START + 150, START + 450, 2).await;
        }
    }
}

#[tokio::test]
async fn a_crash_in_the_creation_leaves_a_timeline_that_can_be_created() {
    let bench = Bench::new();
    let store = bench.create().await;
    drop(store);
    let files = bench.save();
    assert!(matches!(
        WalStore::create(
            bench.place(),
            bench.ring.tenant(TENANT).await.unwrap(),
            START,
            Term(1)
        )
        .await,
        Err(OpenError::Exists(_))
    ));
    bench.restore(&BTreeMap::new());
    let bytes = &files[&bench.file(4)];
    fs::write(bench.file(4).with_extension("new"), &bytes[..600]).unwrap();
    assert!(matches!(bench.open().await, Err(OpenError::Empty(_))));
    let mut store = bench.create().await;
    fill(&mut store, 1, 1).await;
}

#[tokio::test]
async fn segments_that_are_missing_older_or_of_others_are_refused() {
    let bench = Bench::new();
    let mut store = bench.create().await;
    let length = 300 + SEGMENT_BYTES as usize + 100;
    store.append(START, &wal(START, length, 1)).await.unwrap();
    let old = bench.save();
    let mut holed = old.clone();
    holed.remove(&bench.file(5));
    bench.restore(&holed);
    assert!(matches!(bench.open().await, Err(OpenError::Hole { at }) if at == START + 300));

    // Cut at a border of frames: no damage is to be seen in the segment itself.
    let mut short = old.clone();
    short.get_mut(&bench.file(4)).unwrap().truncate(512 + 128);
    bench.restore(&short);
    assert!(matches!(bench.open().await, Err(OpenError::Hole { at }) if at == START));

    // One segment under the name of another.
    let mut moved = old.clone();
    moved.insert(bench.file(7), old[&bench.file(6)].clone());
    bench.restore(&moved);
    let refused = bench.open().await.err();
    assert!(
        matches!(refused, Some(OpenError::Damaged { segment: 7, .. })),
        "{refused:?}"
    );

    // Segments of before a truncation, put back after it.
    bench.restore(&old);
    let mut store = bench.open().await.unwrap();
    store.truncate(START + 150, Term(2)).await.unwrap();
    fill(&mut store, 3, 2).await;
    drop(store);
    fs::write(bench.file(5), &old[&bench.file(5)]).unwrap();
    let refused = bench.open().await.err();
    assert!(
        matches!(refused, Some(OpenError::Replaced { segment: 5 })),
        "{refused:?}"
    );

    let keys = bench.ring.tenant(TENANT).await.unwrap();
    bench.restore(&old);
    let timeline = TimelineId([9; 16]);
    let place = Place {
        timeline,
        ..bench.place()
    };
    assert!(matches!(
        WalStore::open(place, keys, None).await,
        Err(OpenError::Damaged { .. })
    ));
}

#[tokio::test]
async fn the_anchor_sees_a_log_that_is_shorter_or_older_than_it_was() {
    let bench = Bench::new();
    let mut store = bench.create().await;
    fill(&mut store, 2, 1).await;
    let old = bench.save();
    store.truncate(START + 100, Term(2)).await.unwrap();
    let anchor = store.anchor(START + 100).unwrap();
    drop(store);
    assert!(bench.open_with(Some(&anchor)).await.is_ok());

    let mut beyond = anchor;
    beyond.log.commit_lsn = START + 101;
    let lost = bench.open_with(Some(&beyond)).await.err();
    assert!(matches!(
        lost,
        Some(OpenError::Lost(ScanError::Lost { .. }))
    ));

    bench.restore(&old);
    assert!(
        bench.open().await.is_ok(),
        "by itself the older log is sound"
    );
    let lost = bench.open_with(Some(&anchor)).await.err();
    assert!(matches!(
        lost,
        Some(OpenError::Lost(ScanError::EpochMissing { .. }))
    ));
}

#[tokio::test]
async fn a_store_whose_sync_failed_writes_and_reads_no_more_until_it_is_opened_again() {
    let bench = Bench::new();
    let mut store = bench.create().await;
    fill(&mut store, 1, 1).await;
    // The null device takes a write and refuses a sync.
    let null = File::options().write(true).open("/dev/null").unwrap();
    store.tail.as_mut().unwrap().file = Arc::new(null);
    let at = START + 100;
    assert!(matches!(
        store.append(at, b"x").await,
        Err(WriteError::Disk(_))
    ));
    assert!(matches!(
        store.append(at, b"x").await,
        Err(WriteError::Dead)
    ));
    assert!(matches!(
        store.truncate(at, Term(2)).await,
        Err(WriteError::Dead)
    ));
    assert!(matches!(store.read(START..at).await, Err(ReadError::Dead)));
    assert!(store.anchor(at).is_none() && store.end_lsn().is_none());
    drop(store);
    let mut store = bench.open().await.unwrap();
    assert_eq!(store.tail.as_ref().unwrap().writer.log().epochs().len(), 2);
    fill(&mut store, 1, 1).await;
    assert_holds(&store, START, START + 200, 1).await;
}

#[tokio::test]
async fn nothing_is_sealed_or_handed_out_after_a_fence() {
    let bench = Bench::new();
    let mut store = bench.create().await;
    fill(&mut store, 1, 1).await;
    bench.ring.fence(TENANT, RevokeReason::Disabled).await;
    let before = bench.save();
    let at = START + 100;
    assert!(matches!(
        store.append(at, b"x").await,
        Err(WriteError::Key(_))
    ));
    assert!(matches!(
        store.truncate(START, Term(2)).await,
        Err(WriteError::Key(_))
    ));
    assert!(matches!(
        store.read(START..at).await,
        Err(ReadError::Key(_))
    ));
    assert_eq!(bench.save(), before);
    bench.ring.lift(TENANT);
    drop(store);
    let store = bench.open().await.unwrap();
    assert_holds(&store, START, at, 1).await;
}
