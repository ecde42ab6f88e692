//! The compute's half: wins one term, streams WAL, and says what is committed.
//!
//!   P1  the new log is that of the voter with the highest (last term, flush);
//!   P2  nothing counts as committed unless a majority has it and it reaches the term's start;
//!   P3  a proposer that saw a higher term has lost for good: a new one is made;
//!   P4  WAL is forgotten only below the commit position: what is forgotten a donor has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use bytes::BytesMut;
use ids::{Lsn, NodeId, TenantId, Term, TimelineId};
use pg::wire::wal_push::{
    AcceptorGreeting, Membership, PageserverFeedback, ToAcceptor, ToProposer, VoteAnswer,
};

use crate::History;

mod election;
mod stream;

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
}

fn majority(n: usize) -> usize {
    n / 2 + 1
}
