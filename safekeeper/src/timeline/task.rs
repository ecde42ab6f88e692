//! The task of a timeline.

mod batch;

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use ids::{Lsn, Term};
use keyring::{Operation, TenantKeys};
use pg::PgMajor;
use pg::wal::WalShape;
use pg::wire::wal_push::ToAcceptor;
use quorum::{Acceptor, Durable, Ticket};
use service::clock::boottime;
use service::task::Shutdown;
use tokio::sync::{mpsc, watch};

use super::open::NO_LOG;
use super::{Position, Request, TimelineError};
use crate::acceptor_record::{AcceptorRecord, Progress, RecordFile};
use crate::exposure::Exposure;
use crate::framing::{Framing, FramingError};
use crate::metrics::metrics;
use crate::wal_store::{DiskError, OpenError, Place, ReadError, StoreAnchor, WalStore, WriteError};
use batch::Batch;

/// How far the stored commit position lags at most, and how soon an idle log gets its mark.
const TICK: Duration = Duration::from_secs(1);
/// How long what is committed may be on safekeepers alone before it is reported (D8).
const EXPOSED_MAX: Duration = Duration::from_secs(60);

/// The fields are dropped in their order: the operation last, for which a fence waits (K6).
pub(super) struct Task {
    pub(super) acceptor: Acceptor,
    pub(super) framing: Framing,
    pub(super) record: RecordFile,
    pub(super) store: Option<WalStore>,
    pub(super) durable: Ticket,
    /// As it was stored last.
    pub(super) anchor: StoreAnchor,
    pub(super) progress: Progress,
    pub(super) progress_stored: Progress,
    /// Whether the last frame is not yet followed by one that proves it synced.
    pub(super) unmarked: bool,
    /// In the bucket as the beginning of a segment (D8).
    pub(super) partial: Lsn,
    pub(super) exposure: Exposure,
    pub(super) said_exposed: bool,
    pub(super) place: Place,
    pub(super) keys: TenantKeys,
    pub(super) _operation: Operation,
}

impl Task {
    /// Stores what the acceptor found when it was restored.
    pub(super) async fn begin(&mut self) -> Result<(), TimelineError> {
        let mut actions = Vec::new();
        self.acceptor.on_restored(&mut actions);
        self.perform(actions).await
    }

    pub(super) async fn run(
        mut self,
        queue: mpsc::Receiver<Request>,
        publish: watch::Sender<Position>,
        stop: Shutdown,
    ) -> Result<(), TimelineError> {
        let served = self.serve(queue, publish, stop).await;
        let Err(error) = &served else {
            return self.store_commit().await;
        };
        if matches!(error.ended(), super::Ended::Broken(_)) {
            // T4. Where this cannot be stored either, the process still remembers.
            if let Err(error) = self.doubt().await {
                let timeline = self.place.timeline;
                tracing::error!(%timeline, %error, "a doubt about the log was not stored");
            }
        }
        served
    }

    async fn serve(
        &mut self,
        mut queue: mpsc::Receiver<Request>,
        publish: watch::Sender<Position>,
        stop: Shutdown,
    ) -> Result<(), TimelineError> {
        let keys = self.keys.clone();
        let mut closed = std::pin::pin!(keys.closed());
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                biased;
                // T6
                why = &mut closed => return Err(why.into()),
                () = stop.requested() => return Ok(()),
                _ = tick.tick() => self.tick().await?,
                request = queue.recv() => match request {
                    None => return Ok(()),
                    Some(first) => self.requests(first, &mut queue, &publish).await?,
                },
            }
            let now = self.position();
            publish.send_if_modified(|position| std::mem::replace(position, now) != now);
        }
    }

    /// T5: all that waits, in its order.
    async fn requests(
        &mut self,
        first: Request,
        queue: &mut mpsc::Receiver<Request>,
        publish: &watch::Sender<Position>,
    ) -> Result<(), TimelineError> {
        let mut batch = Batch::default();
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Message(epoch, message, answer) => {
                    self.message(epoch, message, answer, &mut batch).await?;
                }
                Request::Read(range, answer) => {
                    let read = self.read(range).await;
                    if matches!(read, Err(TimelineError::Read(ReadError::Damaged { .. }))) {
                        // A5: before anybody hears of it.
                        self.finish(&mut batch, publish).await?;
                        self.doubt().await?;
                    }
                    // The reader may be gone.
                    drop(answer.send(read));
                }
                Request::BackedUp(lsn, answer) => {
                    // T1: what is stored here must not overtake the batch.
                    self.finish(&mut batch, publish).await?;
                    self.progress.backup = self.progress.backup.max(lsn);
                    self.store_commit().await?;
                    self.trim().await?;
                    // Where the asker is gone nobody needs to know.
                    answer.send(()).unwrap_or_default();
                }
                Request::Leave(answer) => {
                    let state = self.acceptor.state();
                    let doubted = state.learner && !state.copying;
                    // Where the asker is gone nobody needs to know.
                    answer.send(doubted).unwrap_or_default();
                    if doubted {
                        self.finish(&mut batch, publish).await?;
                        return Err(TimelineError::Closed);
                    }
                }
                Request::PartlyBackedUp(lsn) => {
                    self.partial = self.partial.max(lsn);
                    self.watch_tail();
                }
                Request::RemoteConsistent(lsn) => {
                    // A report may be of WAL that has not come here.
                    let known = lsn.min(self.acceptor.state().commit);
                    self.progress.remote_consistent = self.progress.remote_consistent.max(known);
                }
            }
            next = match batch.is_large() {
                true => None,
                false => queue.try_recv().ok(),
            };
        }
        self.finish(&mut batch, publish).await
    }

    /// What the proposer says of its cluster, and WAL cut at the ends of records.
    fn frame(&mut self, message: &mut ToAcceptor) -> Result<(), FramingError> {
        match message {
            ToAcceptor::Greeting(m) => {
                if let (Ok(version), true) = (PgMajor::from_number(m.pg_version), m.system_id != 0)
                {
                    self.framing.set_shape(WalShape {
                        version,
                        segment_bytes: m.wal_segment_bytes.into(),
                        system_id: m.system_id,
                        tli: 1,
                    });
                }
            }
            ToAcceptor::Vote(_) => {}
            // The log may end elsewhere now.
            ToAcceptor::Elected(_) => self.framing.reset(),
            ToAcceptor::Append(m) if self.acceptor.follows(m.generation, m.term) => {
                let end = self.acceptor.write();
                if let Some(whole) = self.framing.take(end, m.begin, &m.wal)? {
                    (m.begin, m.wal) = (whole.begin, whole.wal);
                }
            }
            // Answered with the term of now, or refused.
            ToAcceptor::Append(_) => {}
        }
        Ok(())
    }

    async fn read(&self, range: Range<Lsn>) -> Result<Bytes, TimelineError> {
        let store = self.store.as_ref().ok_or(TimelineError::NoLog)?;
        Ok(store.read(range).await?)
    }

    async fn doubt(&mut self) -> Result<(), TimelineError> {
        let timeline = self.place.timeline;
        metrics().doubts.inc();
        tracing::error!(%timeline, "the log is in doubt: this node is a learner of the timeline");
        let mut actions = Vec::new();
        self.acceptor.doubt(&mut actions);
        self.perform(actions).await
    }

    async fn tick(&mut self) -> Result<(), TimelineError> {
        // K5: a lease that nobody renewed ends without a word.
        self.keys.check()?;
        self.store_commit().await?;
        self.trim().await?;
        self.mark().await?;
        self.watch_tail();
        Ok(())
    }

    /// An idle log gets a frame without WAL behind its last one, which is provably synced then.
    async fn mark(&mut self) -> Result<(), TimelineError> {
        let Some(store) = self.store.as_mut().filter(|_| self.unmarked) else {
            return Ok(());
        };
        let end = store.end_lsn().ok_or(WriteError::Dead)?;
        store.append(end, &[]).await?;
        self.unmarked = false;
        Ok(())
    }

    /// D8: keeps count of what is on safekeepers alone, and says so where that lasts.
    fn watch_tail(&mut self) {
        let commit = self.acceptor.state().commit;
        let Progress {
            backup,
            remote_consistent,
            ..
        } = self.progress;
        // A log that has only begun holds nothing yet.
        let first = self.store.as_ref().and_then(WalStore::first_lsn);
        let covered = backup.max(remote_consistent).max(self.partial);
        let covered = covered.max(first.unwrap_or_default());
        let now = boottime();
        self.exposure.note(commit, covered, now);
        let long = |since| now.saturating_sub(since) >= EXPOSED_MAX;
        let long = self.exposure.since().is_some_and(long);
        if long && !self.said_exposed {
            let timeline = self.place.timeline;
            tracing::warn!(%timeline, %commit, %covered,
                "committed WAL is not in the bucket after a minute");
        }
        self.said_exposed = long;
    }

    async fn store_commit(&mut self) -> Result<(), TimelineError> {
        let mut actions = Vec::new();
        self.acceptor.store_commit(&mut actions);
        if actions.is_empty() && self.progress != self.progress_stored {
            return self.persist(self.acceptor.state().clone()).await;
        }
        self.perform(actions).await
    }

    /// Removes segments that are in the bucket both as segments and as layers.
    async fn trim(&mut self) -> Result<(), TimelineError> {
        let Progress {
            backup,
            remote_consistent,
            ..
        } = self.progress;
        let commit = self.acceptor.state().commit;
        let below = backup.min(remote_consistent).min(commit);
        if !self.store.as_ref().is_some_and(|s| s.has_below(below)) {
            return Ok(());
        }
        // First what explains that they are gone, with the segment of now as anchor.
        self.progress.trimmed = self.progress.trimmed.max(below);
        self.persist(self.acceptor.state().clone()).await?;
        if let Some(store) = &mut self.store {
            store.trim(below).await.map_err(WriteError::Disk)?;
        }
        Ok(())
    }

    async fn append(&mut self, at: Lsn, wal: &[u8]) -> Result<(), TimelineError> {
        let store = self.store.as_mut().ok_or(TimelineError::NoLog)?;
        store.append(at, wal).await?;
        metrics().wal_writes.inc();
        metrics().wal_bytes.inc_by(wal.len() as u64);
        self.unmarked = true;
        Ok(())
    }

    /// The first election makes the log. What an interrupted first election left is not named by
    /// any record, and holds no WAL.
    async fn truncate(&mut self, to: Lsn, term: Term) -> Result<(), TimelineError> {
        self.framing.reset();
        if let Some(store) = &mut self.store {
            return Ok(store.truncate(to, term).await?);
        }
        let (place, keys) = (self.place.clone(), self.keys.clone());
        let created = WalStore::create(place, keys, to, term).await;
        if let Err(OpenError::Exists(_)) = created {
            self.remove_unnamed().await?;
            let (place, keys) = (self.place.clone(), self.keys.clone());
            self.store = Some(WalStore::create(place, keys, to, term).await?);
            return Ok(());
        }
        self.store = Some(created?);
        Ok(())
    }

    async fn remove_unnamed(&self) -> Result<(), TimelineError> {
        let directory = self.place.directory.clone();
        let store = WalStore::open(self.place.clone(), self.keys.clone(), None).await?;
        if store.first_lsn() != store.end_lsn() {
            // A record of before the log was put back: not ours to resolve.
            return Err(OpenError::Exists(directory).into());
        }
        drop(store);
        let removed = tokio::fs::remove_dir_all(&directory).await;
        removed.map_err(|source| {
            OpenError::Disk(DiskError {
                what: "remove",
                path: directory,
                unsynced: false,
                source,
            })
            .into()
        })
    }

    async fn persist(&mut self, durable: Durable) -> Result<(), TimelineError> {
        let anchor = match &self.store {
            None => NO_LOG,
            // A log that failed keeps the anchor it had, to be measured by (A5).
            Some(store) => store.anchor(durable.commit).unwrap_or(self.anchor),
        };
        let progress = self.progress;
        let record = AcceptorRecord {
            durable,
            anchor,
            progress,
        };
        self.record.save(&record).await?;
        (self.anchor, self.progress_stored) = (anchor, progress);
        Ok(())
    }

    pub(super) fn position(&self) -> Position {
        let state = self.acceptor.state();
        let first = self.store.as_ref().and_then(WalStore::first_lsn);
        Position {
            term: state.term,
            first: first.unwrap_or_default(),
            flush: self.acceptor.flush(),
            commit: state.commit,
            backup: self.progress.backup,
            remote_consistent: self.progress.remote_consistent,
            partial: self.partial,
            exposed: self.exposure.since(),
        }
    }
}
