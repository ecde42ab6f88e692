//! What a recorded compute sent, sent to a server over TCP: the answers are the recorded ones,
//! and a restart forgets nothing of it.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ids::{Lsn, NodeId, Term};
use keyring::Keyring;
use pg::wire::wal_push::{ToAcceptor, ToProposer};
use safekeeper::access::Gate;
use safekeeper::timelines::{Node, Timelines};
use safekeeper::wal_push::Commands;
use service::libpq::client::Client;
use service::task::Shutdown;

const CAPTURE: &str = "walproposer-v3-first-election";
const END: Lsn = Lsn(0x149_DB10);
const SECOND_END: Lsn = Lsn(0x14B_2350);
const PUSH: &str = "START_WAL_PUSH (proto_version '3', allow_timeline_creation 'true')";

struct Server {
    addr: SocketAddr,
    shutdown: Shutdown,
}

impl Server {
    async fn start(root: &Path) -> Self {
        let shutdown = Shutdown::new();
        let node = Node {
            node: NodeId(1),
            root: root.to_owned(),
            ring: Arc::new(Keyring::fixed([1; 32])),
            archive: None,
            tail: std::time::Duration::from_secs(30),
        };
        let timelines = Arc::new(Timelines::new(node, shutdown.clone()).unwrap());
        let commands = Commands::new(timelines, Gate(None));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = shutdown.clone();
        drop(shutdown.spawn("server", async move {
            service::libpq::serve_on(listener, commands, stop).await;
        }));
        Self { addr, shutdown }
    }

    async fn stop(self) {
        self.shutdown.request();
        self.shutdown.finished().await;
    }

    async fn connect(&self, client: &[Bytes]) -> Client {
        let ToAcceptor::Greeting(greeting) = ToAcceptor::decode(client[0].clone()).unwrap() else {
            panic!("no greeting");
        };
        let (tenant, timeline) = (greeting.tenant.to_string(), greeting.timeline.to_string());
        let options = [("tenant_id", &*tenant), ("timeline_id", &*timeline)];
        Client::connect(self.addr, &options, "").await.unwrap()
    }
}

#[tokio::test]
async fn a_recorded_compute_is_answered_as_recorded_and_a_restart_keeps_it() {
    let root = tempfile::tempdir().unwrap();
    let (client, recorded) = read(CAPTURE);
    let recorded = decode(recorded);
    let server = Server::start(root.path()).await;

    let answers = push(&server, &client).await;
    assert_eq!(openings(&answers), openings(&recorded));
    assert_recorded_positions(&answers, &recorded, CAPTURE);
    let status = status(&server, &client).await;
    assert_eq!(status, [END.to_string(), END.to_string()]);
    server.stop().await;

    let server = Server::start(root.path()).await;
    assert_eq!(self::status(&server, &client).await, status);
    let greeted = push(&server, &client[..1]).await;
    let ToProposer::Greeting(greeting) = &greeted[0] else {
        panic!("{greeted:?}");
    };
    assert_eq!(greeting.term, Term(1));
    assert_wal(&server, &client).await;
    // The vote of this term was given before.
    let again = push(&server, &client[..2]).await;
    let ToProposer::Vote(vote) = &again[1] else {
        panic!("{again:?}");
    };
    assert_eq!((vote.given, vote.flush), (false, END));
    server.stop().await;
}

/// A first start, a recovery that only commits what is there, and a second start: one story.
#[tokio::test]
async fn three_recorded_connections_in_a_row_are_answered_as_recorded() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path()).await;
    for (name, end) in [
        (CAPTURE, END),
        ("sync-safekeepers-v3", END),
        ("walproposer-v3-second-start", SECOND_END),
    ] {
        let (client, recorded) = read(name);
        let recorded = decode(recorded);
        let answers = push(&server, &client).await;
        assert_eq!(openings(&answers), openings(&recorded), "{name}");
        assert_recorded_positions(&answers, &recorded, name);
        let status = status(&server, &client).await;
        assert_eq!(status, [end.to_string(), end.to_string()], "{name}");
        assert_wal(&server, &client).await;
    }
    server.stop().await;
}

/// The runtime ends without a word to any task, as a kill would end them.
#[test]
fn a_kill_keeps_term_vote_and_log() {
    let root = tempfile::tempdir().unwrap();
    let (client, _) = read(CAPTURE);
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let first = runtime();
    first.block_on(async {
        let server = Server::start(root.path()).await;
        push(&server, &client).await;
    });
    drop(first);
    runtime().block_on(async {
        let server = Server::start(root.path()).await;
        assert_eq!(status(&server, &client).await[0], END.to_string());
        let again = push(&server, &client[..2]).await;
        let ToProposer::Vote(vote) = &again[1] else {
            panic!("{again:?}");
        };
        let kept = (vote.term, vote.given, vote.flush);
        assert_eq!(kept, (Term(1), false, END));
        server.stop().await;
    });
}

/// A5: a log that lost what was acknowledged is refused, now and at the next start.
#[tokio::test]
async fn a_lost_log_is_refused_and_is_not_begun_anew() {
    let root = tempfile::tempdir().unwrap();
    let (client, _) = read(CAPTURE);
    let server = Server::start(root.path()).await;
    push(&server, &client).await;
    server.stop().await;
    let log = files(&root.path().join("wal")).pop().unwrap();
    let whole = std::fs::read(&log).unwrap();
    std::fs::write(&log, &whole[..whole.len() / 2]).unwrap();
    let cut = std::fs::read(&log).unwrap();
    for _ in 0..2 {
        let server = Server::start(root.path()).await;
        let mut connected = server.connect(&client).await;
        assert!(connected.simple_query("TIMELINE_STATUS").await.is_err());
        server.stop().await;
        assert!(std::fs::read(&log).unwrap() == cut, "mended");
    }
    // The log is put back, but the doubt was stored: it gets no vote.
    std::fs::write(&log, &whole).unwrap();
    let server = Server::start(root.path()).await;
    let connected = server.connect(&client).await;
    let mut copy = connected.query_copy_both(PUSH).await.unwrap();
    copy.write_copy(&client[0]).await.unwrap();
    copy.flush().await.unwrap();
    let refused = copy.read_copy().await.unwrap_err().to_string();
    assert!(refused.contains("learner"), "{refused}");
    server.stop().await;
}

/// A node that lost its acceptor record must not vote as if its WAL had never been.
#[tokio::test]
async fn wal_without_its_record_is_no_new_timeline() {
    let root = tempfile::tempdir().unwrap();
    let (client, _) = read(CAPTURE);
    let server = Server::start(root.path()).await;
    push(&server, &client).await;
    server.stop().await;
    std::fs::remove_dir_all(root.path().join("state")).unwrap();
    for _ in 0..2 {
        let server = Server::start(root.path()).await;
        let connected = server.connect(&client).await;
        let mut copy = connected.query_copy_both(PUSH).await.unwrap();
        copy.write_copy(&client[0]).await.unwrap();
        copy.flush().await.unwrap();
        let refused = copy.read_copy().await;
        assert!(
            matches!(refused, Err(service::libpq::WireError::Server { .. })),
            "{refused:?}"
        );
        server.stop().await;
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => files.push(path),
        }
    }
    files
}

#[tokio::test]
async fn a_greeting_of_another_cluster_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (client, _) = read(CAPTURE);
    let server = Server::start(root.path()).await;
    push(&server, &client[..1]).await;
    let ToAcceptor::Greeting(good) = ToAcceptor::decode(client[0].clone()).unwrap() else {
        panic!("no greeting");
    };
    let mut version = good.clone();
    version.pg_version = 160_000;
    let mut system = good.clone();
    system.system_id ^= 1;
    let mut segment = good.clone();
    segment.wal_segment_bytes = 1 << 20;
    let mut timeline = good;
    timeline.timeline.0[0] ^= 1;
    for bad in [version, system, segment, timeline] {
        let connected = server.connect(&client).await;
        let mut copy = connected.query_copy_both(PUSH).await.unwrap();
        let bytes = ToAcceptor::Greeting(bad).encode();
        copy.write_copy(&bytes).await.unwrap();
        copy.flush().await.unwrap();
        let refused = copy.read_copy().await;
        assert!(
            matches!(refused, Err(service::libpq::WireError::Server { .. })),
            "{refused:?}"
        );
    }
    server.stop().await;
}

/// All that is committed comes back as it was pushed.
async fn assert_wal(server: &Server, client: &[Bytes]) {
    let (mut pushed, mut start) = (Vec::new(), None);
    for bytes in client {
        if let ToAcceptor::Append(m) = ToAcceptor::decode(bytes.clone()).unwrap() {
            start.get_or_insert(m.begin);
            pushed.extend_from_slice(&m.wal);
        }
    }
    let start = start.unwrap();
    if pushed.is_empty() {
        return;
    }
    let sql = format!("START_REPLICATION PHYSICAL {start}");
    let connected = server.connect(client).await;
    let mut copy = connected.query_copy_both(&sql).await.unwrap();
    let mut got = Vec::new();
    while got.len() < pushed.len() {
        let message = copy.read_copy().await.unwrap().unwrap();
        if message[0] == b'w' {
            let at = u64::from_be_bytes(message[1..9].try_into().unwrap());
            assert_eq!(at, start.0 + got.len() as u64);
            got.extend_from_slice(&message[25..]);
        }
    }
    assert!(got == pushed, "other WAL than was pushed");
}

async fn push(server: &Server, client: &[Bytes]) -> Vec<ToProposer> {
    let connected = server.connect(client).await;
    let mut copy = connected.query_copy_both(PUSH).await.unwrap();
    let (mut reader, mut writer) = {
        copy.flush().await.unwrap();
        copy.split()
    };
    let messages = client.to_vec();
    let sent = service::task::spawn("push", async move {
        for message in &messages {
            writer.write_copy(message).await.unwrap();
        }
        writer.copy_done();
        writer.flush().await.unwrap();
        writer
    });
    let mut answers = Vec::new();
    while let Some(bytes) = reader.read_copy().await.unwrap() {
        answers.push(bytes);
    }
    sent.await.unwrap();
    decode(answers)
}

async fn status(server: &Server, client: &[Bytes]) -> Vec<String> {
    let mut connected = server.connect(client).await;
    let rows = connected.simple_query("TIMELINE_STATUS").await.unwrap();
    let text = |v: &Option<Bytes>| String::from_utf8(v.as_ref().unwrap().to_vec()).unwrap();
    rows[0].iter().map(text).collect()
}

fn decode(answers: Vec<Bytes>) -> Vec<ToProposer> {
    let decoded = answers.into_iter().map(ToProposer::decode);
    decoded.map(Result::unwrap).collect()
}

/// Greetings and votes. Only the node id is ours to choose.
fn openings(answers: &[ToProposer]) -> Vec<ToProposer> {
    let mut openings = Vec::new();
    for answer in answers {
        match answer.clone() {
            ToProposer::Greeting(mut m) => {
                m.node = NodeId(0);
                openings.push(ToProposer::Greeting(m));
            }
            vote @ ToProposer::Vote(_) => openings.push(vote),
            ToProposer::Append(_) => {}
        }
    }
    openings
}

/// The recorded safekeeper answered for several appends at once, so ours says at least as much.
fn assert_recorded_positions(answers: &[ToProposer], recorded: &[ToProposer], name: &str) {
    let (ours, theirs) = (positions(answers), positions(recorded));
    let mut rest = ours.iter();
    let missing = theirs.iter().find(|p| !rest.any(|o| o == *p));
    assert_eq!(missing, None, "{name}: not answered, or not in this order");
    assert_eq!(ours.last(), theirs.last(), "{name}");
}

/// The distinct positions of append answers, in their order.
fn positions(answers: &[ToProposer]) -> Vec<(Term, Lsn)> {
    let mut positions: Vec<_> = answers
        .iter()
        .filter_map(|answer| match answer {
            ToProposer::Append(m) => Some((m.term, m.flush)),
            _ => None,
        })
        .collect();
    positions.dedup();
    positions
}

/// The payloads of CopyData of client and server.
fn read(name: &str) -> (Vec<Bytes>, Vec<Bytes>) {
    let capture = captures::read(name);
    (capture.client, capture.server)
}
