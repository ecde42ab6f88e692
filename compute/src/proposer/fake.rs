//! Safekeepers in memory: the acceptor of `quorum` behind a real socket.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::timeline::NodeAddress;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use ids::{Generation, Lsn, NodeId, TenantId, TimelineId};
use pg::wire::replication::FromSender;
use pg::wire::wal_push::{APPEND_BYTES_MAX, ToAcceptor, ToProposer};
use quorum::{Acceptor, Action, Durable, EndpointEpoch, Refusal};
use service::libpq::{Conn, Handler, QueryError, Startup, WireError, serve_on};
use service::task::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{Quorum, QuorumConfig};

pub(crate) const TOKEN: &str = "token of the tenant";
pub(crate) const SEGMENT: u32 = 16 << 20;

/// One safekeeper; what it holds outlives its listener.
pub(crate) struct Safekeeper {
    pub(crate) node: NodeId,
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
    answers: watch::Sender<bool>,
    serving: Option<Shutdown>,
}

struct Log {
    acceptor: Acceptor,
    base: Lsn,
    wal: Vec<u8>,
    /// How often WAL was asked for.
    asked: usize,
}

impl Safekeeper {
    /// One that listens.
    pub(crate) async fn start(node: u64) -> Self {
        let mut made = Self::stopped(node).await;
        made.serve().await;
        made
    }

    /// One with an address, and nobody there.
    pub(crate) async fn stopped(node: u64) -> Self {
        let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = NodeId(node);
        Self {
            node,
            address: reserved.local_addr().unwrap(),
            log: Arc::new(Mutex::new(Log {
                acceptor: Acceptor::restore(node, Durable::default(), Lsn::INVALID, false),
                base: Lsn::INVALID,
                wal: Vec::new(),
                asked: 0,
            })),
            answers: watch::channel(true).0,
            serving: None,
        }
    }

    pub(crate) async fn serve(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let (log, answers) = (Arc::clone(&self.log), self.answers.subscribe());
        let factory = move |_| -> Box<dyn Handler> {
            Box::new(Session {
                log: Arc::clone(&log),
                answers: answers.clone(),
            })
        };
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        drop(shutdown.spawn("fake", serve_on(listener, factory, stop)));
        self.serving = Some(shutdown);
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.request();
            serving.finished().await;
        }
    }

    /// While false it takes messages and answers none.
    pub(crate) fn answer(&self, answers: bool) {
        self.answers.send_replace(answers);
    }

    pub(crate) fn flush(&self) -> Lsn {
        self.log.lock().unwrap().acceptor.flush()
    }

    pub(crate) fn asked(&self) -> usize {
        self.log.lock().unwrap().asked
    }

    /// Its WAL from `at` on.
    pub(crate) fn wal(&self, at: Lsn) -> Vec<u8> {
        let log = self.log.lock().unwrap();
        log.wal[(at - log.base) as usize..].to_vec()
    }

    pub(crate) async fn until_flushed(&self, lsn: Lsn) {
        for _ in 0..1000 {
            if self.flush() >= lsn {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} has {} and not {lsn}", self.node, self.flush());
    }
}

/// A proposer of these safekeepers.
pub(crate) fn propose(
    keepers: &[&Safekeeper],
    system_id: u64,
    start: Lsn,
    shutdown: &Shutdown,
) -> Quorum {
    propose_as(0, keepers, system_id, start, shutdown)
}

/// The same, of this endpoint epoch.
pub(crate) fn propose_as(
    epoch: u64,
    keepers: &[&Safekeeper],
    system_id: u64,
    start: Lsn,
    shutdown: &Shutdown,
) -> Quorum {
    let address = |k: &&Safekeeper| NodeAddress {
        node: k.node,
        libpq: k.address.to_string(),
        http: String::new(),
    };
    let config = QuorumConfig {
        tenant: TenantId([1; 16]),
        timeline: TimelineId([2; 16]),
        pg_version: 150_004,
        system_id,
        wal_segment_bytes: SEGMENT,
        safekeepers: api::timeline::SafekeeperSet {
            generation: Generation(1),
            members: keepers.iter().map(address).collect(),
        },
        token: TOKEN.to_owned(),
        endpoint_epoch: epoch,
        start,
    };
    Quorum::start(config, shutdown.clone())
}

struct Session {
    log: Arc<Mutex<Log>>,
    answers: watch::Receiver<bool>,
}

#[async_trait]
impl Handler for Session {
    async fn authenticate(&mut self, startup: &Startup, password: &str) -> Result<(), QueryError> {
        let tenant = startup.options.get("tenant_id").map(String::as_str);
        if password != TOKEN || tenant != Some("01010101010101010101010101010101") {
            return Err(QueryError::refused("28000", "not you"));
        }
        Ok(())
    }

    async fn query(&mut self, conn: &mut Conn, sql: &str) -> Result<(), QueryError> {
        conn.copy_both().await?;
        match sql.strip_prefix("START_REPLICATION PHYSICAL ") {
            None => self.push(conn, endpoint_epoch(sql)).await,
            Some(rest) => self.replicate(conn, rest).await,
        }
    }
}

impl Session {
    async fn push(&mut self, conn: &mut Conn, epoch: EndpointEpoch) -> Result<(), QueryError> {
        while let Some(bytes) = conn.read_copy().await? {
            let (answers, refusal) = self.handle(epoch, ToAcceptor::decode(bytes).unwrap());
            drop(self.answers.wait_for(|a| *a).await);
            for answer in answers {
                conn.write_copy(&answer.encode()).await?;
            }
            conn.flush().await?;
            if let Some(refusal) = refusal {
                let overtaken = matches!(refusal, Refusal::Epoch { .. });
                let sqlstate = if overtaken { "58R05" } else { "XX000" };
                return Err(QueryError::refused(sqlstate, refusal));
            }
        }
        Ok(())
    }

    fn handle(
        &self,
        epoch: EndpointEpoch,
        message: ToAcceptor,
    ) -> (Vec<ToProposer>, Option<Refusal>) {
        let mut log = self.log.lock().unwrap();
        let (mut todo, mut answers) = (Vec::new(), Vec::new());
        log.acceptor.handle(epoch, message, &mut todo);
        for action in todo {
            let ticket = match action {
                Action::Append { ticket, wal, .. } => {
                    log.wal.extend_from_slice(&wal);
                    ticket
                }
                Action::Truncate { ticket, to, .. } => {
                    if !log.base.is_valid() {
                        log.base = to;
                    }
                    let length = (to - log.base) as usize;
                    log.wal.truncate(length);
                    ticket
                }
                Action::Persist { ticket, .. } => ticket,
                Action::Send { message, .. } => {
                    answers.push(message);
                    continue;
                }
                Action::Close(refusal) => return (answers, Some(refusal)),
            };
            log.acceptor.on_persisted(ticket, &mut Vec::new());
        }
        (answers, None)
    }

    async fn replicate(&mut self, conn: &mut Conn, rest: &str) -> Result<(), QueryError> {
        let (at, term) = rest.split_once(" (term='").unwrap();
        let (mut at, term): (Lsn, u64) = (
            at.parse().unwrap(),
            term.trim_end_matches("')").parse().unwrap(),
        );
        let wal = {
            let mut log = self.log.lock().unwrap();
            log.asked += 1;
            let ours = log.acceptor.state().history.last_term().0;
            if ours != term || log.acceptor.state().term.0 != term {
                return Err(QueryError::refused("XX000", "another term"));
            }
            let from = (at - log.base) as usize;
            BytesMut::from(&log.wal[from..]).freeze()
        };
        for from in (0..wal.len()).step_by(APPEND_BYTES_MAX) {
            let wal: Bytes = wal.slice(from..wal.len().min(from + APPEND_BYTES_MAX));
            let next = at + wal.len() as u64;
            let message = FromSender::XLogData {
                start: at,
                end: next,
                time: 0,
                wal,
            };
            conn.write_copy(&message.encode()).await?;
            at = next;
        }
        conn.flush().await?;
        while conn.read_copy().await?.is_some() {}
        Err(WireError::Closed.into())
    }
}

fn endpoint_epoch(sql: &str) -> EndpointEpoch {
    let (_, rest) = sql.split_once("endpoint_epoch '").unwrap();
    EndpointEpoch(rest.trim_end_matches("')").parse().unwrap())
}
