//! A5: how a node in doubt comes back, and that nobody has to ask for a timeline to be opened.

use std::collections::BTreeMap;
use std::time::Duration;

use api::timeline::{SafekeeperStatus, timeline_path};
use ids::{Lsn, NodeId};
use pg::wire::replication::FromReceiver;
use safekeeper::access::Gate;

use crate::bench::{Push, START, Server, TENANT, TIMELINE, Wal};
use crate::bucket::files;
use crate::proposer::Compute;

const THIRD: NodeId = NodeId(3);

async fn refill(server: &Server) -> Result<SafekeeperStatus, String> {
    let client = api::Client::new(&format!("http://{}", server.http), None).unwrap();
    let path = format!("{}/refill", timeline_path(TENANT, TIMELINE));
    let status = client.post(&path, &()).await;
    status.map_err(|error| format!("{error:?}"))
}

#[tokio::test]
async fn a_node_whose_log_is_damaged_is_filled_anew_and_votes_again() {
    let roots = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut servers = BTreeMap::new();
    for (root, node) in roots.iter().zip(1..) {
        let server = Server::start_as(node, root.path(), Gate(None)).await;
        servers.insert(NodeId(node), server);
    }
    let wal = Wal::new(&[100, 3 << 20, 9_000, 100]);
    let everywhere = |c: &Compute<'_>| c.flushed.len() == 3 && c.all_flushed(wal.end());
    let mut compute = Compute::new(servers.iter().map(|(n, s)| (*n, s)).collect());
    for node in 1..=3 {
        compute.connect(NodeId(node)).await;
    }
    compute.run(|c| c.committed == START).await;
    compute.offer(&wal.bytes).await;
    compute.run(everywhere).await;
    drop(compute);
    let sound = refill(&servers[&THIRD]).await.unwrap_err();
    assert!(sound.contains("no doubt"), "{sound}");

    servers.remove(&THIRD).unwrap().stop().await;
    let root = roots[2].path();
    let log = files(&root.join("node/wal")).remove(0);
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[2_000] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    let third = Server::start_as(3, root, Gate(None)).await;
    let damaged = third.replicate(START, "").await.err().unwrap();
    assert!(damaged.contains("58R03"), "{damaged}");
    let begun = refill(&third).await.unwrap();
    assert_eq!((begun.flush_lsn, begun.commit_lsn), (START, START));
    let set_aside = files(&root.join("node/wal"));
    let kept = set_aside
        .iter()
        .find(|f| f.to_string_lossy().contains("doubted"));
    assert!(
        std::fs::read(kept.unwrap()).unwrap() == bytes,
        "the old log is gone"
    );

    // It follows, and gives no vote, also after a restart.
    third.stop().await;
    let third = Server::start_as(3, root, Gate(None)).await;
    let (_, vote) = Push::begin(&third, 2).await.unwrap();
    assert_eq!((vote.given, vote.flush), (false, START), "A5");
    servers.insert(THIRD, third);
    let mut compute = Compute::new(servers.iter().map(|(n, s)| (*n, s)).collect());
    for node in [3, 1, 2] {
        compute.connect(NodeId(node)).await;
    }
    compute.run(everywhere).await;
    assert!(compute.from_donors > 0, "nobody was asked");
    drop(compute);

    let third = &servers[&THIRD];
    let (_, vote) = Push::begin(third, 9).await.unwrap();
    assert_eq!((vote.given, vote.flush), (true, wal.end()));
    let mut copy = third.replicate(START, "").await.unwrap();
    let got = Server::wal(&mut copy, wal.bytes.len()).await.unwrap();
    assert!(got == wal.bytes, "other WAL than was pushed");
    for server in servers.into_values() {
        server.stop().await;
    }
}

/// What is finished has to reach the bucket though no compute and no pageserver comes.
#[tokio::test]
async fn a_timeline_is_opened_at_the_start_without_a_request() {
    let root = tempfile::tempdir().unwrap();
    let wal = Wal::new(&[10]);
    let server = Server::start(root.path(), Gate(None)).await;
    let (mut push, _) = Push::begin(&server, 1).await.unwrap();
    push.commit(&wal).await;
    server.stop().await;
    let log = files(&root.path().join("node/wal")).remove(0);
    let length = || std::fs::metadata(&log).unwrap().len();
    let before = length();
    let server = Server::start(root.path(), Gate(None)).await;
    let opened = async {
        // Every opening begins an epoch.
        while length() == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), opened)
        .await
        .unwrap();
    server.stop().await;
}

#[tokio::test]
async fn who_speaks_all_the_time_gets_keepalives_too() {
    let root = tempfile::tempdir().unwrap();
    let wal = Wal::new(&[10]);
    let server = Server::start(root.path(), Gate(None)).await;
    let (mut push, _) = Push::begin(&server, 1).await.unwrap();
    push.commit(&wal).await;
    let copy = server.replicate(wal.end(), "").await.unwrap();
    let (mut reader, mut writer) = copy.split();
    let speak = async {
        loop {
            let (write, flush, apply) = (wal.end(), wal.end(), Lsn::INVALID);
            let said = FromReceiver::Status {
                write,
                flush,
                apply,
                time: 0,
                reply: false,
            };
            writer.write_copy(&said.encode()).await.unwrap();
            writer.flush().await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let hear = async { while reader.read_copy().await.unwrap().unwrap()[0] != b'k' {} };
    let heard = async {
        tokio::select! {
            () = hear => {}
            () = speak => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(10), heard)
        .await
        .unwrap();
    server.stop().await;
}
