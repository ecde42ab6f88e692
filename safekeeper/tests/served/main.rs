//! A whole safekeeper over its sockets: whole records, fences, terms, reports, the bucket, tokens.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking

mod bench;
mod bucket;
mod fence;
mod proposer;
mod refill;
mod tokens;

use bytes::Bytes;
use ids::Lsn;
use safekeeper::access::Gate;

use bench::{Push, START, Server, Wal};

#[tokio::test]
async fn a_torn_record_is_neither_acknowledged_nor_voted_for() {
    let root = tempfile::tempdir().unwrap();
    let wal = Wal::new(&[10, 100, 9_000]);
    let server = Server::start(root.path(), Gate(None)).await;
    let (mut push, vote) = Push::begin(&server, 1).await.unwrap();
    assert_eq!(vote.flush, Lsn::INVALID);
    let torn = wal.ends[1] + 5_000;
    let answer = push.append(START, wal.between(START, torn), START).await;
    assert_eq!(answer.unwrap().flush, wal.ends[1]);
    // A commit position beyond the log does not count, and a heartbeat stands at the torn end.
    let answer = push.append(torn, Bytes::new(), torn).await.unwrap();
    assert_eq!(answer.flush, wal.ends[1]);
    server.stop().await;

    let server = Server::start(root.path(), Gate(None)).await;
    let (mut push, vote) = Push::begin(&server, 2).await.unwrap();
    assert_eq!((vote.given, vote.flush), (true, wal.ends[1]));
    let rest = wal.between(wal.ends[1], wal.end());
    let answer = push.append(wal.ends[1], rest, wal.end()).await.unwrap();
    assert_eq!(answer.flush, wal.end());
    let mut copy = server.replicate(START, "").await.unwrap();
    let got = Server::wal(&mut copy, wal.bytes.len()).await.unwrap();
    assert!(got == wal.bytes, "other WAL than was pushed");
    server.stop().await;
}

#[tokio::test]
async fn messages_that_wait_are_all_answered_in_their_order() {
    let root = tempfile::tempdir().unwrap();
    let wal = Wal::new(&[200; 100]);
    let server = Server::start(root.path(), Gate(None)).await;
    let (mut push, _) = Push::begin(&server, 1).await.unwrap();
    let mut at = START;
    for end in &wal.ends {
        let message = push.request(at, wal.between(at, *end), Lsn::INVALID);
        push.copy.write_copy(&message.encode()).await.unwrap();
        at = *end;
    }
    push.copy.flush().await.unwrap();
    let mut last = START;
    for end in &wal.ends {
        // One that shares a sync with later ones may name their end.
        let flush = push.appended().await.unwrap().flush;
        assert!(flush >= *end && flush >= last, "{flush} after {last}");
        last = flush;
    }
    assert_eq!(last, wal.end());
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_wal_is_refused_by_its_position_and_nothing_of_it_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let mut wal = Wal::new(&[10, 100, 50]);
    let good = wal.bytes.clone();
    let at = wal.bytes.len() - 20;
    wal.bytes[at] ^= 1;
    let server = Server::start(root.path(), Gate(None)).await;
    let (mut push, _) = Push::begin(&server, 1).await.unwrap();
    let refused = push.append(START, wal.between(START, wal.end()), START);
    let refused = refused.await.unwrap_err();
    assert!(refused.contains(&wal.ends[1].to_string()), "{refused}");
    assert!(push.answer().await.is_err(), "the connection goes on");
    wal.bytes = good;
    let (mut push, vote) = Push::begin(&server, 2).await.unwrap();
    assert_eq!(vote.flush, START);
    push.commit(&wal).await;
    server.stop().await;
}

#[tokio::test]
async fn a_stream_of_a_term_goes_to_the_flushed_end_and_ends_with_the_term() {
    let root = tempfile::tempdir().unwrap();
    let wal = Wal::new(&[10, 100]);
    let server = Server::start(root.path(), Gate(None)).await;
    let (mut push, _) = Push::begin(&server, 1).await.unwrap();
    let all = wal.between(START, wal.end());
    push.append(START, all, Lsn::INVALID).await.unwrap();
    let other = server.replicate(START, "(term='2')").await.unwrap_err();
    assert!(other.contains("term"), "{other}");
    // Nothing is committed, all is durable.
    let mut copy = server.replicate(START, "(term='1')").await.unwrap();
    let got = Server::wal(&mut copy, wal.bytes.len()).await.unwrap();
    assert!(got == wal.bytes);
    let (_push, vote) = Push::begin(&server, 2).await.unwrap();
    assert!(vote.given);
    let ended = Server::wal(&mut copy, 1).await.unwrap_err();
    assert!(ended.contains("term"), "{ended}");
    server.stop().await;
}

/// C1: a compute that was replaced and has nothing to write is told without being asked.
#[tokio::test]
async fn the_connection_of_an_older_term_ends_when_a_newer_one_is_voted_for() {
    let root = tempfile::tempdir().unwrap();
    let wal = Wal::new(&[10]);
    let server = Server::start(root.path(), Gate(None)).await;
    let (mut old, _) = Push::begin(&server, 1).await.unwrap();
    old.commit(&wal).await;
    let (mut new, vote) = Push::begin(&server, 2).await.unwrap();
    assert!(vote.given);
    let limit = std::time::Duration::from_secs(10);
    let ended = tokio::time::timeout(limit, old.answer()).await.unwrap();
    let ended = ended.unwrap_err();
    assert!(ended.contains("term 1 is over"), "{ended}");
    let same = new.append(wal.end(), Bytes::new(), wal.end()).await;
    assert_eq!(same.unwrap().flush, wal.end());
    server.stop().await;
}

/// C1: over a restart too, and a proposer that counts no starts is of epoch 0.
#[tokio::test]
async fn a_start_from_before_one_that_was_voted_for_gets_no_vote() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path(), Gate(None)).await;
    let begin = async |server: &Server, term, more: &str| {
        Push::win(server.push_with(more).await?, term).await
    };
    let (mut first, _) = begin(&server, 1, "").await.unwrap();
    first.commit(&Wal::new(&[10])).await;
    begin(&server, 2, ", endpoint_epoch '7'").await.unwrap();
    server.stop().await;

    let server = Server::start(root.path(), Gate(None)).await;
    for older in ["", ", endpoint_epoch '6'"] {
        let refused = begin(&server, 9, older).await.map(drop).unwrap_err();
        assert!(refused.contains("58R05"), "{refused}");
        assert!(refused.contains("epoch 7, of a later start"), "{refused}");
    }
    let bad = begin(&server, 9, ", endpoint_epoch 'x'").await.map(drop);
    assert!(bad.unwrap_err().contains("endpoint_epoch"));
    for same_or_newer in [(3, '7'), (4, '8')] {
        let (term, epoch) = same_or_newer;
        let more = format!(", endpoint_epoch '{epoch}'");
        let (_, vote) = begin(&server, term, &more).await.unwrap();
        assert!(vote.given, "epoch {epoch}");
    }
    server.stop().await;
}

/// The mark proves that the last acknowledged frame had been synced.
#[tokio::test]
async fn an_idle_log_gets_a_mark() {
    let root = tempfile::tempdir().unwrap();
    let wal = Wal::new(&[10]);
    let server = Server::start(root.path(), Gate(None)).await;
    let (mut push, _) = Push::begin(&server, 1).await.unwrap();
    let all = wal.between(START, wal.end());
    push.append(START, all, Lsn::INVALID).await.unwrap();
    let directory = root.path().join("node/wal");
    let logs = bucket::files(&directory);
    // Counted, and not watched: on a busy machine the mark may have come by now.
    let frames = || sealed::log::outline(&std::fs::read(&logs[0]).unwrap()).map(|log| log.frames);
    while frames().unwrap() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert_eq!(frames(), Ok(2), "a mark needs no mark");
    server.stop().await;
}
