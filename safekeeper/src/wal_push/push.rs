//! The stream of a proposer: messages are handed on as they come, answers go out in their order.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use ids::{TenantId, Term, TimelineId};
use pg::wire::wal_push::{AppendAnswer, PageserverFeedback, ToAcceptor, ToProposer};
use quorum::EndpointEpoch;
use service::libpq::{Conn, QueryError, WireError};

use tokio::sync::watch;

use super::{PROTOCOL, SYNTAX, UNSUPPORTED, option};
use crate::timeline::{Answers, Pending, Position, Timeline, TimelineError};
use crate::timelines::{AccessError, Timelines};

/// `object_not_in_prerequisite_state`
const SUPERSEDED: &str = "55000";
/// Messages under way. What a proposer sends beyond waits in its socket.
const PENDING: usize = 128;
/// How long a client may take to read why the stream ends.
const LINGER: Duration = Duration::from_secs(1);

/// Answers `START_WAL_PUSH`.
pub(super) async fn run(
    conn: &mut Conn,
    timelines: &Timelines,
    of: (TenantId, TimelineId),
    options: &str,
) -> Result<(), QueryError> {
    if option(options, "proto_version") != Some("3") {
        let message = "only proto_version '3' is supported";
        return Err(QueryError::refused(UNSUPPORTED, message));
    }
    let create = option(options, "allow_timeline_creation") != Some("false");
    let epoch = endpoint_epoch(options)?;
    conn.copy_both().await?;
    let Some(first) = conn.read_copy().await? else {
        return Ok(());
    };
    let first = decode(first)?;
    let ToAcceptor::Greeting(greeting) = &first else {
        return Err(QueryError::refused(PROTOCOL, "a greeting was expected"));
    };
    if (greeting.tenant, greeting.timeline) != of {
        let message = "the greeting names another timeline than the connection";
        return Err(QueryError::refused(PROTOCOL, message));
    }
    let timeline = match timelines.greet(greeting, create).await {
        // Computes tell this case by the connection that closes without an error.
        Err(AccessError::Unknown(_)) => return Err(WireError::Closed.into()),
        greeted => greeted?,
    };
    Stream {
        timeline: &timeline,
        pending: FuturesOrdered::new(),
        last: None,
        term: Term(0),
        epoch,
    }
    .run(conn, first)
    .await?;
    conn.copy_done();
    conn.command_complete("COPY 0");
    Ok(())
}

/// C1. A proposer that counts no starts, as Neon's, is of epoch 0.
fn endpoint_epoch(options: &str) -> Result<EndpointEpoch, QueryError> {
    let Some(epoch) = option(options, "endpoint_epoch") else {
        return Ok(EndpointEpoch::default());
    };
    let bad = |_| QueryError::refused(SYNTAX, "endpoint_epoch is not a number");
    epoch.parse().map(EndpointEpoch).map_err(bad)
}

fn decode(bytes: Bytes) -> Result<ToAcceptor, QueryError> {
    ToAcceptor::decode(bytes).map_err(|e| QueryError::refused(PROTOCOL, e))
}

struct Stream<'a> {
    timeline: &'a Timeline,
    pending: FuturesOrdered<Pending>,
    /// What reports of pageservers are sent with.
    last: Option<AppendAnswer>,
    /// The highest term that this proposer has named.
    term: Term,
    /// Which start of its endpoint it is (C1).
    epoch: EndpointEpoch,
}

impl Stream<'_> {
    async fn run(&mut self, conn: &mut Conn, first: ToAcceptor) -> Result<(), QueryError> {
        let mut feedback = self.timeline.feedback();
        // One that came before this proposer is new to it.
        feedback.mark_changed();
        let mut position = self.timeline.position();
        self.submit(first).await?;
        let mut open = true;
        while open || !self.pending.is_empty() {
            tokio::select! {
                // K6: the proposer is told why.
                ended = self.timeline.ended() => return Err(close(conn, ended.into()).await),
                Some(answers) = self.pending.next(), if !self.pending.is_empty() => {
                    let answers = answers.map_err(|_| TimelineError::Closed);
                    match answers {
                        Ok(answers) => self.answer(conn, answers).await?,
                        Err(_) => {
                            let ended = self.timeline.ended().await;
                            return Err(close(conn, ended.into()).await);
                        }
                    }
                }
                // C1: a compute that was replaced need not write anything to be told. What it asked
                // is answered first, and names the higher term; else it asks on a new connection.
                Ok(now) = superseded(&mut position, self.term),
                    if self.term > Term(0) && self.pending.is_empty() =>
                {
                    let ours = self.term;
                    let message = format!("term {ours} is over: another proposer was given term {now}");
                    let refusal = QueryError::refused(SUPERSEDED, message);
                    return Err(close(conn, refusal).await);
                }
                Ok(()) = feedback.changed(), if self.last.is_some() => {
                    let report = feedback.borrow_and_update().clone();
                    self.report(conn, report).await?;
                }
                message = conn.read_copy(), if open && self.pending.len() < PENDING => {
                    match message? {
                        Some(bytes) => self.submit(decode(bytes)?).await?,
                        None => open = false,
                    }
                }
            }
        }
        Ok(())
    }

    async fn submit(&mut self, message: ToAcceptor) -> Result<(), QueryError> {
        self.term = self.term.max(match &message {
            ToAcceptor::Greeting(_) => Term(0),
            ToAcceptor::Vote(m) => m.term,
            ToAcceptor::Elected(m) => m.term,
            ToAcceptor::Append(m) => m.term,
        });
        match self.timeline.submit(self.epoch, message).await {
            Ok(pending) => self.pending.push_back(pending),
            // Ended: the loop says why.
            Err(_) => return Ok(()),
        }
        Ok(())
    }

    async fn answer(&mut self, conn: &mut Conn, answers: Answers) -> Result<(), QueryError> {
        for message in &answers.messages {
            self.send(conn, message).await?;
            if let ToProposer::Append(answer) = message {
                self.last = Some(answer.clone());
            }
        }
        if let Some(refusal) = answers.refusal {
            return Err(close(conn, refusal.into()).await);
        }
        Ok(conn.flush().await?)
    }

    /// An answer that nobody asked for: the last one, with what a pageserver reports.
    async fn report(
        &self,
        conn: &mut Conn,
        feedback: Option<PageserverFeedback>,
    ) -> Result<(), QueryError> {
        let (Some(last), true) = (&self.last, feedback.is_some()) else {
            return Ok(());
        };
        let answer = AppendAnswer {
            feedback,
            ..last.clone()
        };
        self.send(conn, &ToProposer::Append(answer)).await?;
        Ok(conn.flush().await?)
    }

    async fn send(&self, conn: &mut Conn, message: &ToProposer) -> Result<(), QueryError> {
        // K5: as the acknowledgement leaves.
        if let Err(error) = self.timeline.check() {
            return Err(close(conn, error.into()).await);
        }
        Ok(conn.write_copy(&message.encode()).await?)
    }
}

/// Returns when a term above `term` was voted for or has begun here.
async fn superseded(
    position: &mut watch::Receiver<Position>,
    term: Term,
) -> Result<Term, watch::error::RecvError> {
    let reached = position.wait_for(|position| position.term > term).await?;
    Ok(reached.term)
}

/// An error in a copy is the last that is said on the connection.
async fn close(conn: &mut Conn, error: QueryError) -> QueryError {
    let QueryError::Refused { sqlstate, message } = &error else {
        return error;
    };
    conn.error(sqlstate, message);
    if let Err(error) = conn.flush().await {
        return error.into();
    }
    // What is left unread when a socket closes takes the error with it.
    let rest = async { while let Ok(Some(_)) = conn.read_copy().await {} };
    drop(tokio::time::timeout(LINGER, rest).await);
    WireError::Closed.into()
}
