//! A cluster of the real acceptors and proposers in one thread, driven by a seed. Messages are
//! lost, repeated and reordered; nodes crash and lose what was not durable; proposers are
//! replaced, now and then by one of an earlier start. The checkers know nothing of the protocol.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking

use std::collections::BTreeMap;

use ids::{Lsn, NodeId, TenantId, Term, TimelineId};
use pg::wire::wal_push::{ToAcceptor, ToProposer};
use quorum::{
    Acceptor, Action, Durable, Effect, EndpointEpoch, Proposer, ProposerConfig, Refusal, Ticket,
};

const START: u64 = 0x1000;

#[test]
fn acknowledged_wal_survives_any_minority() {
    let count = std::env::var("REDOUBT_SIM_SEEDS").map_or(300, |n| n.parse().unwrap());
    let (mut committed, mut from_donors, mut rejoined, mut overtaken) = (0, 0, 0, 0);
    for seed in 0..count {
        let run = std::panic::catch_unwind(|| {
            let mut cluster = Cluster::new(seed, [3, 3, 5, 1][(seed % 4) as usize]);
            (0..1500).for_each(|_| cluster.step());
            (
                cluster.check.committed.len(),
                cluster.from_donors,
                cluster.rejoined,
                cluster.overtaken,
            )
        });
        let (bytes, donors, back, older) = run.unwrap_or_else(|_| panic!("failed at seed {seed}"));
        committed += bytes;
        from_donors += donors;
        rejoined += back;
        overtaken += older;
    }
    assert!(rejoined as u64 > count / 4, "{rejoined} learners rejoined");
    assert!(overtaken as u64 > count / 4, "{overtaken} starts overtaken");
    assert!(from_donors as u64 > count / 4, "{from_donors} donors asked");
    // A simulator in which nothing happens proves nothing.
    assert!(
        committed as u64 > count * 100,
        "{committed} bytes committed"
    );
}

struct Node {
    acceptor: Acceptor,
    disk: (Durable, Vec<u8>),
    /// Writes and answers in order: an answer waits for what stands before it.
    queue: Vec<(usize, Action)>,
    durable: Ticket,
}

enum Message {
    Down(ToAcceptor),
    Up(ToProposer),
}

struct Cluster {
    random: Random,
    nodes: BTreeMap<NodeId, Node>,
    proposers: Vec<Starter>,
    network: Vec<(usize, NodeId, Message)>,
    check: Check,
    /// How often WAL that a proposer had forgotten came from a donor.
    from_donors: usize,
    /// How often a node that had lost its log came to vote again.
    rejoined: usize,
    /// How often a start was told that a later one has a vote.
    overtaken: usize,
}

/// A start of the endpoint.
struct Starter {
    proposer: Proposer,
    epoch: EndpointEpoch,
    lost: bool,
}

impl Cluster {
    fn new(seed: u64, n: u64) -> Self {
        let node = |i| {
            let acceptor = Acceptor::restore(NodeId(i), Durable::default(), Lsn(0), false);
            (
                NodeId(i),
                Node {
                    acceptor,
                    disk: Default::default(),
                    queue: vec![],
                    durable: Ticket(0),
                },
            )
        };
        let random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let nodes = (1..=n).map(node).collect();
        let check = Check::default();
        let mut cluster = Self {
            random,
            nodes,
            proposers: vec![],
            network: vec![],
            check,
            from_donors: 0,
            rejoined: 0,
            overtaken: 0,
        };
        cluster.replace_proposer();
        cluster
    }

    fn step(&mut self) {
        let node = NodeId(1 + self.random.below(self.nodes.len()) as u64);
        match self.random.below(1000) {
            0..650 => self.deliver(),
            650..850 => self.sync(node),
            850..930 => self.write(),
            930..950 => self.heartbeat(),
            950..980 => self.reconnect(node),
            980..990 => self.crash(node),
            990..993 => self.lose_log(node),
            _ => self.replace_proposer(),
        }
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        // Mostly the oldest, sometimes any.
        let any = self.random.below(20) == 0;
        let at = if any {
            self.random.below(self.network.len())
        } else {
            0
        };
        let (p, node, message) = self.network.remove(at);
        let fate = self.random.below(100);
        if fate < 2 {
            return;
        }
        match message {
            Message::Down(m) => {
                if fate < 4 {
                    self.network.push((p, node, Message::Down(m.clone())));
                }
                let n = self.nodes.get_mut(&node).unwrap();
                let mut out = Vec::new();
                let epoch = self.proposers[p].epoch;
                n.acceptor.handle(epoch, m, &mut out);
                n.queue.extend(out.into_iter().map(|a| (p, a)));
            }
            Message::Up(m) => {
                if fate < 4 {
                    self.network.push((p, node, Message::Up(m.clone())));
                }
                let mut out = Vec::new();
                self.proposers[p].proposer.handle(node, m, &mut out);
                self.effects(p, out);
            }
        }
    }

    /// Completes one write of a node, and sends the answers that stand before the next.
    fn sync(&mut self, node: NodeId) {
        let n = self.nodes.get_mut(&node).unwrap();
        let mut done = None;
        while let Some((p, action)) = n.queue.first().cloned() {
            let is_write = !matches!(action, Action::Send { .. } | Action::Close(_));
            if is_write && done.is_some() {
                break;
            }
            n.queue.remove(0);
            match action {
                Action::Append { ticket, at, wal } => {
                    assert_eq!(n.disk.1.len() as u64 + START, at.0, "a hole in the log");
                    n.disk.1.extend_from_slice(&wal);
                    done = Some(ticket);
                    n.durable = ticket;
                }
                Action::Truncate { ticket, to, .. } => {
                    n.disk.1.truncate((to.0 - START) as usize);
                    done = Some(ticket);
                    n.durable = ticket;
                }
                Action::Persist { ticket, state } => {
                    self.rejoined += usize::from(n.disk.0.learner && !state.learner);
                    n.disk.0 = *state;
                    done = Some(ticket);
                    n.durable = ticket;
                }
                Action::Send { message, after } => {
                    assert!(after <= Some(n.durable), "sent before its write");
                    self.network.push((p, node, Message::Up(message)));
                }
                Action::Close(Refusal::Epoch { theirs, ours }) => {
                    assert!(
                        n.disk.0.epoch >= ours,
                        "refused before the vote was durable"
                    );
                    assert_eq!(theirs, self.proposers[p].epoch);
                    self.proposers[p].lost = true;
                    self.overtaken += 1;
                }
                Action::Close(_) => {}
            }
        }
        let mut out = Vec::new();
        n.acceptor.on_persisted(done.unwrap_or(Ticket(0)), &mut out);
        n.queue.extend(out.into_iter().map(|a| (0, a)));
    }

    fn crash(&mut self, node: NodeId) {
        let n = self.nodes.get_mut(&node).unwrap();
        n.queue.clear();
        n.durable = Ticket(0);
        let started = !n.disk.0.history.entries().is_empty();
        let flush = if started {
            START + n.disk.1.len() as u64
        } else {
            0
        };
        n.acceptor = Acceptor::restore(node, n.disk.0.clone(), Lsn(flush), false);
        let learner = |state: &Durable| (state.learner, state.copying);
        assert_eq!(
            learner(n.acceptor.state()),
            learner(&n.disk.0),
            "a crash alone must not cast doubt on a log"
        );
    }

    /// The log of a node is damaged: it keeps its promises, and begins its log anew. One node at a
    /// time, since the others have to have all that is committed.
    fn lose_log(&mut self, node: NodeId) {
        let whole = self.nodes.values().all(|n| !n.disk.0.learner);
        if self.nodes.len() < 3 || !whole {
            return;
        }
        let kept = self.random.below(4000) as u64;
        let n = self.nodes.get_mut(&node).unwrap();
        n.disk.0.learner = true;
        let Some((record, at)) = n.disk.0.anew(Lsn(kept)) else {
            n.disk.0.learner = false;
            return;
        };
        // What stood before it is elsewhere, as in the bucket.
        n.disk.1.truncate((at.0 - START) as usize);
        n.disk.0 = record;
        self.crash(node);
        // Its connections ended with it.
        self.network.retain(|(_, of, _)| *of != node);
        for p in 0..self.proposers.len() {
            let mut out = Vec::new();
            self.proposers[p].proposer.connected(node, &mut out);
            self.effects(p, out);
        }
    }

    fn reconnect(&mut self, node: NodeId) {
        // The newest that was not told that it is over.
        let last = self.proposers.iter().rposition(|s| !s.lost);
        let p = last.unwrap_or(self.proposers.len() - 1);
        let mut out = Vec::new();
        self.proposers[p].proposer.connected(node, &mut out);
        self.effects(p, out);
    }

    fn replace_proposer(&mut self) {
        let proposer = Proposer::new(ProposerConfig {
            tenant: TenantId([1; 16]),
            timeline: TimelineId([2; 16]),
            pg_version: 150_000,
            system_id: 7,
            wal_segment_bytes: 16 << 20,
            safekeepers: self.nodes.keys().copied().collect(),
            start: Lsn(START),
        });
        // So little that nodes which are behind need donors.
        let proposer = proposer.keeping(self.random.below(600) as u64);
        // Mostly a new start, sometimes the same or an older one that comes back.
        let newest = self.proposers.iter().map(|s| s.epoch.0).max();
        let newest = newest.unwrap_or_default();
        let epoch = match self.random.below(3) {
            0 => EndpointEpoch(newest.saturating_sub(self.random.below(3) as u64)),
            _ => EndpointEpoch(newest + 1),
        };
        self.proposers.push(Starter {
            proposer,
            epoch,
            lost: false,
        });
        (1..=self.nodes.len() as u64).for_each(|n| self.reconnect(NodeId(n)));
    }

    /// The newest proposer writes, or the one before, which may not know yet.
    fn write(&mut self) {
        let p = self.proposers.len() - 1 - self.random.below(2).min(self.proposers.len() - 1);
        let wal: Vec<u8> = (0..100).map(|_| self.random.next() as u8).collect();
        let mut out = Vec::new();
        let Starter { proposer, lost, .. } = &mut self.proposers[p];
        if !*lost {
            proposer.offer(proposer.end(), &wal, &mut out);
        }
        self.effects(p, out);
    }

    fn heartbeat(&mut self) {
        let p = self.random.below(self.proposers.len());
        let mut out = Vec::new();
        self.proposers[p].proposer.heartbeat(&mut out);
        self.effects(p, out);
    }

    fn effects(&mut self, p: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(node, m) => self.network.push((p, node, Message::Down(m))),
                Effect::Won { term, start } => {
                    self.check.won(term, start, self.proposers[p].epoch);
                }
                Effect::Committed(lsn) => {
                    let logs: Vec<_> = self.nodes.values().map(|n| n.disk.1.clone()).collect();
                    self.check.commit(p, lsn, &logs);
                }
                Effect::NeedWal { to, donor, range } => {
                    self.from_donors += 1;
                    let bytes = (range.start.0 - START) as usize..(range.end.0 - START) as usize;
                    let Some(wal) = self.nodes[&donor].disk.1.get(bytes) else {
                        continue;
                    };
                    let (wal, mut out) = (wal.to_vec().into(), Vec::new());
                    let proposer = &mut self.proposers[p].proposer;
                    proposer.supply(to, range.start, &wal, &mut out);
                    self.effects(p, out);
                }
                Effect::Lost(_) => self.proposers[p].lost = true,
                Effect::Feedback(_) | Effect::Disconnect(_) => {}
            }
        }
    }
}

/// What must hold, whatever the protocol is.
#[derive(Default)]
struct Check {
    committed: Vec<u8>,
    leaders: BTreeMap<Term, (Lsn, EndpointEpoch)>,
    by_proposer: BTreeMap<usize, Lsn>,
}

impl Check {
    /// Election safety: one winner for each term, whose log has all that was committed. No start
    /// wins a term above one that a later start has won, and none below an earlier one's (C1).
    fn won(&mut self, term: Term, start: Lsn, epoch: EndpointEpoch) {
        assert_eq!(
            self.leaders.insert(term, (start, epoch)),
            None,
            "two winners of term {term}"
        );
        let epochs = self.leaders.values().map(|(_, epoch)| epoch);
        assert!(epochs.is_sorted(), "an older start has stolen term {term}");
        if *self.leaders.last_key_value().unwrap().0 == term {
            let end = START + self.committed.len() as u64;
            assert!(start.0 >= end, "committed WAL above {start} is gone");
        }
    }

    /// What is called committed is durable on a majority, and never changes.
    fn commit(&mut self, p: usize, lsn: Lsn, logs: &[Vec<u8>]) {
        let before = self.by_proposer.insert(p, lsn).unwrap_or_default();
        assert!(lsn > before, "commit went from {before} to {lsn}");
        let bytes = (lsn.0 - START) as usize;
        let mut copies: BTreeMap<&[u8], usize> = BTreeMap::new();
        let long = logs.iter().filter_map(|log| log.get(..bytes));
        long.for_each(|log| *copies.entry(log).or_default() += 1);
        let agreed = copies.iter().find(|(_, n)| **n > logs.len() / 2);
        let agreed = agreed
            .unwrap_or_else(|| panic!("no majority holds {lsn}"))
            .0;
        let common = self.committed.len().min(bytes);
        assert!(
            agreed[..common] == self.committed[..common],
            "committed bytes changed"
        );
        if bytes > common {
            self.committed = agreed.to_vec();
        }
    }
}

/// xorshift: the same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}
