//! How a term is won and lost: greetings, votes, and the log that the new term begins with.

use bytes::Bytes;
use ids::{Generation, NodeId, Term};
use pg::wire::wal_push::{
    AcceptorGreeting, Elected, Member, Membership, ProposerGreeting, TermStart, ToAcceptor,
    VoteAnswer, VoteRequest,
};

use super::{Effect, Peer, Phase, Proposer, majority};
use crate::History;

impl Proposer {
    pub(super) fn on_greeting(&mut self, node: NodeId, m: AcceptorGreeting, out: &mut Vec<Effect>) {
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

    pub(super) fn on_vote(&mut self, node: NodeId, m: VoteAnswer, out: &mut Vec<Effect>) {
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

    fn ask_vote(&self, node: NodeId, out: &mut Vec<Effect>) {
        let request = VoteRequest {
            generation: self.membership.generation,
            term: self.term,
        };
        out.push(Effect::Send(node, ToAcceptor::Vote(request)));
    }

    pub(super) fn lose(&mut self, to: Term, out: &mut Vec<Effect>) {
        self.phase = Phase::Lost;
        out.push(Effect::Lost(to));
    }

    /// The sets of which each must give a majority.
    pub(super) fn sets(&self) -> Vec<Vec<NodeId>> {
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

    pub(super) fn greeting(&self) -> ProposerGreeting {
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
