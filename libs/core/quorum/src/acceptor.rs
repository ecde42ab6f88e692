//! The safekeeper's half.
//!
//!   A1  a vote is durable before its answer, and a term is voted for once;
//!   A2  WAL is durable before the answer that names its end;
//!   A3  nothing below the commit position is cut off;
//!   A4  WAL of a term is taken only after "elected" of that term, without gap or overwrite;
//!   A5  a node that doubts its log gives no vote until it is admitted again, and takes nothing
//!       before it has begun its log anew;
//!   A6  an endpoint epoch below the highest that was voted for gets no vote, over restarts (C1).

use bytes::Bytes;
use ids::{Generation, Lsn, NodeId, Term};
use pg::wire::wal_push::{
    AcceptorGreeting, AppendAnswer, AppendRequest, Elected, Membership, ProposerGreeting,
    ToAcceptor, ToProposer, VoteAnswer, VoteRequest,
};

use crate::History;

mod durable;
mod refusal;

pub use durable::{Durable, EndpointEpoch};
pub use refusal::Refusal;

/// A write that the shell was asked for. Writes become durable in the order of their tickets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What the shell does. In order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write WAL.
    Append {
        /// To be named when it is durable.
        ticket: Ticket,
        /// Where.
        at: Lsn,
        /// The bytes.
        wal: Bytes,
    },
    /// Void everything from `to` on, and write on under a new epoch of the log.
    Truncate {
        /// To be named when it is durable.
        ticket: Ticket,
        /// The new end.
        to: Lsn,
        /// The term of the new epoch.
        term: Term,
    },
    /// Store the record of this acceptor.
    Persist {
        /// To be named when it is durable.
        ticket: Ticket,
        /// The record.
        state: Box<Durable>,
    },
    /// Answer.
    Send {
        /// The answer.
        message: ToProposer,
        /// Held until this is durable.
        after: Option<Ticket>,
    },
    /// Answer with an error and end the connection.
    Close(Refusal),
}

/// The state machine.
#[derive(Debug)]
pub struct Acceptor {
    node: NodeId,
    state: Durable,
    /// The commit position that is stored, or will be before anything that names it.
    commit_seen: Lsn,
    commit_stored: Lsn,
    write: Lsn,
    flush: Lsn,
    ticket: Ticket,
    /// Whether the record does not say yet that this node is a learner.
    doubt_unstored: bool,
    /// What the proposer of the term has named as committed since its "elected".
    named: Option<Lsn>,
    /// Ends of appends that are not durable yet.
    pending: std::collections::VecDeque<(Ticket, Lsn)>,
}

impl Acceptor {
    /// An acceptor whose record and log were read from disk; `flush` is the proven end of the log,
    /// and `doubted` says that the log's scan did not end cleanly. Call `on_restored` next.
    #[must_use]
    pub fn restore(node: NodeId, mut state: Durable, flush: Lsn, doubted: bool) -> Self {
        let before = (state.learner, state.copying);
        // A log that ends below what it knows committed has lost acknowledged bytes.
        if doubted || flush < state.commit {
            (state.learner, state.copying) = (true, false);
        }
        // A learner's log is copied, and can hold terms that this node had no part in (A1).
        state.term = state.term.max(state.history.last_term());
        let commit = state.commit;
        Self {
            node,
            doubt_unstored: (state.learner, state.copying) != before,
            state,
            commit_seen: commit,
            commit_stored: commit,
            write: flush,
            flush,
            ticket: Ticket(0),
            named: None,
            pending: std::collections::VecDeque::new(),
        }
    }

    /// Stores a doubt that `restore` found. The log must not be mended before that is durable: the
    /// next start would find it clean, and vote with what is left of it (A5).
    pub fn on_restored(&mut self, out: &mut Vec<Action>) {
        if std::mem::take(&mut self.doubt_unstored) {
            self.persist(out);
        }
    }

    /// Takes one message of a proposer of endpoint epoch `epoch`.
    pub fn handle(&mut self, epoch: EndpointEpoch, message: ToAcceptor, out: &mut Vec<Action>) {
        self.on_restored(out);
        let handled = match message {
            _ if self.state.learner && !self.state.copying => Err(Refusal::Learner(self.node)),
            ToAcceptor::Greeting(m) => self.greeting(m, out),
            ToAcceptor::Vote(m) => self.vote(epoch, m, out),
            ToAcceptor::Elected(m) => self.elected(m, out),
            ToAcceptor::Append(m) => self.append(m, out),
        };
        if let Err(refusal) = handled {
            out.push(Action::Close(refusal));
        }
    }

    /// Everything up to `ticket` is durable.
    pub fn on_persisted(&mut self, ticket: Ticket, out: &mut Vec<Action>) {
        while let Some((_, end)) = self.pending.pop_front_if(|(t, _)| *t <= ticket) {
            self.flush = end;
        }
        self.advance_commit(out);
        self.rejoin(out);
    }

    /// Stores the commit position, where it has moved. To be called now and then.
    pub fn store_commit(&mut self, out: &mut Vec<Action>) {
        if self.commit_stored < self.state.commit {
            self.persist(out);
        }
    }

    /// Admits a learner again, after a membership change, once its log was copied up to
    /// `position`; answers whether it is admitted. The position comes from a majority of the
    /// configuration without this node.
    pub fn admit(&mut self, membership: Membership, position: Lsn, out: &mut Vec<Action>) -> bool {
        let newer = membership.generation > self.state.membership.generation;
        if !newer || self.flush < position.max(self.state.commit) {
            return false;
        }
        self.state.membership = membership;
        (self.state.learner, self.state.copying) = (false, false);
        self.persist(out);
        true
    }

    /// Admits a learner again whose log was filled anew. Its record kept its promises, so nobody
    /// of a lower term writes here, and whoever won a term after the doubt did so without its vote
    /// and holds all that was committed before. With the start of the term and all that its
    /// proposer, who no longer counts what this node said on an older connection, calls committed,
    /// it has whatever it had acknowledged (A5).
    fn rejoin(&mut self, out: &mut Vec<Action>) {
        let start = self.state.history.entries().last().map(|e| e.start);
        let (Some(named), Some(start)) = (self.named, start) else {
            return;
        };
        if self.state.learner && self.state.copying && self.flush >= named.max(start) {
            (self.state.learner, self.state.copying) = (false, false);
            self.persist(out);
        }
    }

    /// Makes this node a learner: its log turned out to be damaged (A5).
    pub fn doubt(&mut self, out: &mut Vec<Action>) {
        if !self.state.learner || self.state.copying {
            (self.state.learner, self.state.copying) = (true, false);
            self.persist(out);
        }
    }

    /// Whether an append of this generation and term would be taken, were it to begin at the end
    /// of the log (A4).
    #[must_use]
    pub fn follows(&self, generation: Generation, term: Term) -> bool {
        (!self.state.learner || self.state.copying)
            && generation == self.state.membership.generation
            && term == self.state.term
            && term == self.state.history.last_term()
    }

    /// The end of the log, with what is not durable yet.
    #[must_use]
    pub fn write(&self) -> Lsn {
        self.write
    }

    /// The record as it was asked to be stored last, with the commit position of now.
    #[must_use]
    pub fn state(&self) -> &Durable {
        &self.state
    }

    /// The durable end of the log.
    #[must_use]
    pub fn flush(&self) -> Lsn {
        self.flush
    }

    fn greeting(&mut self, m: ProposerGreeting, out: &mut Vec<Action>) -> Result<(), Refusal> {
        let mut after = None;
        if m.membership.generation > self.state.membership.generation {
            let mut voters = m.membership.members.iter().chain(&m.membership.new_members);
            if !voters.any(|v| v.node == self.node) {
                return Err(Refusal::NotMember(self.node));
            }
            self.state.membership = m.membership;
            after = Some(self.persist(out));
        }
        let (membership, term) = (self.state.membership.clone(), self.state.term);
        let answer = AcceptorGreeting {
            node: self.node,
            membership,
            term,
        };
        out.push(Action::Send {
            message: ToProposer::Greeting(answer),
            after,
        });
        Ok(())
    }

    fn vote(
        &mut self,
        epoch: EndpointEpoch,
        m: VoteRequest,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        self.same_generation("VoteRequest", m.generation)?;
        if epoch < self.state.epoch {
            let (theirs, ours) = (epoch, self.state.epoch);
            return Err(Refusal::Epoch { theirs, ours });
        }
        let promised = m.term > self.state.term;
        // A learner follows whoever wins without it (A5).
        let given = promised && !self.state.learner;
        if promised {
            self.state.term = m.term;
            self.state.epoch = epoch;
            self.persist(out);
        }
        let message = ToProposer::Vote(VoteAnswer {
            generation: self.state.membership.generation,
            term: self.state.term,
            given,
            flush: self.write,
            truncate: self.state.truncate,
            history: self.state.history.up_to(self.write).entries().to_vec(),
        });
        // A1, and all WAL written before is durable too: tickets complete in order.
        out.push(Action::Send {
            message,
            after: self.last_ticket(),
        });
        Ok(())
    }

    fn elected(&mut self, m: Elected, out: &mut Vec<Action>) -> Result<(), Refusal> {
        self.same_generation("ProposerElected", m.generation)?;
        if m.term < self.state.term {
            self.refuse_term(out);
            return Ok(());
        }
        let history = History::new(m.history).ok_or(Refusal::History)?;
        let first = history.entries().first().ok_or(Refusal::History)?.start;
        if history.last_term() != m.term {
            return Err(Refusal::History);
        }
        let common = match self.write.is_valid() {
            true => self.state.history.common_point(self.write, &history),
            false => Some(first),
        };
        if common != Some(m.start_streaming_at) {
            let ours = common.unwrap_or(Lsn::INVALID);
            return Err(Refusal::CommonPoint {
                theirs: m.start_streaming_at,
                ours,
            });
        }
        let at = m.start_streaming_at;
        if at < self.state.commit {
            return Err(Refusal::BelowCommit {
                at,
                commit: self.state.commit,
            });
        }
        // FORMAT.md 6: the epoch of the log first, then the history, then acknowledgements.
        let ticket = self.next_ticket();
        out.push(Action::Truncate {
            ticket,
            to: at,
            term: m.term,
        });
        // What is cut off must not count as flushed until then: the new term's commit positions
        // are of other bytes (A3).
        self.flush = self.flush.min(at);
        self.pending
            .iter_mut()
            .for_each(|(_, end)| *end = (*end).min(at));
        self.pending.push_back((ticket, at));
        self.write = at;
        self.commit_seen = self.state.commit;
        self.named = None;
        self.state.term = m.term;
        self.state.history = history;
        self.persist(out);
        Ok(())
    }

    fn append(&mut self, m: AppendRequest, out: &mut Vec<Action>) -> Result<(), Refusal> {
        self.same_generation("append request", m.generation)?;
        if m.term < self.state.term {
            self.refuse_term(out);
            return Ok(());
        }
        if m.term > self.state.term || self.state.history.last_term() != m.term {
            return Err(Refusal::BeforeElected(m.term));
        }
        let end = self.write;
        if m.begin != end {
            return Err(Refusal::Gap {
                begin: m.begin,
                end,
            });
        }
        if !m.wal.is_empty() {
            self.write = end
                .checked_add(m.wal.len() as u64)
                .ok_or(Refusal::Gap { begin: end, end })?;
            let ticket = self.next_ticket();
            self.pending.push_back((ticket, self.write));
            out.push(Action::Append {
                ticket,
                at: end,
                wal: m.wal,
            });
        }
        self.commit_seen = self.commit_seen.max(m.commit);
        self.named = self.named.max(Some(m.commit));
        self.state.truncate = self.state.truncate.max(m.truncate);
        self.advance_commit(out);
        self.rejoin(out);
        self.send_progress(self.last_ticket(), out);
        Ok(())
    }

    /// A commit position counts here once the WAL below it is durable here.
    fn advance_commit(&mut self, out: &mut Vec<Action>) {
        // A log that is being cut or is behind has a lower flush; a known commit stays known (A3).
        let commit = self.state.commit.max(self.commit_seen.min(self.flush));
        let Some(start) = self.state.history.entries().last().map(|e| e.start) else {
            return;
        };
        let passes_term_start = commit >= start && self.commit_stored < start;
        self.state.commit = commit;
        if passes_term_start {
            self.persist(out);
        }
    }

    fn refuse_term(&self, out: &mut Vec<Action>) {
        let bare = self.answer(Lsn::INVALID, Lsn::INVALID);
        out.push(Action::Send {
            message: bare,
            after: self.last_ticket(),
        });
        self.send_progress(self.last_ticket(), out);
    }

    fn send_progress(&self, after: Option<Ticket>, out: &mut Vec<Action>) {
        // A2: `write` is durable once `after` is.
        out.push(Action::Send {
            message: self.answer(self.write, self.commit_stored),
            after,
        });
    }

    fn answer(&self, flush: Lsn, commit: Lsn) -> ToProposer {
        ToProposer::Append(AppendAnswer {
            generation: self.state.membership.generation,
            term: self.state.term,
            flush,
            commit,
            standby_time: 0,
            standby_xmin: 0,
            standby_catalog_xmin: 0,
            feedback: None,
        })
    }

    fn persist(&mut self, out: &mut Vec<Action>) -> Ticket {
        let ticket = self.next_ticket();
        self.commit_stored = self.state.commit;
        out.push(Action::Persist {
            ticket,
            state: Box::new(self.state.clone()),
        });
        ticket
    }

    fn same_generation(&self, what: &'static str, theirs: Generation) -> Result<(), Refusal> {
        let ours = self.state.membership.generation;
        if theirs == ours {
            Ok(())
        } else {
            Err(Refusal::Generation { what, theirs, ours })
        }
    }

    fn next_ticket(&mut self) -> Ticket {
        self.ticket.0 += 1;
        self.ticket
    }

    fn last_ticket(&self) -> Option<Ticket> {
        (self.ticket.0 > 0).then_some(self.ticket)
    }
}
