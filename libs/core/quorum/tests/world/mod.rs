//! Real acceptors and proposers, and a network that a story cuts and mends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use ids::{Generation, Lsn, NodeId, TenantId, TimelineId};
use pg::wire::wal_push::{Member, Membership, ProposerGreeting, ToAcceptor, ToProposer};
use quorum::{Acceptor, Action, Durable, Effect, EndpointEpoch, Proposer, ProposerConfig, Ticket};

const START: u64 = 0x1000;

/// All that a story speaks of.
#[derive(Default)]
pub(crate) struct World {
    nodes: BTreeMap<u64, Node>,
    proposers: BTreeMap<String, Compute>,
    network: VecDeque<(String, u64, Message)>,
    events: Vec<String>,
}

struct Node {
    acceptor: Acceptor,
    record: Durable,
    log: Vec<u8>,
    durable: Ticket,
}

struct Compute {
    proposer: Proposer,
    epoch: u64,
    /// The nodes it reaches; those mapped to `true` only until they have voted.
    links: BTreeMap<u64, bool>,
    needs: BTreeMap<u64, (u64, Range<Lsn>)>,
}

enum Message {
    Down(ToAcceptor),
    Up(ToProposer),
}

impl World {
    /// Runs one command and tells what it made happen.
    pub(crate) fn run(&mut self, command: &str) -> Vec<String> {
        let words: Vec<_> = command.split_whitespace().collect();
        match *words.as_slice() {
            ["nodes", ref nodes @ ..] => self.nodes = numbers(nodes).map(Node::empty).collect(),
            ["compute", name, "epoch", epoch, "of", ref nodes @ ..] => {
                let compute = Compute::new(number(epoch), numbers(nodes));
                self.proposers.insert(name.to_owned(), compute);
            }
            ["connect", name, ref nodes @ ..] => self.connect(name, nodes, false),
            ["connect-for-vote", name, ref nodes @ ..] => self.connect(name, nodes, true),
            ["cut", name, ref nodes @ ..] => {
                let links = &mut self.compute(name).links;
                links.retain(|n, _| numbers(nodes).all(|cut| cut != *n));
            }
            ["heartbeat", name] => {
                let mut out = Vec::new();
                self.compute(name).proposer.heartbeat(&mut out);
                self.effects(name, out);
            }
            ["write", name, bytes] => self.write(name, number(bytes)),
            ["supply", name, node, bytes] => self.supply(name, number(node), number(bytes)),
            ["configure", ref rest @ ..] => self.configure(rest),
            ["restart", node] => self.restart(number(node), false),
            ["restart-in-doubt", node] => self.restart(number(node), true),
            ["lose", node, bytes] => {
                let node = self.node(number(node));
                node.log.truncate(node.log.len() - number(bytes) as usize);
            }
            ["begin-anew", node] => self.begin_anew(number(node)),
            ["copy-log", from, to] => self.copy(number(from), number(to)),
            ["admit", node, "at", position, ref rest @ ..] => {
                self.admit(number(node), position.parse().unwrap(), membership(rest));
            }
            ["show"] => self.show(),
            _ => panic!("no such command: {command}"),
        }
        while let Some((name, node, message)) = self.network.pop_front() {
            self.deliver(&name, node, message);
        }
        std::mem::take(&mut self.events)
    }

    fn connect(&mut self, name: &str, nodes: &[&str], for_vote: bool) {
        for node in numbers(nodes) {
            let mut out = Vec::new();
            let compute = self.compute(name);
            compute.links.insert(node, for_vote);
            compute.proposer.connected(NodeId(node), &mut out);
            self.effects(name, out);
        }
    }

    fn write(&mut self, name: &str, bytes: u64) {
        // Each compute writes bytes of its own, so that logs that part differ.
        let wal = vec![name.as_bytes().last().copied().unwrap(); bytes as usize];
        let mut out = Vec::new();
        let proposer = &mut self.compute(name).proposer;
        let taken = proposer.offer(proposer.end(), &wal, &mut out);
        if !taken {
            self.tell(format!("{name} may not write"));
        }
        self.effects(name, out);
    }

    /// Gives a node the beginning of what it was said to need.
    fn supply(&mut self, name: &str, node: u64, bytes: u64) {
        let (donor, range) = self.compute(name).needs.remove(&node).unwrap();
        let from = (range.start.0 - START) as usize;
        let wal = self.node(donor).log[from..from + bytes as usize].to_vec();
        let mut out = Vec::new();
        let proposer = &mut self.compute(name).proposer;
        proposer.supply(NodeId(node), range.start, &wal.into(), &mut out);
        self.effects(name, out);
    }

    /// Tells nodes a membership, as the one who changes it does.
    fn configure(&mut self, rest: &[&str]) {
        let at = rest.iter().position(|w| *w == "generation").unwrap();
        let membership = membership(&rest[at..]);
        for node in numbers(&rest[..at]) {
            let greeting = ToAcceptor::Greeting(ProposerGreeting {
                tenant: TenantId([1; 16]),
                timeline: TimelineId([2; 16]),
                membership: membership.clone(),
                pg_version: 150_000,
                system_id: 7,
                wal_segment_bytes: 16 << 20,
            });
            let mut out = Vec::new();
            let acceptor = &mut self.node(node).acceptor;
            acceptor.handle(EndpointEpoch(0), greeting, &mut out);
            self.act(None, node, out);
        }
    }

    fn restart(&mut self, node: u64, doubted: bool) {
        let (place, mut out) = (self.node(node), Vec::new());
        place.restart(node, doubted);
        place.acceptor.on_restored(&mut out);
        self.act(None, node, out);
        for compute in self.proposers.values_mut() {
            compute.links.remove(&node);
        }
    }

    /// What the shell of a learner does that is to be filled by the next proposers.
    fn begin_anew(&mut self, node: u64) {
        let place = self.node(node);
        let (record, at) = place.record.anew(Lsn(START)).unwrap();
        place.log.truncate((at.0 - START) as usize);
        place.record = record;
        self.restart(node, false);
    }

    /// What the shell of a learner does: log and history come from one that is trusted.
    fn copy(&mut self, from: u64, to: u64) {
        let donor = self.node(from);
        let (log, history) = (donor.log.clone(), donor.record.history.clone());
        let learner = self.node(to).acceptor.state().learner;
        let node = self.node(to);
        (node.log, node.record.history) = (log, history);
        node.restart(to, learner);
    }

    fn admit(&mut self, node: u64, position: Lsn, membership: Membership) {
        let mut out = Vec::new();
        let acceptor = &mut self.node(node).acceptor;
        let admitted = acceptor.admit(membership, position, &mut out);
        let not = if admitted { "" } else { "not " };
        self.tell(format!("{node} is {not}admitted"));
        self.act(None, node, out);
    }

    fn show(&mut self) {
        let lines = self.nodes.iter().map(|(name, node)| {
            let (state, flush) = (node.acceptor.state(), node.acceptor.flush());
            let terms = state.history.entries().iter();
            let terms: Vec<_> = terms.map(|e| format!("{} {}", e.term, e.start)).collect();
            let learner = match (state.learner, state.copying) {
                (true, true) => ", learner that copies",
                (true, false) => ", learner",
                (false, _) => "",
            };
            format!(
                "{name}: term {}, flush {flush} ({}), commit {}, terms [{}], generation {}{learner}",
                state.term,
                node.writers(),
                state.commit,
                terms.join(", "),
                state.membership.generation,
            )
        });
        self.events.extend(lines.collect::<Vec<_>>());
    }

    fn deliver(&mut self, name: &str, node: u64, message: Message) {
        let compute = self.compute(name);
        let epoch = EndpointEpoch(compute.epoch);
        let Some(for_vote) = compute.links.get(&node).copied() else {
            return;
        };
        let mut out = Vec::new();
        match message {
            Message::Down(m) => {
                self.node(node).acceptor.handle(epoch, m, &mut out);
                self.act(Some(name), node, out);
            }
            Message::Up(m) => {
                let (mut effects, mut said) = (Vec::new(), None);
                if let ToProposer::Vote(vote) = &m {
                    let given = if vote.given { "votes for" } else { "refuses" };
                    said = Some(format!(
                        "{node} {given} {name}, being in term {}",
                        vote.term
                    ));
                    if for_vote {
                        compute.links.remove(&node);
                    }
                }
                compute.proposer.handle(NodeId(node), m, &mut effects);
                self.events.extend(said);
                self.effects(name, effects);
            }
        }
    }

    /// What an acceptor asks of its shell. Answers to nobody are those of `configure`.
    fn act(&mut self, name: Option<&str>, node: u64, mut actions: Vec<Action>) {
        while !actions.is_empty() {
            let mut done = None;
            for action in std::mem::take(&mut actions) {
                let place = self.node(node);
                match action {
                    Action::Append { ticket, at, wal } => {
                        assert_eq!(place.log.len() as u64 + START, at.0, "a hole in the log");
                        place.log.extend_from_slice(&wal);
                        (done, place.durable) = (Some(ticket), ticket);
                    }
                    Action::Truncate { ticket, to, .. } => {
                        place.log.truncate((to.0 - START) as usize);
                        (done, place.durable) = (Some(ticket), ticket);
                    }
                    Action::Persist { ticket, state } => {
                        place.record = *state;
                        (done, place.durable) = (Some(ticket), ticket);
                    }
                    Action::Send { message, after } => {
                        assert!(after <= Some(place.durable), "answered before its write");
                        let up = name.map(|n| (n.to_owned(), node, Message::Up(message)));
                        self.network.extend(up);
                    }
                    Action::Close(refusal) => {
                        self.tell(format!("{node} closes: {refusal}"));
                        if let Some(name) = name {
                            self.compute(name).links.remove(&node);
                        }
                    }
                }
            }
            if let Some(ticket) = done {
                let acceptor = &mut self.node(node).acceptor;
                acceptor.on_persisted(ticket, &mut actions);
            }
        }
    }

    fn effects(&mut self, name: &str, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(node, m) => {
                    let message = Message::Down(m);
                    self.network.push_back((name.to_owned(), node.0, message));
                }
                Effect::Won { term, start } => {
                    self.tell(format!("{name} wins term {term} from {start} on"));
                }
                Effect::Committed(lsn) => self.tell(format!("{name} commits {lsn}")),
                Effect::Lost(term) => self.tell(format!("{name} has lost to term {term}")),
                Effect::Disconnect(node) => {
                    self.tell(format!("{name} disconnects {node}"));
                    self.compute(name).links.remove(&node.0);
                }
                Effect::NeedWal { to, donor, range } => {
                    let Range { start, end } = range;
                    self.tell(format!("{to} needs {start} to {end} from {donor}"));
                    let need = (donor.0, start..end);
                    self.compute(name).needs.insert(to.0, need);
                }
                Effect::Feedback(_) => {}
            }
        }
    }

    fn tell(&mut self, event: String) {
        self.events.push(event);
    }

    fn node(&mut self, node: u64) -> &mut Node {
        self.nodes.get_mut(&node).unwrap()
    }

    fn compute(&mut self, name: &str) -> &mut Compute {
        self.proposers.get_mut(name).unwrap()
    }
}

impl Node {
    fn empty(name: u64) -> (u64, Self) {
        let record = Durable::default();
        let acceptor = Acceptor::restore(NodeId(name), record.clone(), Lsn(0), false);
        let log = Vec::new();
        let node = Self {
            acceptor,
            record,
            log,
            durable: Ticket(0),
        };
        (name, node)
    }

    /// Who wrote the log, as the last letter of the name with the number of bytes.
    fn writers(&self) -> String {
        let runs = self.log.chunk_by(|a, b| a == b);
        let run = |r: &[u8]| format!("{}{}", char::from(r[0]), r.len());
        runs.map(run).collect::<Vec<_>>().join(" ")
    }

    fn restart(&mut self, name: u64, doubted: bool) {
        let flush = match self.record.history.entries().is_empty() {
            true => Lsn(0),
            false => Lsn(START + self.log.len() as u64),
        };
        self.acceptor = Acceptor::restore(NodeId(name), self.record.clone(), flush, doubted);
        self.durable = Ticket(0);
    }
}

impl Compute {
    fn new(epoch: u64, nodes: impl Iterator<Item = u64>) -> Self {
        let safekeepers: BTreeSet<_> = nodes.map(NodeId).collect();
        let proposer = Proposer::new(ProposerConfig {
            tenant: TenantId([1; 16]),
            timeline: TimelineId([2; 16]),
            pg_version: 150_000,
            system_id: 7,
            wal_segment_bytes: 16 << 20,
            safekeepers,
            start: Lsn(START),
        });
        Self {
            proposer,
            epoch,
            links: BTreeMap::new(),
            needs: BTreeMap::new(),
        }
    }
}

/// `generation G members A B [new C D]`
fn membership(words: &[&str]) -> Membership {
    let ["generation", generation, "members", ids @ ..] = words else {
        panic!("not a membership: {words:?}");
    };
    let mut sets = ids.split(|w| *w == "new").map(|set| {
        let member = |node| Member {
            node: NodeId(node),
            host: format!("safekeeper-{node}"),
            port: 5454,
        };
        numbers(set).map(member).collect()
    });
    Membership {
        generation: Generation(number(generation) as u32),
        members: sets.next().unwrap(),
        new_members: sets.next().unwrap_or_default(),
    }
}

fn number(word: &str) -> u64 {
    word.parse()
        .unwrap_or_else(|_| panic!("not a number: {word}"))
}

fn numbers(words: &[&str]) -> impl Iterator<Item = u64> {
    words.iter().map(|w| number(w))
}
