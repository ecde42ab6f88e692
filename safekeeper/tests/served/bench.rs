//! A safekeeper in this process, a bucket in a directory, and a proposer of a few lines.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ids::{Generation, Lsn, NodeId, TenantId, Term, TimelineId};
use keyring::{FixedConfig, Keyring};
use pg::PgMajor;
use pg::wal::{WalShape, encode_record, lay_out, record_start};
use pg::wire::wal_push::{
    AppendAnswer, AppendRequest, Elected, Membership, ProposerGreeting, TermStart, ToAcceptor,
    ToProposer, VoteAnswer, VoteRequest,
};
use safekeeper::access::Gate;
use safekeeper::archive::Archive;
use safekeeper::timelines::{Node, Timelines};
use safekeeper::wal_push::Commands;
use service::libpq::client::{Client, CopyStream};
use service::task::Shutdown;
use store::names::Cell;
use store::{Bucket, BucketConfig};

pub(crate) const TENANT: TenantId = TenantId([7; 16]);
pub(crate) const TIMELINE: TimelineId = TimelineId([8; 16]);
const SEGMENT: u64 = 16 << 20;
/// So near to a border that a few records cross it.
pub(crate) const START: Lsn = Lsn(3 * SEGMENT - 20_000);
pub(crate) const BORDER: Lsn = Lsn(3 * SEGMENT);
const PUSH: &str = "START_WAL_PUSH (proto_version '3', allow_timeline_creation 'true'";
const SHAPE: WalShape = WalShape {
    version: PgMajor::V15,
    segment_bytes: SEGMENT,
    system_id: 7,
    tli: 1,
};

pub(crate) struct Server {
    pub(crate) libpq: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) ring: Arc<Keyring>,
    shutdown: Shutdown,
}

impl Server {
    pub(crate) async fn start(root: &Path, gate: Gate) -> Self {
        Self::start_as(1, root, gate).await
    }

    pub(crate) async fn start_as(node: u64, root: &Path, gate: Gate) -> Self {
        Self::start_with(node, root, gate, Duration::from_secs(30)).await
    }

    /// One that brings what is committed into the bucket after `tail`.
    pub(crate) async fn start_with(node: u64, root: &Path, gate: Gate, tail: Duration) -> Self {
        service::init();
        let shutdown = Shutdown::new();
        let drain = Duration::from_millis(500);
        let config = FixedConfig { drain, lease: None };
        let ring = Arc::new(Keyring::fixed_with([1; 32], config));
        let bucket = Bucket::open(&BucketConfig::directory(&root.join("bucket"))).unwrap();
        let archive = Archive::new(bucket, Cell::new("dev").unwrap());
        archive.probe().await.unwrap();
        let node = Node {
            node: NodeId(node),
            root: root.join("node"),
            ring: Arc::clone(&ring),
            archive: Some(archive),
            tail,
        };
        let timelines = Arc::new(Timelines::new(node, shutdown.clone()).unwrap());
        let commands = Commands::new(Arc::clone(&timelines), gate.clone());
        let listen = || tokio::net::TcpListener::bind("127.0.0.1:0");
        let (libpq, http) = (listen().await.unwrap(), listen().await.unwrap());
        let (libpq_at, http_at) = (libpq.local_addr().unwrap(), http.local_addr().unwrap());
        let (known, stop) = (Arc::clone(&timelines), shutdown.clone());
        drop(shutdown.spawn("timelines", async move {
            tokio::select! {
                () = stop.requested() => {}
                () = known.keep_open() => {}
            }
        }));
        let stop = shutdown.clone();
        drop(shutdown.spawn("libpq", async move {
            service::libpq::serve_on(libpq, commands, stop).await;
        }));
        let (stop, router) = (shutdown.clone(), safekeeper::http::router(timelines, gate));
        drop(shutdown.spawn("http", async move {
            service::http::serve_on(http, router, None, stop).await;
        }));
        Self {
            libpq: libpq_at,
            http: http_at,
            ring,
            shutdown,
        }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.request();
        self.shutdown.finished().await;
    }

    pub(crate) async fn connect(&self, name: &str, password: &str) -> Result<Client, String> {
        let (tenant, timeline) = (TENANT.to_string(), TIMELINE.to_string());
        let options = [
            ("tenant_id", &*tenant),
            ("timeline_id", &*timeline),
            ("application_name", name),
        ];
        let client = Client::connect(self.libpq, &options, password).await;
        client.map_err(|error| error.to_string())
    }

    /// The stream of a proposer that has said nothing.
    pub(crate) async fn push(&self) -> Result<CopyStream, String> {
        self.push_with("").await
    }

    /// The same, with more options, each after a comma.
    pub(crate) async fn push_with(&self, more: &str) -> Result<CopyStream, String> {
        let client = self.connect("", "").await?;
        let copy = client.query_copy_both(&format!("{PUSH}{more})")).await;
        copy.map_err(|error| error.to_string())
    }

    pub(crate) async fn replicate(&self, from: Lsn, term: &str) -> Result<CopyStream, String> {
        let client = self.connect("pageserver", "").await?;
        let sql = format!("START_REPLICATION PHYSICAL {from} {term}");
        let copy = client.query_copy_both(&sql).await;
        copy.map_err(|error| error.to_string())
    }

    /// The next bytes of WAL that the stream gives, until there are `bytes`.
    pub(crate) async fn wal(copy: &mut CopyStream, bytes: usize) -> Result<Vec<u8>, String> {
        let mut got = Vec::new();
        while got.len() < bytes {
            let message = copy.read_copy().await.map_err(|e| e.to_string())?.unwrap();
            if message[0] == b'w' {
                got.extend_from_slice(&message[25..]);
            }
        }
        Ok(got)
    }
}

/// Records, one after the other, and where each ends.
pub(crate) struct Wal {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ends: Vec<Lsn>,
}

impl Wal {
    pub(crate) fn new(lengths: &[usize]) -> Self {
        let (mut bytes, mut ends, mut prev) = (Vec::new(), Vec::new(), Lsn(0));
        for (i, length) in lengths.iter().enumerate() {
            let from = ends.last().copied().unwrap_or(START);
            let record = encode_record(prev, 1, 10, 0, &vec![i as u8 + 1; *length]);
            prev = record_start(&SHAPE, from);
            bytes.extend(lay_out(&SHAPE, from, &record).bytes);
            ends.push(Lsn(START.0 + bytes.len() as u64));
        }
        Self { bytes, ends }
    }

    pub(crate) fn end(&self) -> Lsn {
        *self.ends.last().unwrap()
    }

    pub(crate) fn between(&self, from: Lsn, to: Lsn) -> Bytes {
        let range = (from - START) as usize..(to - START) as usize;
        Bytes::copy_from_slice(&self.bytes[range])
    }
}

/// A proposer that has won.
pub(crate) struct Push {
    pub(crate) copy: CopyStream,
    pub(crate) term: Term,
}

impl Push {
    /// Greets, wins `term` and begins where the log ends.
    pub(crate) async fn begin(server: &Server, term: u64) -> Result<(Self, VoteAnswer), String> {
        Self::win(server.push().await?, term).await
    }

    /// The same, over a stream that has said nothing.
    pub(crate) async fn win(copy: CopyStream, term: u64) -> Result<(Self, VoteAnswer), String> {
        let term = Term(term);
        let mut push = Self { copy, term };
        let greeting = ProposerGreeting {
            tenant: TENANT,
            timeline: TIMELINE,
            membership: Membership::default(),
            pg_version: 150_004,
            system_id: 7,
            wal_segment_bytes: SEGMENT as u32,
        };
        push.send(ToAcceptor::Greeting(greeting)).await;
        push.answer().await?;
        let generation = Generation(0);
        push.send(ToAcceptor::Vote(VoteRequest { generation, term }))
            .await;
        let ToProposer::Vote(vote) = push.answer().await? else {
            panic!("no vote");
        };
        let at = if vote.flush.is_valid() {
            vote.flush
        } else {
            START
        };
        let mut history = vote.history.clone();
        history.push(TermStart { term, start: at });
        let elected = Elected {
            generation,
            term,
            start_streaming_at: at,
            history,
        };
        push.send(ToAcceptor::Elected(elected)).await;
        Ok((push, vote))
    }

    pub(crate) async fn send(&mut self, message: ToAcceptor) {
        self.copy.write_copy(&message.encode()).await.unwrap();
        self.copy.flush().await.unwrap();
    }

    pub(crate) async fn answer(&mut self) -> Result<ToProposer, String> {
        let bytes = self.copy.read_copy().await.map_err(|e| e.to_string())?;
        Ok(ToProposer::decode(bytes.ok_or("the end")?).unwrap())
    }

    pub(crate) fn request(&self, begin: Lsn, wal: Bytes, commit: Lsn) -> ToAcceptor {
        ToAcceptor::Append(AppendRequest {
            generation: Generation(0),
            term: self.term,
            begin,
            commit,
            truncate: Lsn::INVALID,
            wal,
        })
    }

    pub(crate) async fn append(
        &mut self,
        begin: Lsn,
        wal: Bytes,
        commit: Lsn,
    ) -> Result<AppendAnswer, String> {
        self.send(self.request(begin, wal, commit)).await;
        self.appended().await
    }

    pub(crate) async fn appended(&mut self) -> Result<AppendAnswer, String> {
        match self.answer().await? {
            ToProposer::Append(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }

    /// All of `wal`, committed.
    pub(crate) async fn commit(&mut self, wal: &Wal) {
        let pieces = wal.bytes.chunks(100_000);
        let mut at = START;
        for piece in pieces {
            let piece = Bytes::copy_from_slice(piece);
            let end = at + piece.len() as u64;
            self.append(at, piece, Lsn::INVALID).await.unwrap();
            at = end;
        }
        let answer = self.append(at, Bytes::new(), at).await.unwrap();
        assert_eq!(answer.flush, wal.end());
    }
}
