//! Clients that have not said who they are: whoever speaks at once is never kept waiting by those
//! who do not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// All that are silent, in the order in which they came.
#[derive(Debug)]
pub(super) struct Silent {
    most: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// One that is silent, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    evicted: Arc<Notify>,
    of: Arc<Silent>,
}

impl Silent {
    pub(super) fn new(most: usize) -> Arc<Self> {
        let queue = Mutex::default();
        Arc::new(Self { most, queue })
    }

    /// There is always a place: where all are taken the oldest silent one loses its own.
    pub(super) fn enter(self: &Arc<Self>) -> Place {
        let mut queue = self.queue();
        if queue.waiting.len() >= self.most
            && let Some((_, oldest)) = queue.waiting.pop_first()
        {
            oldest.notify_one();
        }
        let (number, evicted) = (queue.next, Arc::new(Notify::new()));
        queue.next += 1;
        queue.waiting.insert(number, Arc::clone(&evicted));
        drop(queue);
        let of = Arc::clone(self);
        Place {
            number,
            evicted,
            of,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Returns when another one has taken the place.
    pub(super) async fn lost(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.queue().waiting.remove(&self.number);
    }
}
