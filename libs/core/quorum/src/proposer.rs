//! The compute's half: wins one term, streams WAL, and says what is committed.
//!
//!   P1  the new log is that of the voter with the highest (last term, flush);
//!   P2  nothing counts as committed unless a majority has it and it reaches the term's start;
//!   P3  a proposer that saw a higher term has lost for good: a new one is made;
//!   P4  WAL is forgotten only below the commit position: what is forgotten a donor has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use ids::{Generation, Lsn, NodeId, TenantId, Term, TimelineId};
use pg::wire::wal_push::{
    APPEND_BYTES_MAX, AcceptorGreeting, AppendAnswer, AppendRequest, Elected, Member, Membership,
    PageserverFeedback, ProposerGreeting, TermStart, ToAcceptor, ToProposer, VoteAnswer,
    VoteRequest,
};

use crate::History;

/// The most WAL that is under way to one safekeeper: sent and not answered. An answer need not
/// name the end of what it answers, because safekeepers keep the torn end of a record back.
pub const WINDOW_BYTES_MAX: u64 = 1024 * 1024;
/// The committed WAL that is kept for safekeepers that are behind (P4).
pub const KEPT_BYTES_MAX: u64 = 64 << 20;
/// The most WAL that is asked of a donor at a time.
pub const NEED_BYTES_MAX: u64 = 4 << 20;

/// What a proposer is told at its start.
#[derive(Debug, Clone)]
pub struct ProposerConfig {
    /// The tenant.
    pub tenant: TenantId,
    /// The timeline.
    pub timeline: TimelineId,
    /// For example 170005.
    pub pg_version: u32,
    /// The system identifier.
    pub system_id: u64,
    /// The length of a WAL segment.
    pub wal_segment_bytes: u32,
    /// The safekeepers to reach; they vote where no membership was set.
    pub safekeepers: BTreeSet<NodeId>,
    /// Where the timeline starts, should all safekeepers be empty.
    pub start: Lsn,
}

/// What the shell does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send to a safekeeper.
    Send(NodeId, ToAcceptor),
    /// The term is won: WAL is to be offered from `start` on.
    Won {
        /// The term.
        term: Term,
        /// Where its WAL starts.
        start: Lsn,
    },
    /// `to` lacks WAL that the proposer does not hold, or not any more: read it from `donor`, in
    /// this proposer's term, and supply it. A beginning of it will do, and none of it asks again.
    NeedWal {
        /// Who lacks it.
        to: NodeId,
        /// Who has it.
        donor: NodeId,
        /// What.
        range: Range<Lsn>,
    },
    /// Everything up to here is committed.
    Committed(Lsn),
    /// A pageserver's report.
    Feedback(PageserverFeedback),
    /// End the connection to a safekeeper that answers what it cannot.
    Disconnect(NodeId),
    /// The term or the membership is lost: this proposer is over (P3).
    Lost(Term),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Greeting,
    Voting,
    Leading,
    Lost,
}

#[derive(Debug, Default)]
struct Peer {
    greeting: Option<AcceptorGreeting>,
    vote: Option<VoteAnswer>,
    /// The answer of one that gave no vote in this term, and may follow whoever wins it.
    no_vote: Option<VoteAnswer>,
    /// The next position to send; none before "elected".
    next: Option<Lsn>,
    flush: Lsn,
    /// Survive the connection: what this node has said once it must not take back.
    term_seen: Term,
    flush_seen: Lsn,
    /// What a donor is being asked for.
    asked: Option<Range<Lsn>>,
    /// The lengths of appends without an answer.
    unanswered: VecDeque<u64>,
    /// The commit position that the last append named.
    told: Lsn,
}

impl Peer {
    /// What counts towards a majority. A node that answers a lower end than it had acknowledged
    /// has lost WAL: it is filled again, and counts once it has all that it once called its own.
    fn counted(&self) -> Lsn {
        if self.flush < self.flush_seen {
            return Lsn::INVALID;
        }
        self.flush
    }

    fn under_way(&self) -> u64 {
        self.unanswered.iter().sum()
    }
}

/// The state machine, for one term.
#[derive(Debug)]
pub struct Proposer {
    config: ProposerConfig,
    phase: Phase,
    peers: BTreeMap<NodeId, Peer>,
    membership: Membership,
    term: Term,
    history: History,
    start: Lsn,
    truncate: Lsn,
    commit: Lsn,
    /// WAL from `base` on, which is `start` until something is forgotten (P4).
    wal: BytesMut,
    base: Lsn,
    kept_bytes_max: u64,
}

impl Proposer {
    /// A proposer that has talked to nobody.
    #[must_use]
    pub fn new(config: ProposerConfig) -> Self {
        let peers = config
            .safekeepers
            .iter()
            .map(|n| (*n, Peer::default()))
            .collect();
        Self {
            config,
            phase: Phase::Greeting,
            peers,
            membership: Membership::default(),
            term: Term(0),
            history: History::default(),
            start: Lsn::INVALID,
            truncate: Lsn::INVALID,
            commit: Lsn::INVALID,
            wal: BytesMut::new(),
            base: Lsn::INVALID,
            kept_bytes_max: KEPT_BYTES_MAX,
        }
    }

    /// Keeps at most `bytes` of committed WAL, in place of [`KEPT_BYTES_MAX`].
    #[must_use]
    pub fn keeping(mut self, bytes: u64) -> Self {
        self.kept_bytes_max = bytes;
        self
    }

    /// A connection to `node` is there, in place of any before.
    pub fn connected(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let (term_seen, flush_seen) = (peer.term_seen, peer.flush_seen);
        // The vote is a promise of the node, not of the connection; only streaming starts anew.
        let vote = peer.vote.take();
        *peer = Peer {
            vote,
            term_seen,
            flush_seen,
            ..Peer::default()
        };
        if self.phase != Phase::Lost {
            out.push(Effect::Send(node, ToAcceptor::Greeting(self.greeting())));
        }
    }

    /// Takes one message of `node`.
    pub fn handle(&mut self, node: NodeId, message: ToProposer, out: &mut Vec<Effect>) {
        if self.phase == Phase::Lost || !self.peers.contains_key(&node) {
            return;
        }
        match message {
            ToProposer::Greeting(m) => self.on_greeting(node, m, out),
            ToProposer::Vote(m) => self.on_vote(node, m, out),
            ToProposer::Append(m) => self.on_append(node, m, out),
        }
    }

    /// New WAL of Postgres; answers whether it continues what was offered before.
    pub fn offer(&mut self, at: Lsn, wal: &[u8], out: &mut Vec<Effect>) -> bool {
        let fits = at.checked_add(wal.len() as u64).is_some();
        if self.phase != Phase::Leading || at != self.end() || !fits {
            return false;
        }
        self.wal.extend_from_slice(wal);
        self.pump_all(out);
        true
    }

    /// WAL that was asked for with [`Effect::NeedWal`].
    pub fn supply(&mut self, node: NodeId, at: Lsn, wal: &Bytes, out: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let Some(asked) = peer.asked.take() else {
            return;
        };
        let end = at.checked_add(wal.len() as u64);
        let Some(end) = end.filter(|end| *end <= asked.end) else {
            return;
        };
        if peer.next != Some(at) || self.phase != Phase::Leading {
            return;
        }
        peer.next = Some(end);
        let mut begin = at;
        for piece in wal.chunks(APPEND_BYTES_MAX) {
            let message = self.append(begin, wal.slice_ref(piece));
            begin = begin + piece.len() as u64;
            self.send_append(node, message, out);
        }
        self.pump(node, out);
    }

    /// Asks every safekeeper that owes no answer whether the term is still ours, by an append
    /// without WAL. To be called now and then: who has nothing to write would not hear else that
    /// its term is lost (C1).
    pub fn heartbeat(&mut self, out: &mut Vec<Effect>) {
        if self.phase != Phase::Leading {
            return;
        }
        let owes_nothing = |p: &Peer| p.next.filter(|_| p.unanswered.is_empty());
        let idle = self.peers.iter();
        let idle: Vec<_> = idle
            .filter_map(|(node, peer)| Some((*node, owes_nothing(peer)?)))
            .collect();
        for (node, next) in idle {
            let message = self.append(next, Bytes::new());
            self.send_append(node, message, out);
        }
    }

    /// The term, once one was chosen.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// The end of all WAL offered.
    #[must_use]
    pub fn end(&self) -> Lsn {
        // `offer` refuses what would pass the last position.
        Lsn(self.base.0.saturating_add(self.wal.len() as u64))
    }

    fn on_greeting(&mut self, node: NodeId, m: AcceptorGreeting, out: &mut Vec<Effect>) {
        let generation = m.membership.generation;
        let campaigning = self.phase != Phase::Greeting;
        if generation > self.membership.generation {
            if campaigning {
                return self.lose(m.term, out);
            }
            self.membership = m.membership.clone();
        }
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if m.node != node || m.term < peer.term_seen {
            // It has forgotten a promise: a node like that must not vote (FORMAT.md 6).
            return out.push(Effect::Disconnect(node));
        }
        peer.term_seen = m.term;
        peer.greeting = Some(m);
        if campaigning {
            return self.ask_vote(node, out);
        }
        let greeted = |p: &Peer| p.greeting.is_some();
        if self.majority_of_each_set(greeted) {
            let terms = self.peers.values().map(|p| p.term_seen.0);
            self.term = Term(terms.max().unwrap_or(0).saturating_add(1));
            self.phase = Phase::Voting;
            let nodes: Vec<_> = self
                .peers
                .iter()
                .filter(|(_, p)| greeted(p))
                .map(|p| *p.0)
                .collect();
            nodes.into_iter().for_each(|n| self.ask_vote(n, out));
        }
    }

    fn on_vote(&mut self, node: NodeId, m: VoteAnswer, out: &mut Vec<Effect>) {
        if m.term > self.term {
            return self.lose(m.term, out);
        }
        let term = self.term;
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if m.generation != self.membership.generation {
            return out.push(Effect::Disconnect(node));
        }
        let leading = self.phase == Phase::Leading;
        if m.term != term {
            return; // not ours
        }
        if !(m.given || leading) {
            // A learner, or a repeat of a vote whose first answer was lost.
            peer.no_vote = Some(m);
            return;
        }
        peer.vote = Some(m);
        if leading {
            return self.send_elected(node, out);
        }
        if self.phase == Phase::Voting && self.majority_of_each_set(|p| p.vote.is_some()) {
            self.win(out);
        }
    }

    /// P1. Only votes of this term are kept, so every log here is the voter's last before it.
    fn win(&mut self, out: &mut Vec<Effect>) {
        let mut logs = Vec::new();
        for vote in self.peers.values().filter_map(|p| p.vote.as_ref()) {
            let Some(history) = History::new(vote.history.clone()) else {
                continue;
            };
            self.truncate = self.truncate.max(vote.truncate);
            let history = history.up_to(vote.flush);
            logs.push(((history.last_term(), vote.flush), history));
        }
        let Some(((_, flush), history)) = logs.into_iter().max_by_key(|(rank, _)| *rank) else {
            return;
        };
        self.start = if flush.is_valid() {
            flush
        } else {
            self.config.start
        };
        let mut entries = history.entries().to_vec();
        entries.push(TermStart {
            term: self.term,
            start: self.start,
        });
        let Some(history) = History::new(entries) else {
            return self.lose(self.term, out);
        };
        self.base = self.start;
        self.history = history;
        self.phase = Phase::Leading;
        out.push(Effect::Won {
            term: self.term,
            start: self.start,
        });
        for peer in self.peers.values_mut() {
            peer.vote = peer.vote.take().or(peer.no_vote.take());
        }
        let voters: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, p)| p.vote.is_some() && p.greeting.is_some())
            .map(|p| *p.0)
            .collect();
        voters.into_iter().for_each(|n| self.send_elected(n, out));
    }

    fn send_elected(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let Some(vote) = peer.vote.as_ref() else {
            return;
        };
        let first = self.history.entries().first().map(|e| e.start);
        let at = match (vote.flush.is_valid(), History::new(vote.history.clone())) {
            (true, Some(theirs)) => theirs.common_point(vote.flush, &self.history),
            (false, _) => first,
            (true, None) => None,
        };
        // Nothing in common: another timeline's log.
        let Some(at) = at else {
            return out.push(Effect::Disconnect(node));
        };
        peer.next = Some(at);
        out.push(Effect::Send(
            node,
            ToAcceptor::Elected(Elected {
                generation: self.membership.generation,
                term: self.term,
                start_streaming_at: at,
                history: self.history.entries().to_vec(),
            }),
        ));
        // Nothing missing: an empty append, so that the node says where it is.
        if at == self.end() {
            let message = self.append(at, Bytes::new());
            self.send_append(node, message, out);
        }
        self.pump(node, out);
    }

    fn on_append(&mut self, node: NodeId, m: AppendAnswer, out: &mut Vec<Effect>) {
        if m.term > self.term {
            return self.lose(m.term, out);
        }
        if m.term != self.term || self.phase != Phase::Leading {
            return;
        }
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.flush = peer.flush.max(m.flush);
        peer.flush_seen = peer.flush_seen.max(m.flush);
        match m.feedback {
            // Nobody asked for this one.
            Some(feedback) => out.push(Effect::Feedback(feedback)),
            None => drop(peer.unanswered.pop_front()),
        }
        self.advance_commit(out);
        self.forget();
        self.pump(node, out);
        self.tell_commit(node, out);
        // It may be the donor that others wait for.
        let base = self.base;
        let behind = |p: &Peer| p.asked.is_none() && p.next.is_some_and(|next| next < base);
        let waiting: Vec<_> = self
            .peers
            .iter()
            .filter(|(n, p)| **n != node && behind(p))
            .map(|p| *p.0)
            .collect();
        waiting.into_iter().for_each(|n| self.pump(n, out));
    }

    /// P4. What every safekeeper has is not needed again, and for those that are far behind a
    /// donor will do. A node keeps the end of a torn record back and loses it with its connection,
    /// so what it has is what it called flushed, not what it was sent.
    fn forget(&mut self) {
        let everywhere = self.peers.values().map(|p| p.flush).min();
        let far_behind = Lsn(self.end().0.saturating_sub(self.kept_bytes_max));
        let to = everywhere.unwrap_or_default().max(far_behind);
        let to = to.min(self.commit).max(self.base);
        let bytes = usize::try_from(to - self.base).unwrap_or(usize::MAX);
        self.wal.advance(bytes.min(self.wal.len()));
        self.base = to;
    }

    /// P2.
    fn advance_commit(&mut self, out: &mut Vec<Effect>) {
        let sets = self.sets();
        let reached = sets.iter().map(|set| {
            let flush = |n: &NodeId| self.peers.get(n).map_or(Lsn::INVALID, Peer::counted);
            let own_term = |lsn: Lsn| if lsn < self.start { Lsn::INVALID } else { lsn };
            let mut flushed: Vec<_> = set.iter().map(|n| own_term(flush(n))).collect();
            flushed.sort();
            flushed
                .get(flushed.len() - majority(flushed.len()))
                .copied()
                .unwrap_or_default()
        });
        // A safekeeper cannot have what was never offered.
        let reached = reached.min().unwrap_or_default().min(self.end());
        let everywhere = self
            .peers
            .values()
            .map(|p| p.flush)
            .min()
            .unwrap_or_default();
        self.truncate = self.truncate.max(everywhere.min(self.commit.max(reached)));
        if reached > self.commit {
            self.commit = reached;
            out.push(Effect::Committed(reached));
            let nodes: Vec<_> = self.peers.keys().copied().collect();
            nodes.into_iter().for_each(|n| self.tell_commit(n, out));
        }
    }

    /// Tells `node` what is committed, where no WAL is on its way that could: while there is, its
    /// answer or the next append is soon enough, and costs no message of its own.
    fn tell_commit(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        let (commit, end) = (self.commit, self.end());
        let waits = |p: &&Peer| p.next == Some(end) && p.unanswered.is_empty() && p.told < commit;
        if self.peers.get(&node).filter(waits).is_some() {
            let message = self.append(end, Bytes::new());
            self.send_append(node, message, out);
        }
    }

    fn pump_all(&mut self, out: &mut Vec<Effect>) {
        let nodes: Vec<_> = self.peers.keys().copied().collect();
        nodes.into_iter().for_each(|n| self.pump(n, out));
    }

    /// Sends what the window of `node` has room for.
    fn pump(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        loop {
            let (base, end) = (self.base, self.end());
            let donor = self.donor(node);
            let Some(peer) = self.peers.get_mut(&node) else {
                return;
            };
            let Some(next) = peer.next.filter(|n| *n < end || *n < base) else {
                return;
            };
            if peer.under_way() >= WINDOW_BYTES_MAX {
                return;
            }
            if next < base {
                if let (None, Some(donor)) = (&peer.asked, donor) {
                    let end = base.min(Lsn(next.0.saturating_add(NEED_BYTES_MAX)));
                    peer.asked = Some(next..end);
                    out.push(Effect::NeedWal {
                        to: node,
                        donor,
                        range: next..end,
                    });
                }
                return;
            }
            let from = usize::try_from(next - base).unwrap_or(usize::MAX);
            let rest = self.wal.get(from..).unwrap_or_default();
            let wal = Bytes::copy_from_slice(&rest[..rest.len().min(APPEND_BYTES_MAX)]);
            peer.next = Some(next + wal.len() as u64);
            let message = self.append(next, wal);
            self.send_append(node, message, out);
        }
    }

    fn send_append(&mut self, node: NodeId, message: ToAcceptor, out: &mut Vec<Effect>) {
        if let (ToAcceptor::Append(m), Some(peer)) = (&message, self.peers.get_mut(&node)) {
            peer.unanswered.push_back(m.wal.len() as u64);
            peer.told = m.commit;
        }
        out.push(Effect::Send(node, message));
    }

    /// One that has all that the proposer does not hold: a voter whose log was the new one, as
    /// long as nothing was forgotten, or one that has said so in this term.
    fn donor(&self, not: NodeId) -> Option<NodeId> {
        let has = |p: &Peer| {
            let voted = |v: &VoteAnswer| {
                let theirs = History::new(v.history.clone())?;
                theirs.common_point(v.flush, &self.history)
            };
            p.flush >= self.base || p.vote.as_ref().and_then(voted) >= Some(self.base)
        };
        self.peers
            .iter()
            .find(|(n, p)| **n != not && has(p))
            .map(|(n, _)| *n)
    }

    fn append(&self, begin: Lsn, wal: Bytes) -> ToAcceptor {
        let (generation, term) = (self.membership.generation, self.term);
        let (commit, truncate) = (self.commit, self.truncate);
        ToAcceptor::Append(AppendRequest {
            generation,
            term,
            begin,
            commit,
            truncate,
            wal,
        })
    }

    fn ask_vote(&self, node: NodeId, out: &mut Vec<Effect>) {
        let request = VoteRequest {
            generation: self.membership.generation,
            term: self.term,
        };
        out.push(Effect::Send(node, ToAcceptor::Vote(request)));
    }

    fn lose(&mut self, to: Term, out: &mut Vec<Effect>) {
        self.phase = Phase::Lost;
        out.push(Effect::Lost(to));
    }

    /// The sets of which each must give a majority.
    fn sets(&self) -> Vec<Vec<NodeId>> {
        let ids = |set: &[Member]| set.iter().map(|m| m.node).collect::<Vec<_>>();
        if self.membership.generation == Generation(0) {
            return vec![self.config.safekeepers.iter().copied().collect()];
        }
        let mut sets = vec![ids(&self.membership.members)];
        if !self.membership.new_members.is_empty() {
            sets.push(ids(&self.membership.new_members));
        }
        sets
    }

    fn majority_of_each_set(&self, has: impl Fn(&Peer) -> bool) -> bool {
        self.sets().iter().all(|set| {
            let n = set
                .iter()
                .filter(|n| self.peers.get(n).is_some_and(&has))
                .count();
            n >= majority(set.len())
        })
    }

    fn greeting(&self) -> ProposerGreeting {
        ProposerGreeting {
            tenant: self.config.tenant,
            timeline: self.config.timeline,
            // A proposer learns the membership; it never brings one.
            membership: Membership::default(),
            pg_version: self.config.pg_version,
            system_id: self.config.system_id,
            wal_segment_bytes: self.config.wal_segment_bytes,
        }
    }
}

fn majority(n: usize) -> usize {
    n / 2 + 1
}
