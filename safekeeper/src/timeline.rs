//! One timeline: a task that does what its acceptor asks for, one action after the other.
//!
//!   T1  actions are done in their order, so a ticket is durable before a later answer goes out;
//!   T2  after a write that failed the task ends: the timeline is opened again from the disk;
//!   T3  a doubt about the log is durable before anything on the disk is mended (A5).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ids::{Lsn, NodeId, Term};
use keyring::{KeyError, Keyring, TenantKeys};
use pg::wire::wal_push::{ToAcceptor, ToProposer};
use quorum::{Acceptor, Action, Durable, EndpointEpoch, Refusal, Ticket};
use sealed::log::Anchor;
use service::task::Shutdown;
use tokio::sync::{mpsc, oneshot, watch};

use crate::acceptor_record::{AcceptorRecord, RecordAccessError, RecordFile};
use crate::wal_store::{DiskError, OpenError, Place, ReadError, StoreAnchor, WalStore, WriteError};

/// Requests that wait for the task.
const QUEUE: usize = 64;
/// How far the stored commit position lags at most, while requests come in.
const STORE_COMMIT: Duration = Duration::from_secs(1);
/// The anchor of a timeline whose log has not begun: epochs of a log count from 1.
const NO_LOG: StoreAnchor = StoreAnchor {
    segment: 0,
    log: Anchor {
        epoch: 0,
        epoch_salt: [0; 32],
        term: Term(0),
        commit_lsn: Lsn::INVALID,
    },
};

/// Why a timeline cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TimelineError {
    /// The tenant's keys cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The acceptor's record.
    #[error(transparent)]
    Record(#[from] RecordAccessError),
    /// The log was not opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The log was not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no log yet.
    #[error("the timeline has no WAL yet")]
    NoLog,
    /// The task has ended (T2).
    #[error("the timeline was closed; connect again")]
    Closed,
    /// A bug: an answer was to overtake a write (T1).
    #[error("an answer was to be given before its write {0:?}")]
    Overtaken(Ticket),
}

/// How far a timeline is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// The highest term promised.
    pub term: Term,
    /// The durable end of the log.
    pub flush: Lsn,
    /// What is committed.
    pub commit: Lsn,
}

/// What a message of a proposer led to.
#[derive(Debug, Default)]
pub struct Answers {
    /// To be sent.
    pub messages: Vec<ToProposer>,
    /// The connection ends with this.
    pub refusal: Option<Refusal>,
}

/// A timeline that runs. Clones are the same.
#[derive(Clone, Debug)]
pub struct Timeline {
    requests: mpsc::Sender<Request>,
    position: watch::Receiver<Position>,
}

#[derive(Debug)]
enum Request {
    Message(ToAcceptor, oneshot::Sender<Answers>),
    Read(Range<Lsn>, oneshot::Sender<Result<Bytes, TimelineError>>),
}

impl Timeline {
    /// Takes a timeline up from the disk, or makes it where there is none.
    ///
    /// # Errors
    /// A timeline whose log is in doubt is refused, after the doubt is stored (T3).
    pub async fn open(
        place: Place,
        state: state::State,
        ring: Arc<Keyring>,
        shutdown: &Shutdown,
    ) -> Result<Self, TimelineError> {
        let task = Task::open(place, state, ring).await?;
        let (requests, queue) = mpsc::channel(QUEUE);
        let (publish, position) = watch::channel(task.position());
        let stop = shutdown.clone();
        drop(shutdown.spawn("timeline", async move {
            let timeline = task.place.timeline;
            if let Err(error) = task.run(queue, publish, stop).await {
                tracing::error!(%timeline, %error, "timeline closed");
            }
        }));
        Ok(Self { requests, position })
    }

    /// Gives the acceptor one message.
    ///
    /// # Errors
    /// [`TimelineError::Closed`].
    pub async fn handle(&self, message: ToAcceptor) -> Result<Answers, TimelineError> {
        let (answer, answered) = oneshot::channel();
        self.request(Request::Message(message, answer)).await?;
        answered.await.map_err(|_| TimelineError::Closed)
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

    /// How far it is, now and later.
    #[must_use]
    pub fn position(&self) -> watch::Receiver<Position> {
        self.position.clone()
    }

    /// Whether its task has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    async fn request(&self, request: Request) -> Result<(), TimelineError> {
        let sent = self.requests.send(request).await;
        sent.map_err(|_| TimelineError::Closed)
    }
}

struct Task {
    place: Place,
    ring: Arc<Keyring>,
    acceptor: Acceptor,
    record: RecordFile,
    store: Option<WalStore>,
    durable: Ticket,
}

impl Task {
    async fn open(
        place: Place,
        state: state::State,
        ring: Arc<Keyring>,
    ) -> Result<Self, TimelineError> {
        let keys = ring.tenant(place.tenant).await?;
        let (node, timeline) = (place.node, place.timeline);
        let loaded = RecordFile::load(state.clone(), node, timeline, &keys).await?;
        let (record, kept) = match loaded {
            Some(loaded) => loaded,
            None => {
                let first = AcceptorRecord {
                    durable: Durable::default(),
                    anchor: NO_LOG,
                };
                let made = RecordFile::create(state, node, timeline, &keys, &first).await?;
                (made, first)
            }
        };
        let store = match kept.anchor == NO_LOG {
            true => unnamed_wal(&place, keys).await.map(Err),
            false => Some(WalStore::open(place.clone(), keys, Some(&kept.anchor)).await),
        };
        match store {
            Some(Err(error)) if is_doubt(&error) || matches!(error, OpenError::Exists(_)) => {
                store_doubt(node, record, kept).await?;
                Err(error.into())
            }
            store => {
                let store = store.transpose()?;
                Self::restore(place, ring, record, kept.durable, store).await
            }
        }
    }

    async fn restore(
        place: Place,
        ring: Arc<Keyring>,
        record: RecordFile,
        durable: Durable,
        store: Option<WalStore>,
    ) -> Result<Self, TimelineError> {
        let flush = store.as_ref().and_then(WalStore::end_lsn);
        let flush = flush.unwrap_or(Lsn::INVALID);
        let mut task = Self {
            acceptor: Acceptor::restore(place.node, durable, flush, false),
            place,
            ring,
            record,
            store,
            durable: Ticket(0),
        };
        let mut actions = Vec::new();
        task.acceptor.on_restored(&mut actions);
        task.perform(actions).await?;
        Ok(task)
    }

    async fn run(
        mut self,
        mut queue: mpsc::Receiver<Request>,
        publish: watch::Sender<Position>,
        stop: Shutdown,
    ) -> Result<(), TimelineError> {
        let mut tick = tokio::time::interval(STORE_COMMIT);
        loop {
            tokio::select! {
                () = stop.requested() => break,
                _ = tick.tick() => self.store_commit().await?,
                request = queue.recv() => match request {
                    None => break,
                    Some(Request::Message(message, answer)) => {
                        let answers = self.message(message).await?;
                        publish.send_replace(self.position());
                        // The connection may be gone.
                        drop(answer.send(answers));
                    }
                    Some(Request::Read(range, answer)) => {
                        drop(answer.send(self.read(range).await));
                    }
                },
            }
        }
        self.store_commit().await
    }

    async fn message(&mut self, message: ToAcceptor) -> Result<Answers, TimelineError> {
        let mut actions = Vec::new();
        // No endpoint names its epoch yet (C1).
        self.acceptor
            .handle(EndpointEpoch(0), message, &mut actions);
        self.perform(actions).await
    }

    async fn store_commit(&mut self) -> Result<(), TimelineError> {
        let mut actions = Vec::new();
        self.acceptor.store_commit(&mut actions);
        self.perform(actions).await.map(drop)
    }

    async fn read(&self, range: Range<Lsn>) -> Result<Bytes, TimelineError> {
        let store = self.store.as_ref().ok_or(TimelineError::NoLog)?;
        Ok(store.read(range).await?)
    }

    /// T1
    async fn perform(&mut self, actions: Vec<Action>) -> Result<Answers, TimelineError> {
        let mut answers = Answers::default();
        let mut todo = VecDeque::from(actions);
        while let Some(action) = todo.pop_front() {
            let ticket = match action {
                Action::Append { ticket, at, wal } => {
                    let store = self.store.as_mut().ok_or(TimelineError::NoLog)?;
                    store.append(at, &wal).await?;
                    ticket
                }
                Action::Truncate { ticket, to, term } => {
                    self.truncate(to, term).await?;
                    ticket
                }
                Action::Persist { ticket, state } => {
                    self.persist(*state).await?;
                    ticket
                }
                Action::Send { message, after } => {
                    if let Some(ticket) = after.filter(|t| *t > self.durable) {
                        return Err(TimelineError::Overtaken(ticket));
                    }
                    answers.messages.push(message);
                    continue;
                }
                Action::Close(refusal) => {
                    answers.refusal = Some(refusal);
                    continue;
                }
            };
            self.durable = ticket;
            let mut more = Vec::new();
            self.acceptor.on_persisted(ticket, &mut more);
            todo.extend(more);
        }
        Ok(answers)
    }

    /// The first election makes the log. What an interrupted first election left is not named by
    /// any record, and holds no WAL.
    async fn truncate(&mut self, to: Lsn, term: Term) -> Result<(), TimelineError> {
        if let Some(store) = &mut self.store {
            return Ok(store.truncate(to, term).await?);
        }
        let keys = self.ring.tenant(self.place.tenant).await?;
        let created = WalStore::create(self.place.clone(), keys, to, term).await;
        if let Err(OpenError::Exists(_)) = created {
            self.remove_unnamed().await?;
            let keys = self.ring.tenant(self.place.tenant).await?;
            self.store = Some(WalStore::create(self.place.clone(), keys, to, term).await?);
            return Ok(());
        }
        self.store = Some(created?);
        Ok(())
    }

    async fn remove_unnamed(&self) -> Result<(), TimelineError> {
        let directory = self.place.directory.clone();
        let keys = self.ring.tenant(self.place.tenant).await?;
        let store = WalStore::open(self.place.clone(), keys, None).await?;
        if store.first_lsn() != store.end_lsn() {
            // A record of before the log was put back: not ours to resolve.
            return Err(OpenError::Exists(directory).into());
        }
        drop(store);
        let removed = tokio::fs::remove_dir_all(&directory).await;
        removed.map_err(|source| {
            let what = "remove";
            let path = directory;
            let error = DiskError { what, path, source };
            OpenError::Disk(error).into()
        })
    }

    async fn persist(&mut self, durable: Durable) -> Result<(), TimelineError> {
        let anchor = match &self.store {
            None => NO_LOG,
            Some(store) => store.anchor(durable.commit).ok_or(WriteError::Dead)?,
        };
        let record = AcceptorRecord { durable, anchor };
        Ok(self.record.save(&record).await?)
    }

    fn position(&self) -> Position {
        let state = self.acceptor.state();
        Position {
            term: state.term,
            flush: self.acceptor.flush(),
            commit: state.commit,
        }
    }
}

/// T3: the log stays as it is, and so does the anchor that it failed.
async fn store_doubt(
    node: NodeId,
    mut file: RecordFile,
    kept: AcceptorRecord,
) -> Result<(), TimelineError> {
    let mut acceptor = Acceptor::restore(node, kept.durable, Lsn::INVALID, true);
    let mut actions = Vec::new();
    acceptor.on_restored(&mut actions);
    for action in actions {
        if let Action::Persist { state, .. } = action {
            let record = AcceptorRecord {
                durable: *state,
                anchor: kept.anchor,
            };
            file.save(&record).await?;
        }
    }
    Ok(())
}

/// Whether the log is not what it was; a disk or key that fails may answer again later.
/// What forbids to take a timeline without a record of its log for a new one: WAL that lies there
/// says that the record was lost or set back, and a vote without it could lose commits (A5,
/// FORMAT.md part 6). What an interrupted first election left holds no WAL.
async fn unnamed_wal(place: &Place, keys: TenantKeys) -> Option<OpenError> {
    match tokio::fs::try_exists(&place.directory).await {
        Ok(false) => return None,
        Ok(true) => {}
        Err(_) => return Some(OpenError::Exists(place.directory.clone())),
    }
    match WalStore::open(place.clone(), keys, None).await {
        Ok(store) if store.first_lsn() == store.end_lsn() => None,
        Ok(_) => Some(OpenError::Exists(place.directory.clone())),
        Err(OpenError::Empty(_)) => None,
        Err(error) => Some(error),
    }
}

fn is_doubt(error: &OpenError) -> bool {
    match error {
        OpenError::Empty(_)
        | OpenError::Header { .. }
        | OpenError::Damaged { .. }
        | OpenError::Hole { .. }
        | OpenError::Replaced { .. }
        | OpenError::Lost(_) => true,
        OpenError::Disk(_)
        | OpenError::Key(_)
        | OpenError::InUse(_)
        | OpenError::Exists(_)
        | OpenError::Resume(_) => false,
    }
}
