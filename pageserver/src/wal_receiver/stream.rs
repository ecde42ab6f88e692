//! One stream of WAL: messages in, values out, and word of how far we are.

use std::time::Duration;

use bytes::Bytes;
use ids::Lsn;
use pg::wire::replication::{FromReceiver, FromSender};
use pg::wire::wal_push::PageserverFeedback;
use service::libpq::WireError;
use service::libpq::client::CopyStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{Safekeepers, StreamEnd};
use crate::backoff::Backoff;
use crate::ingest::IngestStream;
use crate::metrics;
use crate::tenants::{Attached, Node};

/// How often it is looked at whether the safekeeper is silent.
const LOOK: Duration = Duration::from_secs(1);
/// While WAL comes, how often we say how far we are. Otherwise that is an answer to what the
/// safekeeper says each second: one that hears from us all the time might not say anything.
const REPORT: Duration = Duration::from_secs(1);
/// A safekeeper sends something each second.
const SILENCE: Duration = Duration::from_secs(5);
/// Without WAL for so long, the others are asked for some.
const IDLE: Duration = Duration::from_secs(5);
/// Seconds from 1970 to 2000.
const POSTGRES_EPOCH: u64 = 946_684_800;

/// A stream that runs.
pub(super) struct Stream<'a> {
    node: &'a Node,
    attached: &'a Attached,
    copy: CopyStream,
    ingest: &'a mut IngestStream,
    heard: Instant,
    moved: Instant,
    reported: Instant,
    /// The safekeeper has said that there is no more than what came.
    is_all: bool,
}

impl<'a> Stream<'a> {
    pub(super) fn new(
        node: &'a Node,
        attached: &'a Attached,
        copy: CopyStream,
        ingest: &'a mut IngestStream,
    ) -> Self {
        let now = Instant::now();
        Self {
            node,
            attached,
            copy,
            ingest,
            heard: now,
            moved: now,
            reported: now,
            is_all: false,
        }
    }

    /// Where the next WAL begins.
    pub(super) fn position(&self) -> Lsn {
        self.ingest.position()
    }

    /// Where a record begins that does not come as a whole: the safekeeper says that it has sent
    /// all. Where we have not taken what it sends, nothing is known.
    pub(super) fn unfinished(&self) -> Option<Lsn> {
        self.ingest.unfinished().filter(|_| self.is_all)
    }

    /// Takes in what comes until that has an end; it can be called again after
    /// [`StreamEnd::Idle`].
    pub(super) async fn run(
        &mut self,
        safekeepers: &mut Safekeepers,
        backoff: &mut Backoff,
    ) -> StreamEnd {
        if let Err(ended) = self.report().await {
            return ended;
        }
        match self.receive(safekeepers, backoff).await {
            Ok(()) => WireError::Closed.into(),
            Err(ended) => ended,
        }
    }

    async fn receive(
        &mut self,
        safekeepers: &mut Safekeepers,
        backoff: &mut Backoff,
    ) -> Result<(), StreamEnd> {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // What does not reach the bucket stays with the safekeepers, and not in memory.
            let congested = self.attached.is_congested(self.node);
            tokio::select! {
                message = self.copy.read_copy(), if !congested => {
                    let Some(message) = message? else { return Ok(()) };
                    self.heard = Instant::now();
                    if self.take(message).await? {
                        backoff.reset();
                    }
                    // What it took us to take it in was not silence.
                    self.heard = Instant::now();
                }
                _ = tick.tick() => {
                    if congested {
                        (self.heard, self.moved) = (Instant::now(), Instant::now());
                    }
                    if self.heard.elapsed() > SILENCE {
                        return Err(StreamEnd::Silent(SILENCE));
                    }
                    if self.moved.elapsed() > IDLE {
                        self.moved = Instant::now();
                        return Err(StreamEnd::Idle);
                    }
                }
                () = self.attached.flushed.notified() => self.report().await?,
                // It cannot fail: the sender lives in the attachment.
                _ = safekeepers.changed() => return Err(StreamEnd::Replaced),
            }
        }
    }

    /// One message; whether there was WAL in it.
    async fn take(&mut self, message: Bytes) -> Result<bool, StreamEnd> {
        match FromSender::decode(message)? {
            FromSender::Keepalive { end, .. } => {
                self.is_all = end <= self.ingest.position();
                self.report().await?;
                Ok(false)
            }
            FromSender::XLogData { start, wal, .. } => {
                self.is_all = false;
                let expected = self.ingest.position();
                let Some(known) = expected.checked_sub(start) else {
                    let got = start;
                    return Err(StreamEnd::Gap { expected, got });
                };
                // A safekeeper may send from the beginning of a page.
                let known = usize::try_from(known).unwrap_or(usize::MAX);
                let Some(fresh) = wal.get(known..).filter(|fresh| !fresh.is_empty()) else {
                    return Ok(false);
                };
                self.ingest.feed(expected, fresh).await?;
                metrics::ingested(fresh.len());
                self.moved = Instant::now();
                if self.reported.elapsed() >= REPORT {
                    self.report().await?;
                }
                Ok(true)
            }
        }
    }

    /// Says how far we are: once as a standby does, once as a page server does.
    async fn report(&mut self) -> Result<(), StreamEnd> {
        self.reported = Instant::now();
        let timeline = &self.attached.timeline;
        // D2: only what an accepted manifest names is reported, and by nobody who is stale.
        let Ok(remote) = timeline.remote_consistent_lsn() else {
            return Ok(());
        };
        let (received, time) = (self.ingest.position(), now());
        let status = FromReceiver::Status {
            write: received,
            flush: remote,
            apply: remote,
            time,
            reply: false,
        };
        let feedback = PageserverFeedback::new(0, received, remote, remote, time);
        let feedback = FromReceiver::Pageserver(feedback);
        let send = async {
            self.copy.write_copy(&status.encode()).await?;
            self.copy.write_copy(&feedback.encode()).await?;
            self.copy.flush().await
        };
        let sent = timeout(SILENCE, send).await;
        Ok(sent.map_err(|_| StreamEnd::Stuck)??)
    }
}

/// Microseconds since 2000, in steps of a second: receivers only show it.
fn now() -> i64 {
    let seconds = service::clock::unix_seconds().saturating_sub(POSTGRES_EPOCH);
    i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
}
