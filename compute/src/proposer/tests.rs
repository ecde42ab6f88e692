use std::time::Duration;

use super::fake::{Safekeeper, propose, propose_as};
use super::*;

const START: Lsn = Lsn(0x0150_0028);
const LONG: Duration = Duration::from_secs(20);

fn wal(at: Lsn, length: usize) -> Bytes {
    (0..length)
        .map(|i| ((at.0 as usize + i) % 251) as u8)
        .collect()
}

/// Offers `length` bytes at `at`, and waits until they are committed.
async fn write(quorum: &Quorum, at: Lsn, length: usize) -> Lsn {
    let end = at + length as u64;
    quorum.offer(at, wal(at, length)).await.unwrap();
    committed(quorum, end).await;
    end
}

async fn committed(quorum: &Quorum, lsn: Lsn) {
    let mut committed = quorum.committed();
    let reached = committed.wait_for(|c| *c >= lsn);
    tokio::time::timeout(LONG, reached)
        .await
        .expect("committed in time")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_reaches_every_safekeeper_and_is_committed() {
    let keepers = [1, 2, 3].map(Safekeeper::start);
    let keepers = futures_util::future::join_all(keepers).await;
    let shutdown = Shutdown::new();
    let all: Vec<_> = keepers.iter().collect();
    let quorum = propose(&all, 7, START, &shutdown);
    let elected = quorum.elected().await.unwrap();
    assert_eq!((elected.term, elected.start), (Term(1), START));
    let mut at = START;
    for length in [1, 100, 8192, 300_000, 3 << 20, 8] {
        at = write(&quorum, at, length).await;
    }
    // Many offers that wait together arrive as they were offered.
    for _ in 0..2000 {
        quorum.offer(at, wal(at, 120)).await.unwrap();
        at = at + 120;
    }
    committed(&quorum, at).await;
    for keeper in &keepers {
        keeper.until_flushed(at).await;
        let length = (at - START) as usize;
        assert!(keeper.wal(START) == wal(START, length));
    }
    shutdown.request();
    shutdown.finished().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_that_is_down_holds_up_nothing_and_catches_up() {
    let (first, second) = (Safekeeper::start(1).await, Safekeeper::start(2).await);
    let mut third = Safekeeper::stopped(3).await;
    let shutdown = Shutdown::new();
    let quorum = propose(&[&first, &second, &third], 7, START, &shutdown);
    quorum.elected().await.unwrap();
    let at = write(&quorum, START, 2 << 20).await;
    third.serve().await;
    third.until_flushed(at).await;
    third.stop().await;
    let at = write(&quorum, at, 500_000).await;
    third.serve().await;
    third.until_flushed(at).await;
    assert!(third.wal(START) == wal(START, (at - START) as usize));
    assert_eq!(first.asked() + second.asked(), 0, "it was in memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_committed() {
    let keepers = [Safekeeper::start(1).await, Safekeeper::start(2).await];
    let third = Safekeeper::stopped(3).await;
    let shutdown = Shutdown::new();
    let quorum = propose(&[&keepers[0], &keepers[1], &third], 7, START, &shutdown);
    quorum.elected().await.unwrap();
    let at = write(&quorum, START, 1000).await;
    keepers[0].answer(false);
    quorum.offer(at, wal(at, 1000)).await.unwrap();
    keepers[1].until_flushed(at + 1000).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(*quorum.committed().borrow(), at);
    // Who offers waits too, before memory fills.
    let much = async {
        let mut at = at + 1000;
        loop {
            quorum.offer(at, wal(at, 1 << 20)).await.unwrap();
            at = at + (1 << 20);
        }
    };
    let waits = tokio::time::timeout(Duration::from_secs(1), much).await;
    assert!(waits.is_err(), "offers are taken without end");
    keepers[0].answer(true);
    committed(&quorum, at + (16 << 20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_safekeeper_is_refilled_from_a_donor() {
    let (first, second) = (Safekeeper::start(1).await, Safekeeper::start(2).await);
    let mut third = Safekeeper::stopped(3).await;
    let before = Shutdown::new();
    let quorum = propose(&[&first, &second, &third], 7, START, &before);
    quorum.elected().await.unwrap();
    let at = write(&quorum, START, 3 << 20).await;
    first.until_flushed(at).await;
    second.until_flushed(at).await;
    before.request();
    before.finished().await;
    assert_eq!(quorum.lost().await, ProposerLost::stopped());

    let shutdown = Shutdown::new();
    let quorum = propose(&[&first, &second, &third], 7, START, &shutdown);
    let elected = quorum.elected().await.unwrap();
    assert_eq!((elected.term, elected.start), (Term(2), at));
    third.serve().await;
    let at = write(&quorum, at, 100_000).await;
    third.until_flushed(at).await;
    assert!(third.wal(START) == wal(START, (at - START) as usize));
    assert!(first.asked() + second.asked() > 0, "no donor was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_away_for_long_is_refilled_while_others_go_on() {
    let (first, second) = (Safekeeper::start(1).await, Safekeeper::start(2).await);
    let mut third = Safekeeper::stopped(3).await;
    let shutdown = Shutdown::new();
    let quorum = propose(&[&first, &second, &third], 7, START, &shutdown);
    quorum.elected().await.unwrap();
    let mut at = START;
    // More than the proposer keeps of what is committed.
    while at < START + quorum::proposer::KEPT_BYTES_MAX + (8 << 20) {
        at = write(&quorum, at, 4 << 20).await;
    }
    third.serve().await;
    for _ in 0..50 {
        at = write(&quorum, at, 100_000).await;
    }
    third.until_flushed(at).await;
    assert!(third.wal(START) == wal(START, (at - START) as usize));
    assert!(first.asked() + second.asked() > 0, "no donor was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_donor_that_is_gone_is_replaced_by_another() {
    let (mut first, second) = (Safekeeper::start(1).await, Safekeeper::start(2).await);
    let (third, mut fourth) = (Safekeeper::start(3).await, Safekeeper::stopped(4).await);
    let mut fifth = Safekeeper::stopped(5).await;
    let before = Shutdown::new();
    let five = [&first, &second, &third, &fourth, &fifth];
    let quorum = propose(&five, 7, START, &before);
    quorum.elected().await.unwrap();
    let at = write(&quorum, START, 1 << 20).await;
    for keeper in [&first, &second, &third] {
        keeper.until_flushed(at).await;
    }
    before.request();
    before.finished().await;

    let shutdown = Shutdown::new();
    let five = [&first, &second, &third, &fourth, &fifth];
    let quorum = propose(&five, 7, START, &shutdown);
    quorum.elected().await.unwrap();
    let at = write(&quorum, at, 100).await;
    // The proposer names the first that voted; it voted and is gone.
    first.stop().await;
    fourth.serve().await;
    fourth.until_flushed(at).await;
    fifth.serve().await;
    fifth.until_flushed(at).await;
    assert!(fourth.wal(START) == fifth.wal(START));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_term_that_was_taken_over_is_lost_for_good() {
    let keepers = [1, 2, 3].map(Safekeeper::start);
    let keepers = futures_util::future::join_all(keepers).await;
    let all: Vec<_> = keepers.iter().collect();
    let shutdown = Shutdown::new();
    let old = propose(&all, 7, START, &shutdown);
    old.elected().await.unwrap();
    let at = write(&old, START, 5000).await;
    let new = propose(&all, 7, START, &shutdown);
    let elected = new.elected().await.unwrap();
    assert_eq!((elected.term, elected.start), (Term(2), at));

    drop(old.offer(at, wal(at, 100)).await);
    let lost = tokio::time::timeout(LONG, old.lost()).await.unwrap();
    assert!(lost.reason.contains("term 1"), "{lost}");
    assert_eq!(*old.committed().borrow(), at);
    assert!(old.offer(at, wal(at, 100)).await.is_err());
    assert_eq!(old.elected().await, Err(lost));
    write(&new, at, 5000).await;
}

/// C1: its term would be higher than that of the start which has replaced it.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_held_up_gets_no_vote_and_ends_for_good() {
    let keepers = [1, 2, 3].map(Safekeeper::start);
    let keepers = futures_util::future::join_all(keepers).await;
    let all: Vec<_> = keepers.iter().collect();
    let shutdown = Shutdown::new();
    let new = propose_as(5, &all, 7, START, &shutdown);
    new.elected().await.unwrap();
    let at = write(&new, START, 5000).await;
    let old = propose_as(4, &all, 7, START, &shutdown);
    let lost = tokio::time::timeout(LONG, old.lost()).await.unwrap();
    assert!(
        lost.reason.contains("epoch 4 gets no vote: epoch 5"),
        "{lost}"
    );
    assert_eq!(old.elected().await, Err(lost));
    write(&new, at, 5000).await;
    // The same start may win anew.
    let again = propose_as(5, &all, 7, START, &shutdown);
    assert_eq!(again.elected().await.unwrap().term, Term(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_term_that_was_taken_over_is_lost_without_a_write() {
    let keepers = [1, 2, 3].map(Safekeeper::start);
    let keepers = futures_util::future::join_all(keepers).await;
    let all: Vec<_> = keepers.iter().collect();
    let shutdown = Shutdown::new();
    let old = propose(&all, 7, START, &shutdown);
    old.elected().await.unwrap();
    write(&old, START, 5000).await;
    let new = propose(&all, 7, START, &shutdown);
    new.elected().await.unwrap();
    let lost = tokio::time::timeout(Duration::from_secs(5), old.lost()).await;
    assert!(lost.unwrap().reason.contains("term 1"));
    // The one that asks all the time keeps its own.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(new.lost.borrow().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_of_a_majority_is_noticed_and_its_end_too() {
    let mut first = Safekeeper::start(1).await;
    let mut second = Safekeeper::start(2).await;
    let third = Safekeeper::start(3).await;
    let shutdown = Shutdown::new();
    let quorum = propose(&[&first, &second, &third], 7, START, &shutdown);
    quorum.elected().await.unwrap();
    let limit = Duration::from_secs(3);
    let early = tokio::time::timeout(Duration::from_secs(4), quorum.silent(limit)).await;
    assert!(early.is_err(), "a quorum that answers is not silent");
    assert_eq!(quorum.roll().borrow().without_majority(), None);
    first.stop().await;
    second.stop().await;
    let silent = tokio::time::timeout(LONG, quorum.silent(limit)).await;
    silent.expect("silence is noticed");
    let said = quorum.roll().borrow().without_majority().unwrap();
    assert!(said.starts_with("1 of 3"), "{said}");
    second.serve().await;
    let answered = tokio::time::timeout(LONG, quorum.answered()).await;
    answered.expect("answers are noticed");
    assert!(quorum.lost.borrow().is_none(), "the term holds");
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_that_does_not_follow_ends_the_term() {
    let keeper = Safekeeper::start(1).await;
    let shutdown = Shutdown::new();
    let quorum = propose(&[&keeper], 7, START, &shutdown);
    quorum.elected().await.unwrap();
    quorum.offer(START + 8, wal(START, 8)).await.unwrap();
    assert!(quorum.lost().await.reason.contains("was expected"));
}
