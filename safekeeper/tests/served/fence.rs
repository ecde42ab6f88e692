//! K5 and K6: what a fence ends, and how a timeline comes back.

use api::keys::RevokeReason;
use ids::Lsn;
use safekeeper::access::Gate;

use crate::bench::{Push, START, Server, TENANT, Wal};

#[tokio::test]
async fn a_fence_ends_streams_with_its_name_and_the_next_request_after_it_opens_again() {
    let root = tempfile::tempdir().unwrap();
    let wal = Wal::new(&[10, 100, 1000]);
    let server = Server::start(root.path(), Gate(None)).await;
    let (mut push, _) = Push::begin(&server, 1).await.unwrap();
    push.commit(&wal).await;
    let mut copy = server.replicate(START, "").await.unwrap();
    Server::wal(&mut copy, wal.bytes.len()).await.unwrap();

    let started = service::clock::boottime();
    server.ring.fence(TENANT, RevokeReason::Disabled).await;
    // The drain of these tests is half a second: the task did not need it.
    let took = service::clock::boottime() - started;
    assert!(took < std::time::Duration::from_millis(400), "{took:?}");
    for ended in [
        Server::wal(&mut copy, 1).await.unwrap_err(),
        push.answer().await.unwrap_err(),
        Push::begin(&server, 2).await.err().unwrap(),
        server.replicate(START, "").await.err().unwrap(),
    ] {
        assert!(ended.contains("58R01"), "{ended}");
    }
    let refused = crate::bucket::status(&server).await.unwrap_err();
    assert!(refused.contains("423"), "{refused}");

    server.ring.lift(TENANT);
    let (_, vote) = Push::begin(&server, 2).await.unwrap();
    assert_eq!((vote.given, vote.flush), (true, wal.end()));
    let mut copy = server.replicate(START, "").await.unwrap();
    let got = Server::wal(&mut copy, wal.bytes.len()).await.unwrap();
    assert!(got == wal.bytes);
    server.stop().await;
}

/// An append that races with the fence is either durable and answered, or neither.
#[tokio::test]
async fn nothing_is_acknowledged_after_a_fence() {
    let root = tempfile::tempdir().unwrap();
    let wal = Wal::new(&[500; 200]);
    let server = Server::start(root.path(), Gate(None)).await;
    let (mut push, _) = Push::begin(&server, 1).await.unwrap();
    // The log has begun before the race does.
    let first = wal.between(START, wal.ends[0]);
    let answer = push.append(START, first, Lsn::INVALID).await.unwrap();
    let (mut at, mut acknowledged) = (wal.ends[0], answer.flush);
    let ring = std::sync::Arc::clone(&server.ring);
    let fence = service::task::spawn("fence", async move {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        ring.fence(TENANT, RevokeReason::Disabled).await;
    });
    for end in &wal.ends[1..] {
        match push.append(at, wal.between(at, *end), Lsn::INVALID).await {
            Ok(answer) => acknowledged = answer.flush,
            Err(refused) => {
                assert!(refused.contains("58R01"), "{refused}");
                break;
            }
        }
        at = *end;
    }
    fence.await.unwrap();
    server.ring.lift(TENANT);
    let (_, vote) = Push::begin(&server, 2).await.unwrap();
    assert!(vote.flush >= acknowledged, "{} lost", acknowledged);
    server.stop().await;
}
