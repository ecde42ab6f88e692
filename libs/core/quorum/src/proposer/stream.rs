//! WAL on its way to the safekeepers, and what of it is committed.

use bytes::{Buf, Bytes};
use ids::{Lsn, NodeId};
use pg::wire::wal_push::{APPEND_BYTES_MAX, AppendAnswer, AppendRequest, ToAcceptor, VoteAnswer};

use super::{Effect, NEED_BYTES_MAX, Peer, Phase, Proposer, WINDOW_BYTES_MAX, majority};
use crate::History;

impl Proposer {
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

    pub(super) fn on_append(&mut self, node: NodeId, m: AppendAnswer, out: &mut Vec<Effect>) {
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
    pub(super) fn pump(&mut self, node: NodeId, out: &mut Vec<Effect>) {
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

    pub(super) fn send_append(&mut self, node: NodeId, message: ToAcceptor, out: &mut Vec<Effect>) {
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

    pub(super) fn append(&self, begin: Lsn, wal: Bytes) -> ToAcceptor {
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
}
