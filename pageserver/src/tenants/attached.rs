//! One attached timeline with the tasks that work for it: the receiver of its WAL, and the one
//! that brings what was taken in into the bucket (D8).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use api::timeline::{DamagedWal, PageserverStatus, SafekeeperSet};
use ids::{Lsn, NodeId};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Node;
use crate::compact::{CompactConfig, compact_if_due};
use crate::metrics;
use crate::timeline::{Closed, Timeline, WriteError};
use crate::wal_receiver;

/// How often it is looked at whether a flush is due.
const LOOK: Duration = Duration::from_secs(1);
/// With this many times the bound in memory no more WAL is taken.
const CONGESTED: usize = 4;

/// An attached timeline.
pub(crate) struct Attached {
    pub(crate) timeline: Arc<Timeline>,
    /// Who keeps its WAL now.
    pub(crate) safekeepers: watch::Sender<SafekeeperSet>,
    /// Why ingest ended for good.
    stopped: OnceLock<String>,
    /// Who sent damaged WAL, and what was wrong with it last.
    damaged: Mutex<BTreeMap<NodeId, DamagedWal>>,
    /// Woken by each flush.
    pub(crate) flushed: Notify,
    stop: CancellationToken,
}

impl Attached {
    /// Begins to work for `timeline`.
    pub(super) fn begin(
        node: &Arc<Node>,
        timeline: Arc<Timeline>,
        safekeepers: SafekeeperSet,
    ) -> Arc<Self> {
        let attached = Arc::new(Self {
            timeline,
            safekeepers: watch::Sender::new(safekeepers),
            stopped: OnceLock::new(),
            damaged: Mutex::default(),
            flushed: Notify::new(),
            stop: CancellationToken::new(),
        });
        attached.spawn(node, "wal receiver", wal_receiver::run);
        attached.spawn(node, "compact", keep_compact);
        let flush = keep_flushed(Arc::clone(&attached), Arc::clone(node));
        drop(node.shutdown.spawn("flush", flush));
        attached
    }

    /// A task that ends with the attachment, wherever it is.
    fn spawn<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        node: &Arc<Node>,
        name: &'static str,
        work: impl FnOnce(Arc<Self>, Arc<Node>) -> F,
    ) {
        let (attached, shutdown) = (Arc::clone(self), node.shutdown.clone());
        let work = work(Arc::clone(self), Arc::clone(node));
        drop(node.shutdown.spawn(name, async move {
            tokio::select! {
                () = work => {}
                () = attached.stop.cancelled() => {}
                _ = attached.timeline.closed() => {}
                () = shutdown.requested() => {}
            }
        }));
    }

    /// Ends the tasks. The timeline itself is fenced, stale or replaced.
    pub(super) fn end(&self) {
        self.stop.cancel();
        metrics::forget(self.timeline.tenant(), self.timeline.id());
    }

    /// Whether this attachment and those that it reads through still serve.
    pub(crate) fn serving(&self) -> Result<(), Closed> {
        let mut next = Some(&self.timeline);
        while let Some(timeline) = next {
            timeline.serving()?;
            next = timeline.parent();
        }
        Ok(())
    }

    /// Ingest ends here, for good.
    pub(crate) fn stop_ingest(&self, why: String) {
        tracing::error!(
            tenant = %self.timeline.tenant(),
            timeline = %self.timeline.id(),
            error = why,
            "ingest has stopped"
        );
        drop(self.stopped.set(why));
    }

    /// A safekeeper sent damaged WAL behind the record that ends at `after`.
    pub(crate) fn note_damaged(&self, safekeeper: NodeId, after: Lsn, reason: String) {
        let (tenant, timeline) = (self.timeline.tenant(), self.timeline.id());
        metrics::damaged_wal(tenant, timeline, safekeeper);
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let known = damaged.get(&safekeeper);
        // The same again and again is one thing to look at.
        if known.is_none_or(|known| known.reason != reason) {
            tracing::error!(%tenant, %timeline, %safekeeper, %after, reason, "damaged WAL was sent");
        }
        let times = known.map_or(0, |known| known.times) + 1;
        let noted = DamagedWal {
            safekeeper,
            after,
            reason,
            times,
        };
        damaged.insert(safekeeper, noted);
    }

    /// Of those who keep the WAL now, who sent it damaged.
    fn damaged(&self) -> Vec<DamagedWal> {
        let set = self.safekeepers.borrow();
        let damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let members = set.members.iter();
        members
            .filter_map(|member| damaged.get(&member.node).cloned())
            .collect()
    }

    /// How far it is.
    pub(crate) fn status(&self, node: &Node) -> Result<PageserverStatus, Closed> {
        Ok(PageserverStatus {
            node: node.id,
            generation: self.timeline.generation(),
            last_record_lsn: self.timeline.last_lsn()?,
            remote_consistent_lsn: self.timeline.remote_consistent_lsn()?,
            stopped: self.stopped.get().cloned(),
            damaged: self.damaged(),
        })
    }

    /// Whether more waits for the bucket than memory should hold.
    pub(crate) fn is_congested(&self, node: &Node) -> bool {
        self.timeline.memory_bytes() > node.settings.flush_bytes.saturating_mul(CONGESTED)
    }

    /// Brings what was taken in into the bucket, and remembers how far the manifests have come.
    pub(crate) async fn flush(&self, node: &Node) -> Result<(), WriteError> {
        let begun = Instant::now();
        self.timeline.flush().await?;
        metrics::flushed(begun.elapsed());
        self.flushed.notify_waiters();
        let (tenant, timeline) = (self.timeline.tenant(), self.timeline.id());
        let number = self.timeline.accepted_manifest().await;
        if let Err(error) = node.remembered.learn(tenant, timeline, number).await {
            tracing::warn!(%tenant, %timeline, %error, "a manifest number was not remembered");
        }
        metrics::progress(self);
        Ok(())
    }
}

/// Flushes when the open layer is large or old, and once more when the process ends.
async fn keep_flushed(attached: Arc<Attached>, node: Arc<Node>) {
    let timeline = &attached.timeline;
    let interval = node.settings.flush_interval;
    let look = LOOK.min(interval / 4);
    let (mut dirty_since, mut looked) = (None, Instant::now());
    loop {
        let ends = tokio::select! {
            () = tokio::time::sleep(look) => false,
            () = attached.stop.cancelled() => return,
            () = node.shutdown.requested() => true,
        };
        let (Ok(last), Ok(consistent)) = (timeline.last_lsn(), timeline.remote_consistent_lsn())
        else {
            return;
        };
        metrics::progress(&attached);
        dirty_since = (last > consistent).then(|| dirty_since.unwrap_or_else(Instant::now));
        let large = timeline.memory_bytes() >= node.settings.flush_bytes;
        let old = dirty_since.is_some_and(|since: Instant| since.elapsed() + look >= interval);
        if dirty_since.is_some() && (ends || large || old) {
            match attached.flush(&node).await {
                Ok(()) => (dirty_since, looked) = (None, Instant::now()),
                Err(error) => tracing::warn!(
                    tenant = %timeline.tenant(),
                    timeline = %timeline.id(),
                    %error,
                    "nothing reached the bucket"
                ),
            }
        } else if looked.elapsed() >= interval {
            // D1: who writes nothing would not learn that another one has attached it.
            looked = Instant::now();
            if let Err(closed) = timeline.look_for_newer().await {
                tracing::warn!(error = %closed, "the timeline serves no more");
            }
        }
        if ends {
            return;
        }
    }
}

/// Compacts after flushes, and beside them: those must not wait for it (D8).
async fn keep_compact(attached: Arc<Attached>, _: Arc<Node>) {
    let timeline = &attached.timeline;
    loop {
        attached.flushed.notified().await;
        match compact_if_due(timeline, CompactConfig::default()).await {
            Ok(None) => {}
            Ok(Some(lsn)) => {
                metrics::compacted();
                tracing::info!(timeline = %timeline.id(), %lsn, "compacted");
            }
            Err(error) => tracing::warn!(
                tenant = %timeline.tenant(),
                timeline = %timeline.id(),
                %error,
                "not compacted"
            ),
        }
    }
}
