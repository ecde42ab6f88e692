//! The task that owns the proposer: events in, effects out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ids::{Lsn, NodeId};
use pg::wire::wal_push::{ToAcceptor, ToProposer};
use quorum::{Effect, Proposer};
use service::clock;
use service::task::Shutdown;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::refill::{self, Refill};
use super::{Elected, Offer, ProposerLost, Published, Reach};

/// Small offers that wait are handed over as one of at most this.
const COALESCED_BYTES_MAX: usize = 1 << 20;

/// How often safekeepers that owe no answer are asked whether the term is still ours: whoever only
/// reads hears within this time that another compute has taken over (C1).
const HEARTBEAT: Duration = Duration::from_millis(500);

/// What other tasks tell the owner.
pub(super) enum Event {
    /// A connection is there, in place of any before.
    Connected {
        node: NodeId,
        session: u64,
        outbox: Outbox,
    },
    /// A safekeeper said something.
    Said {
        node: NodeId,
        session: u64,
        message: ToProposer,
    },
    /// The connection is gone.
    Gone { node: NodeId, session: u64 },
    /// A safekeeper gives no vote, because it gave one to a later start of this endpoint (C1).
    Overtaken { node: NodeId, message: String },
    /// WAL for a safekeeper that lacks it, or that no donor gave any.
    Refilled {
        id: u64,
        to: NodeId,
        at: Lsn,
        wal: Option<Bytes>,
    },
}

/// The way to a connection. Unbounded, and yet not long: the proposer keeps to its window.
pub(super) type Outbox = mpsc::UnboundedSender<ToAcceptor>;

struct Link {
    session: u64,
    outbox: Option<Outbox>,
}

pub(super) struct Owner {
    proposer: Proposer,
    reach: Arc<Reach>,
    events: mpsc::Sender<Event>,
    published: Published,
    links: BTreeMap<NodeId, Link>,
    refills: BTreeMap<NodeId, Refill>,
    /// Refills that failed, by whom they were for, since one that did not.
    failures: BTreeMap<NodeId, u32>,
    requests: u64,
    over: bool,
}

impl Owner {
    pub(super) fn new(
        proposer: Proposer,
        reach: Arc<Reach>,
        events: mpsc::Sender<Event>,
        published: Published,
    ) -> Self {
        Self {
            proposer,
            reach,
            events,
            published,
            links: BTreeMap::new(),
            refills: BTreeMap::new(),
            failures: BTreeMap::new(),
            requests: 0,
            over: false,
        }
    }

    /// Until the term is lost or `stop`; what is published after that is that it is lost.
    pub(super) async fn run(
        mut self,
        mut offers: mpsc::Receiver<Offer>,
        mut heard: mpsc::Receiver<Event>,
        stop: Shutdown,
    ) {
        let mut beat = tokio::time::interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.over {
            let leading = self.published.elected.borrow().is_some();
            let mut effects = Vec::new();
            tokio::select! {
                () = stop.requested() => break,
                event = heard.recv() => match event {
                    Some(event) => self.on_event(event, &mut effects),
                    None => break,
                },
                offer = offers.recv(), if leading => match offer {
                    Some(offer) => self.on_offer(offer, &mut offers, &mut effects),
                    None => break,
                },
                _ = beat.tick() => {
                    let now = clock::boottime();
                    self.published.roll.send_modify(|roll| roll.tick(now));
                    self.proposer.heartbeat(&mut effects);
                }
            }
            self.perform(effects);
        }
        if !self.over {
            self.lose("the proposer was stopped".to_owned());
        }
    }

    fn on_event(&mut self, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Connected {
                node,
                session,
                outbox,
            } => {
                let outbox = Some(outbox);
                self.links.insert(node, Link { session, outbox });
                self.refills.remove(&node);
                self.proposer.connected(node, effects);
            }
            Event::Said {
                node,
                session,
                message,
            } => {
                let current = self.links.get(&node);
                if current.is_some_and(|l| l.session == session && l.outbox.is_some()) {
                    // Looked at with the next beat: nobody is woken for every answer.
                    self.published.roll.send_if_modified(|roll| {
                        roll.heard(node, clock::boottime());
                        false
                    });
                    self.proposer.handle(node, message, effects);
                }
            }
            Event::Gone { node, session } => {
                if self.links.get(&node).is_some_and(|l| l.session == session) {
                    self.published.roll.send_modify(|roll| roll.gone(node));
                }
            }
            Event::Overtaken { node, message } => {
                self.lose(format!(
                    "another start of this compute has overtaken it: safekeeper {node} says: {message}"
                ));
            }
            Event::Refilled { id, to, at, wal } => {
                // One that was replaced says nothing of what is asked for now.
                if self.refills.get(&to).is_none_or(|r| r.id != id) {
                    return;
                }
                self.refills.remove(&to);
                match &wal {
                    Some(_) => drop(self.failures.remove(&to)),
                    None => *self.failures.entry(to).or_default() += 1,
                }
                // Nothing supplied: the proposer asks again.
                let wal = wal.unwrap_or_default();
                self.proposer.supply(to, at, &wal, effects);
            }
        }
    }

    fn on_offer(
        &mut self,
        first: Offer,
        more: &mut mpsc::Receiver<Offer>,
        effects: &mut Vec<Effect>,
    ) {
        let Offer { at, mut wal } = first;
        let mut joined = BytesMut::new();
        while let Ok(offer) = more.try_recv() {
            if joined.is_empty() {
                joined.extend_from_slice(&wal);
            }
            if offer.at != at + joined.len() as u64 {
                return self.lose(format!("WAL was offered out of order at {}", offer.at));
            }
            joined.extend_from_slice(&offer.wal);
            if joined.len() >= COALESCED_BYTES_MAX {
                break;
            }
        }
        if !joined.is_empty() {
            wal = joined.freeze();
        }
        let end = self.proposer.end();
        if !self.proposer.offer(at, &wal, effects) {
            self.lose(format!("WAL was offered at {at}, and {end} was expected"));
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if self.over {
                return;
            }
            match effect {
                Effect::Send(node, message) => {
                    if let Some(outbox) = self.links.get(&node).and_then(|l| l.outbox.as_ref()) {
                        // One that has ended connects again, and is told everything anew.
                        drop(outbox.send(message));
                    }
                }
                Effect::Won { term, start } => {
                    tracing::info!(%term, %start, "the term is won");
                    let elected = Elected { term, start };
                    self.published.elected.send_replace(Some(elected));
                }
                Effect::NeedWal { to, donor, range } => self.refill(to, donor, range),
                Effect::Committed(lsn) => {
                    self.published.committed.send_replace(lsn);
                }
                Effect::Feedback(feedback) => {
                    self.published.feedback.send_replace(Some(feedback));
                }
                Effect::Disconnect(node) => {
                    tracing::warn!(%node, "a safekeeper answers what it cannot: connecting again");
                    if let Some(link) = self.links.get_mut(&node) {
                        link.outbox = None;
                    }
                }
                Effect::Lost(to) => {
                    let ours = self.proposer.term();
                    self.lose(format!(
                        "term {ours} has given way to term {to} or other safekeepers"
                    ));
                }
            }
        }
    }

    fn refill(&mut self, to: NodeId, donor: NodeId, range: std::ops::Range<Lsn>) {
        let failures = self.failures.get(&to).copied().unwrap_or_default();
        tracing::debug!(%to, %donor, from = %range.start, up_to = %range.end, failures, "a safekeeper lacks WAL");
        self.requests += 1;
        let request = refill::Request {
            id: self.requests,
            to,
            donor,
            range,
            term: self.proposer.term(),
            failures,
        };
        let refill = Refill::start(request, Arc::clone(&self.reach), self.events.clone());
        self.refills.insert(to, refill);
    }

    fn lose(&mut self, reason: String) {
        tracing::warn!(%reason, "the quorum is lost");
        self.over = true;
        self.published
            .lost
            .send_replace(Some(ProposerLost { reason }));
    }
}
