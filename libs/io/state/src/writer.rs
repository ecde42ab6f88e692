//! One thread writes: what waits for it is written and synced together.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rocksdb::{DB, WriteBatch, WriteOptions};
use tokio::sync::{mpsc, oneshot};

use crate::StateError;
use crate::table::{Batch, Change};

/// Batches that wait at most; more wait in their own tasks.
const WAITING: usize = 1024;

struct Request {
    batch: Batch,
    done: oneshot::Sender<Result<(), StateError>>,
}

pub(crate) struct Writer {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(db: Arc<DB>) -> io::Result<Self> {
        let (requests, waiting) = mpsc::channel(WAITING);
        let thread = thread::Builder::new()
            .name("state writer".to_owned())
            .spawn(|| run(db, waiting))?;
        Ok(Self {
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    pub(crate) async fn commit(&self, batch: Batch) -> Result<(), StateError> {
        let gone = || StateError::Write("the writer has ended".to_owned());
        let (done, answer) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        requests
            .send(Request { batch, done })
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.requests.take());
        // The thread holds the database: who opens it next must not meet its lock.
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the thread owns both")]
fn run(db: Arc<DB>, mut waiting: mpsc::Receiver<Request>) {
    let mut failed: Option<StateError> = None;
    let mut group = Vec::new();
    while waiting.blocking_recv_many(&mut group, WAITING) > 0 {
        // After a failed sync nobody knows what is on the disk, and a later sync that succeeds
        // says nothing about the pages that were dropped.
        let result = match &failed {
            Some(error) => Err(error.clone()),
            None => write(&db, &group),
        };
        if let Err(error) = &result {
            failed = Some(error.clone());
        }
        for request in group.drain(..) {
            // Nobody waits any more: the change stands all the same.
            drop(request.done.send(result.clone()));
        }
    }
}

fn write(db: &DB, group: &[Request]) -> Result<(), StateError> {
    let mut merged = WriteBatch::default();
    for change in group.iter().flat_map(|request| &request.batch.0) {
        match change {
            Change::Put(key, value) => merged.put(key, value),
            Change::Delete(key) => merged.delete(key),
        }
    }
    let mut options = WriteOptions::default();
    options.set_sync(true);
    db.write_opt(merged, &options)
        .map_err(|e| StateError::Write(e.to_string()))
}
