//! Messages that are carried out together: their WAL in one write, their answers after it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use ids::Lsn;
use pg::wire::wal_push::{ToAcceptor, ToProposer};
use quorum::{Action, EndpointEpoch, Ticket};
use tokio::sync::{oneshot, watch};

use super::Task;
use crate::metrics::metrics;
use crate::timeline::{Answers, Position, TimelineError};

/// A batch with more WAL is carried out before more is taken.
const BATCH_BYTES: usize = 4 << 20;

/// What waits for a write.
#[derive(Default)]
pub(super) struct Batch {
    /// WAL without a gap, and the ticket of its last piece.
    wal: Vec<Bytes>,
    at: Lsn,
    bytes: usize,
    ticket: Ticket,
    answers: Vec<Answer>,
}

struct Answer {
    to: Option<oneshot::Sender<Answers>>,
    messages: Vec<(ToProposer, Option<Ticket>)>,
    refusal: Option<crate::timeline::Refused>,
}

impl Batch {
    pub(super) fn is_large(&self) -> bool {
        self.bytes >= BATCH_BYTES
    }

    fn end(&self) -> Lsn {
        Lsn(self.at.0.saturating_add(self.bytes as u64))
    }

    fn open(&mut self, to: Option<oneshot::Sender<Answers>>) {
        self.answers.push(Answer {
            to,
            messages: Vec::new(),
            refusal: None,
        });
    }

    fn push(&mut self, at: Lsn, wal: Bytes, ticket: Ticket) {
        if self.wal.is_empty() {
            self.at = at;
        }
        self.bytes += wal.len();
        self.wal.push(wal);
        self.ticket = ticket;
    }

    fn take(&mut self) -> Bytes {
        let bytes = std::mem::take(&mut self.bytes);
        let mut pieces = std::mem::take(&mut self.wal);
        if pieces.len() == 1 {
            return pieces.pop().unwrap_or_default();
        }
        let mut joined = BytesMut::with_capacity(bytes);
        pieces
            .iter()
            .for_each(|piece| joined.extend_from_slice(piece));
        joined.freeze()
    }
}

impl Task {
    /// Actions that nobody waits for.
    pub(super) async fn perform(&mut self, actions: Vec<Action>) -> Result<(), TimelineError> {
        let mut batch = Batch::default();
        batch.open(None);
        self.act(actions, &mut batch).await?;
        self.settle(&mut batch).await
    }

    pub(super) async fn message(
        &mut self,
        epoch: EndpointEpoch,
        mut message: ToAcceptor,
        to: oneshot::Sender<Answers>,
        batch: &mut Batch,
    ) -> Result<(), TimelineError> {
        batch.open(Some(to));
        if matches!(message, ToAcceptor::Append(_)) {
            metrics().appends.inc();
        }
        if let Err(error) = self.frame(&mut message) {
            if let Some(answer) = batch.answers.last_mut() {
                answer.refusal = Some(error.into());
            }
            return Ok(());
        }
        let mut actions = Vec::new();
        self.acceptor.handle(epoch, message, &mut actions);
        self.act(actions, batch).await
    }

    /// Writes what is left and gives all answers, in their order (T1).
    pub(super) async fn finish(
        &mut self,
        batch: &mut Batch,
        publish: &watch::Sender<Position>,
    ) -> Result<(), TimelineError> {
        self.settle(batch).await?;
        let now = self.position();
        publish.send_if_modified(|position| std::mem::replace(position, now) != now);
        for answer in std::mem::take(&mut batch.answers) {
            let mut messages = Vec::with_capacity(answer.messages.len());
            for (message, after) in answer.messages {
                if let Some(ticket) = after.filter(|t| *t > self.durable) {
                    return Err(TimelineError::Overtaken(ticket));
                }
                messages.push(message);
            }
            let refusal = answer.refusal;
            if let Some(to) = answer.to {
                // The connection may be gone.
                drop(to.send(Answers { messages, refusal }));
            }
        }
        Ok(())
    }

    async fn act(&mut self, actions: Vec<Action>, batch: &mut Batch) -> Result<(), TimelineError> {
        let mut todo = VecDeque::from(actions);
        while let Some(action) = todo.pop_front() {
            match action {
                Action::Append { ticket, at, wal } => {
                    if batch.end() != at && !batch.wal.is_empty() {
                        todo.extend(self.write(batch).await?);
                    }
                    batch.push(at, wal, ticket);
                }
                Action::Truncate { ticket, to, term } => {
                    todo.extend(self.write(batch).await?);
                    self.truncate(to, term).await?;
                    todo.extend(self.done(ticket));
                }
                Action::Persist { ticket, state } => {
                    todo.extend(self.write(batch).await?);
                    self.persist(*state).await?;
                    todo.extend(self.done(ticket));
                }
                Action::Send { message, after } => {
                    if let Some(answer) = batch.answers.last_mut() {
                        answer.messages.push((message, after));
                    }
                }
                Action::Close(refusal) => {
                    if let Some(answer) = batch.answers.last_mut() {
                        answer.refusal = Some(refusal.into());
                    }
                }
            }
        }
        Ok(())
    }

    async fn settle(&mut self, batch: &mut Batch) -> Result<(), TimelineError> {
        let more = self.write(batch).await?;
        self.act(more, batch).await?;
        debug_assert!(batch.wal.is_empty(), "what follows a write is no WAL");
        Ok(())
    }

    async fn write(&mut self, batch: &mut Batch) -> Result<Vec<Action>, TimelineError> {
        if batch.wal.is_empty() {
            return Ok(Vec::new());
        }
        let (at, ticket) = (batch.at, batch.ticket);
        let wal = batch.take();
        self.append(at, &wal).await?;
        Ok(self.done(ticket))
    }

    fn done(&mut self, ticket: Ticket) -> Vec<Action> {
        self.durable = ticket;
        let mut more = Vec::new();
        self.acceptor.on_persisted(ticket, &mut more);
        more
    }
}
