//! One timeline: a task that does what its acceptor asks for, one action after the other.
//!
//!   T1  an answer goes out only when its ticket is durable, and answers keep their order;
//!   T2  after a write that failed the task ends: the timeline is opened again from the disk;
//!   T3  a doubt about the log is durable before anything on the disk is mended (A5);
//!   T4  after a sync that failed this node is a learner, and the process does not open the
//!       timeline again: the page cache would prove what the disk does not have;
//!   T5  messages that wait share one frame and one sync;
//!   T6  when the keys are closed the task ends and takes everything derived from them with it
//!       (K6); answers and WAL leave only while the keys are open (K5).

mod error;
mod open;
mod task;

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use ids::{Lsn, Term};
use keyring::{Keyring, TenantKeys};
use pg::wire::wal_push::{PageserverFeedback, ToAcceptor, ToProposer};
use quorum::EndpointEpoch;
use service::task::Shutdown;
use tokio::sync::{mpsc, oneshot, watch};

pub use error::{Ended, Refused, TimelineError};

use crate::framing::Framing;
use crate::wal_store::Place;
use task::Task;

/// Requests that wait for the task.
const QUEUE: usize = 256;

/// How far a timeline is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// The highest term promised.
    pub term: Term,
    /// The first position of the log.
    pub first: Lsn,
    /// The durable end of the log.
    pub flush: Lsn,
    /// What is committed.
    pub commit: Lsn,
    /// In the bucket as segments up to here.
    pub backup: Lsn,
    /// In the bucket as layers up to here.
    pub remote_consistent: Lsn,
    /// In the bucket as the beginning of a segment up to here, as far as this process knows.
    pub partial: Lsn,
    /// Since when the oldest committed WAL is in none of these ways in the bucket, in the time
    /// since boot (D8).
    pub exposed: Option<Duration>,
}

/// What a message of a proposer led to.
#[derive(Debug, Default)]
pub struct Answers {
    /// To be sent.
    pub messages: Vec<ToProposer>,
    /// The connection ends with this.
    pub refusal: Option<Refused>,
}

/// An answer that is on its way.
pub type Pending = oneshot::Receiver<Answers>;

/// A timeline that runs. Clones are the same.
#[derive(Clone)]
pub struct Timeline {
    place: Place,
    keys: TenantKeys,
    requests: mpsc::Sender<Request>,
    position: watch::Receiver<Position>,
    ended: watch::Receiver<Option<Ended>>,
    feedback: watch::Sender<Option<PageserverFeedback>>,
}

enum Request {
    Message(EndpointEpoch, ToAcceptor, oneshot::Sender<Answers>),
    Read(Range<Lsn>, oneshot::Sender<Result<Bytes, TimelineError>>),
    BackedUp(Lsn, oneshot::Sender<()>),
    PartlyBackedUp(Lsn),
    RemoteConsistent(Lsn),
    Leave(oneshot::Sender<bool>),
}

impl Timeline {
    /// Takes a timeline up from the disk, or makes it where there is none.
    ///
    /// # Errors
    /// A timeline whose log is in doubt is refused, after the doubt is stored (T3). With `anew` such
    /// a log is set aside and an empty one is begun.
    pub async fn open(
        place: Place,
        framing: Framing,
        state: state::State,
        ring: &Keyring,
        shutdown: &Shutdown,
        anew: bool,
    ) -> Result<Self, TimelineError> {
        let keys = ring.tenant(place.tenant).await?;
        let task = Task::open(place.clone(), framing, state, keys.clone(), anew).await?;
        let (requests, queue) = mpsc::channel(QUEUE);
        let (publish, position) = watch::channel(task.position());
        let (end, ended) = watch::channel(None);
        let stop = shutdown.clone();
        let timeline = place.timeline;
        drop(shutdown.spawn("timeline", async move {
            let why = match task.run(queue, publish, stop).await {
                Ok(()) => Ended::Stopped,
                Err(error) => {
                    tracing::error!(%timeline, %error, "timeline closed");
                    error.ended()
                }
            };
            // By now everything derived from the keys is gone (T6).
            end.send_replace(Some(why));
        }));
        Ok(Self {
            place,
            keys,
            requests,
            position,
            ended,
            feedback: watch::Sender::new(None),
        })
    }

    /// Whose it is, and where.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// The keys under which it was opened.
    #[must_use]
    pub const fn keys(&self) -> &TenantKeys {
        &self.keys
    }

    /// Hands the acceptor one message of a proposer of this epoch (C1). The answers come in the
    /// order of the messages.
    ///
    /// # Errors
    /// [`TimelineError::Closed`].
    pub async fn submit(
        &self,
        epoch: EndpointEpoch,
        message: ToAcceptor,
    ) -> Result<Pending, TimelineError> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Message(epoch, message, answer);
        self.request(request).await?;
        Ok(answered)
    }

    /// Reads WAL.
    ///
    /// # Errors
    /// [`TimelineError::Read`] where it is not kept or damaged.
    pub async fn read(&self, range: Range<Lsn>) -> Result<Bytes, TimelineError> {
        let (answer, answered) = oneshot::channel();
        self.request(Request::Read(range, answer)).await?;
        answered.await.map_err(|_| TimelineError::Closed)?
    }

    /// Tells that the bucket has all segments up to `lsn`; durable when it returns.
    ///
    /// # Errors
    /// [`TimelineError::Closed`].
    pub async fn backed_up(&self, lsn: Lsn) -> Result<(), TimelineError> {
        let (answer, answered) = oneshot::channel();
        self.request(Request::BackedUp(lsn, answer)).await?;
        answered.await.map_err(|_| TimelineError::Closed)
    }

    /// Tells that the bucket has the beginning of a segment up to `lsn` (D8).
    ///
    /// # Errors
    /// [`TimelineError::Closed`].
    pub async fn partly_backed_up(&self, lsn: Lsn) -> Result<(), TimelineError> {
        self.request(Request::PartlyBackedUp(lsn)).await
    }

    /// Ends the task where its log is in doubt, and answers whether it is.
    ///
    /// # Errors
    /// [`TimelineError::Closed`].
    pub async fn leave(&self) -> Result<bool, TimelineError> {
        let (answer, answered) = oneshot::channel();
        self.request(Request::Leave(answer)).await?;
        answered.await.map_err(|_| TimelineError::Closed)
    }

    /// Takes the report of a pageserver.
    ///
    /// # Errors
    /// [`TimelineError::Closed`].
    pub async fn report(&self, feedback: PageserverFeedback) -> Result<(), TimelineError> {
        let remote = feedback.remote_consistent().unwrap_or_default();
        self.feedback.send_replace(Some(feedback));
        if remote > self.position.borrow().remote_consistent {
            self.request(Request::RemoteConsistent(remote)).await?;
        }
        Ok(())
    }

    /// What pageservers report, now and later.
    #[must_use]
    pub fn feedback(&self) -> watch::Receiver<Option<PageserverFeedback>> {
        self.feedback.subscribe()
    }

    /// How far it is, now and later.
    #[must_use]
    pub fn position(&self) -> watch::Receiver<Position> {
        self.position.clone()
    }

    /// Whether answers and WAL may leave (K5).
    ///
    /// # Errors
    /// [`TimelineError::Key`].
    pub fn check(&self) -> Result<(), TimelineError> {
        Ok(self.keys.check()?)
    }

    /// Why its task has ended, once it has.
    #[must_use]
    pub fn end(&self) -> Option<Ended> {
        self.ended.borrow().clone()
    }

    /// Resolves with the reason when the keys are closed or the task has ended.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        let task = async {
            match ended.wait_for(Option::is_some).await {
                Ok(why) => why.clone().unwrap_or(Ended::Stopped),
                Err(_) => Ended::Stopped,
            }
        };
        tokio::select! {
            key = self.keys.closed() => Ended::Key(key),
            why = task => why,
        }
    }

    /// Resolves when its task has ended, and nothing derived from the keys is left.
    pub async fn stopped(&self) {
        let mut ended = self.ended.clone();
        // An error says that the task is gone too.
        drop(ended.wait_for(Option::is_some).await);
    }

    async fn request(&self, request: Request) -> Result<(), TimelineError> {
        let sent = self.requests.send(request).await;
        sent.map_err(|_| TimelineError::Closed)
    }
}
