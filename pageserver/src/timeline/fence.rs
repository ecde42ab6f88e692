//! The end of a lease (K6): no plaintext outlives it.

use std::sync::Arc;

use keyring::{KeyError, TenantKeys};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Closed, Timeline, lock};
use crate::layer::memory::MemoryLayer;

impl Timeline {
    /// Ends this attachment because its keys are gone: every later call fails with `why`, and
    /// what was held in plaintext is dropped. The WAL that was not flushed comes from the
    /// safekeepers again, once the timeline is attached anew.
    pub(crate) fn fence(&self, why: KeyError) {
        // The flag first: what is dropped afterwards cannot come back.
        self.fenced.get_or_init(|| why);
        self.ended.cancel();
        self.drop_plaintext();
        self.progress.send_modify(|_| {});
    }

    /// Why it was fenced, if it was.
    pub(crate) fn fenced(&self) -> Option<&KeyError> {
        self.fenced.get()
    }

    /// Resolves once this attachment is fenced or stale.
    pub(crate) async fn closed(&self) -> Closed {
        self.ended.cancelled().await;
        match self.serving() {
            Err(closed) => closed,
            // It ends after the reason was set.
            Ok(()) => std::future::pending().await,
        }
    }

    /// Drops values, open layers with their keys, and cached blocks.
    pub(crate) fn drop_plaintext(&self) {
        {
            let mut state = self.state();
            state.memory = MemoryLayer::default();
            state.frozen = None;
        }
        lock(&self.open_layers).clear();
        self.home.cache.forget(self.home.tenant);
    }

    /// Fences when the lease of `keys` closes; the guard ends the watch.
    pub(super) fn watch(self: &Arc<Self>, keys: TenantKeys, stop: CancellationToken) {
        let timeline = Arc::downgrade(self);
        drop(service::task::spawn("lease watch", async move {
            let why = tokio::select! {
                why = keys.closed() => why,
                () = stop.cancelled() => return,
            };
            if let Some(timeline) = timeline.upgrade() {
                tracing::warn!(
                    tenant = %timeline.home.tenant,
                    timeline = %timeline.home.timeline,
                    error = %why,
                    "the timeline is fenced"
                );
                timeline.fence(why);
            }
        }));
    }
}

/// What ends the watch, in the timeline and in the task.
pub(super) fn watch_guard() -> (DropGuard, CancellationToken) {
    let stop = CancellationToken::new();
    (stop.clone().drop_guard(), stop)
}
