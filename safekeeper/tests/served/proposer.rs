//! The real proposer with real safekeepers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ids::{Lsn, NodeId};
use pg::wire::wal_push::ToProposer;
use quorum::{Effect, Proposer, ProposerConfig};
use safekeeper::access::Gate;
use service::libpq::client::CopyStream;

use crate::bench::{START, Server, TENANT, TIMELINE, Wal};

pub(crate) struct Compute<'a> {
    proposer: Proposer,
    servers: BTreeMap<NodeId, &'a Server>,
    copies: BTreeMap<NodeId, CopyStream>,
    effects: VecDeque<Effect>,
    pub(crate) committed: Lsn,
    pub(crate) flushed: BTreeMap<NodeId, Lsn>,
    pub(crate) from_donors: usize,
}

impl<'a> Compute<'a> {
    pub(crate) fn new(servers: BTreeMap<NodeId, &'a Server>) -> Self {
        let proposer = Proposer::new(ProposerConfig {
            tenant: TENANT,
            timeline: TIMELINE,
            pg_version: 150_004,
            system_id: 7,
            wal_segment_bytes: 16 << 20,
            safekeepers: servers.keys().copied().collect::<BTreeSet<_>>(),
            start: START,
        });
        Self {
            proposer: proposer.keeping(0),
            servers,
            copies: BTreeMap::new(),
            effects: VecDeque::new(),
            committed: Lsn::INVALID,
            flushed: BTreeMap::new(),
            from_donors: 0,
        }
    }

    pub(crate) async fn connect(&mut self, node: NodeId) {
        let copy = self.servers[&node].push().await.unwrap();
        self.copies.insert(node, copy);
        let mut out = Vec::new();
        self.proposer.connected(node, &mut out);
        self.effects.extend(out);
        self.work().await;
    }

    /// Until every message that asks for an answer has one.
    pub(crate) async fn run(&mut self, until: impl Fn(&Self) -> bool) {
        while !until(self) {
            let reads = self.copies.iter_mut().map(|(node, copy)| {
                Box::pin(async move { (*node, copy.read_copy().await.unwrap().unwrap()) })
            });
            let ((node, bytes), _, _) = futures_util::future::select_all(reads).await;
            let mut out = Vec::new();
            let message = ToProposer::decode(bytes).unwrap();
            if let ToProposer::Append(answer) = &message {
                self.flushed.insert(node, answer.flush);
            }
            self.proposer.handle(node, message, &mut out);
            self.effects.extend(out);
            self.work().await;
        }
    }

    pub(crate) fn all_flushed(&self, to: Lsn) -> bool {
        self.flushed.values().all(|flush| *flush == to)
    }

    async fn work(&mut self) {
        while let Some(effect) = self.effects.pop_front() {
            match effect {
                Effect::Send(node, message) => {
                    if let Some(copy) = self.copies.get_mut(&node) {
                        copy.write_copy(&message.encode()).await.unwrap();
                        copy.flush().await.unwrap();
                    }
                }
                Effect::Committed(lsn) => self.committed = lsn,
                Effect::NeedWal { to, donor, range } => {
                    self.from_donors += 1;
                    let term = format!("(term='{}')", self.proposer.term());
                    let donor = self.servers[&donor];
                    let mut copy = donor.replicate(range.start, &term).await.unwrap();
                    let bytes = (range.end - range.start) as usize;
                    let mut wal = Server::wal(&mut copy, bytes).await.unwrap();
                    wal.truncate(bytes);
                    let mut out = Vec::new();
                    self.proposer.supply(to, range.start, &wal.into(), &mut out);
                    self.effects.extend(out);
                }
                Effect::Lost(term) => panic!("lost to {term}"),
                Effect::Disconnect(node) => panic!("disconnects {node}"),
                Effect::Won { .. } | Effect::Feedback(_) => {}
            }
        }
    }

    pub(crate) async fn offer(&mut self, wal: &[u8]) {
        for piece in wal.chunks(50_000) {
            let mut out = Vec::new();
            let at = self.proposer.end();
            assert!(self.proposer.offer(at, piece, &mut out));
            self.effects.extend(out);
        }
        self.work().await;
    }
}

/// A record longer than the window has no acknowledgement before its end.
#[tokio::test]
async fn a_record_longer_than_the_window_is_committed_and_a_late_node_fills_up_from_a_donor() {
    let roots = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut servers = Vec::new();
    for (i, root) in roots.iter().enumerate() {
        servers.push(Server::start_as(i as u64 + 1, root.path(), Gate(None)).await);
    }
    let nodes = servers.iter().zip(1..).map(|(s, i)| (NodeId(i), s));
    let mut compute = Compute::new(nodes.collect());
    let wal = Wal::new(&[100, 3 << 20, 100]);
    compute.connect(NodeId(1)).await;
    compute.connect(NodeId(2)).await;
    compute.run(|c| c.committed == START).await;
    compute.offer(&wal.bytes).await;
    compute.run(|c| c.committed == wal.end()).await;

    compute.connect(NodeId(3)).await;
    compute
        .run(|c| c.flushed.get(&NodeId(3)) == Some(&wal.end()))
        .await;
    let third = compute.servers[&NodeId(3)];
    assert!(compute.from_donors > 0, "nobody was asked");
    let mut copy = third.replicate(START, "").await.unwrap();
    let got = Server::wal(&mut copy, wal.bytes.len()).await.unwrap();
    assert!(got == wal.bytes, "other WAL than was pushed");
    drop(compute);
    for server in servers {
        server.stop().await;
    }
}
