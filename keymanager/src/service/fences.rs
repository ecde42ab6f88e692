//! The fences of this process, for nodes that wait for them (K4).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::keys::{Fence, WatchAnswer};
use ids::TenantId;
use tokio::sync::watch;
use tokio::time::Instant;

/// Fences that are kept for nodes which were away; a renewal tells the rest.
const KEPT: usize = 1024;

/// Fences with their cursors, the oldest first.
pub(super) struct FenceLog {
    kept: Mutex<VecDeque<(u64, Fence)>>,
    newest: watch::Sender<u64>,
    /// Nobody waits any more: the process ends.
    closed: AtomicBool,
}

impl FenceLog {
    /// An empty log whose cursors begin behind `start`, so that they are above those of an
    /// earlier process.
    pub(super) fn new(start: u64) -> Self {
        Self {
            kept: Mutex::default(),
            newest: watch::Sender::new(start),
            closed: AtomicBool::new(false),
        }
    }

    pub(super) fn push(&self, fence: Fence) {
        let mut kept = self.lock();
        let cursor = *self.newest.borrow() + 1;
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((cursor, fence));
        self.newest.send_replace(cursor);
    }

    /// Answers all who wait, now and from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.newest.send_modify(|_| {});
    }

    /// Fences behind `after` of tenants that are `allowed`, as soon as there is one; an empty
    /// answer after `longest`. Who has no cursor yet gets one at once: leases that are asked for
    /// from then on are of a time after every fence that is kept.
    pub(super) async fn wait(
        &self,
        after: u64,
        longest: Duration,
        allowed: impl Fn(TenantId) -> bool,
    ) -> WatchAnswer {
        let mut newest = self.newest.subscribe();
        let end = Instant::now() + longest;
        loop {
            let cursor = *newest.borrow_and_update();
            let fences = if after == 0 {
                Vec::new()
            } else {
                self.behind(after, cursor, &allowed)
            };
            if after == 0 || !fences.is_empty() || self.closed.load(Ordering::Acquire) {
                return WatchAnswer { cursor, fences };
            }
            let changed = tokio::time::timeout_at(end, newest.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return WatchAnswer { cursor, fences };
            }
        }
    }

    fn behind(&self, after: u64, until: u64, allowed: impl Fn(TenantId) -> bool) -> Vec<Fence> {
        let wanted = |(cursor, fence): &&(u64, Fence)| {
            *cursor > after && *cursor <= until && allowed(fence.tenant)
        };
        let kept = self.lock();
        let found = kept.iter().filter(wanted);
        found.map(|(_, fence)| fence.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, Fence)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::keys::RevokeReason;

    const LONG: Duration = Duration::from_secs(30);

    fn fence(tenant: u8) -> Fence {
        Fence {
            tenant: TenantId([tenant; 16]),
            reason: RevokeReason::Requested,
            epoch: 1,
        }
    }

    #[tokio::test]
    async fn who_waits_gets_what_comes_and_what_it_missed_but_nothing_of_others() {
        let log = FenceLog::new(100);
        log.push(fence(1));
        let begun = log.wait(0, LONG, |_| true).await;
        assert_eq!((begun.cursor, begun.fences.len()), (101, 0));
        let (got, ()) = tokio::join!(log.wait(begun.cursor, LONG, |_| true), async {
            log.push(fence(2));
        });
        assert_eq!((got.cursor, got.fences), (102, vec![fence(2)]));
        let missed = log.wait(7, LONG, |t| t == TenantId([1; 16])).await;
        assert_eq!(missed.fences, [fence(1)]);
        let none = log.wait(102, Duration::from_millis(10), |_| true).await;
        assert_eq!((none.cursor, none.fences.len()), (102, 0));
        let (ended, ()) = tokio::join!(log.wait(102, LONG, |_| true), async { log.close() });
        assert_eq!((ended.cursor, ended.fences.len()), (102, 0));
    }
}
