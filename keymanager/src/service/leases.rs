//! The lease book of one tenant: which node holds which lease, and until when (K2, K4).

use std::collections::BTreeMap;
use std::time::Duration;

use api::keys::{KeyErrorKind, LeaseId, LeaseStatus};
use ids::{Generation, NodeId, TenantId};

struct Held {
    lease: LeaseId,
    generation: Generation,
    until: Duration,
    epoch: u64,
    fenced: Option<Fenced>,
}

/// How the fence of a lease went; on the wall clock, for people.
#[derive(Clone, Copy)]
struct Fenced {
    at_ms: u64,
    drained: Option<Drained>,
}

#[derive(Clone, Copy)]
struct Drained {
    at_ms: u64,
    took_ms: u64,
}

/// The leases of one tenant; times are on BOOTTIME.
#[derive(Default)]
pub(super) struct LeaseBook(BTreeMap<NodeId, Held>);

impl LeaseBook {
    /// Grants a lease, or prolongs the one that runs; `fresh` names a new one.
    ///
    /// # Errors
    /// [`KeyErrorKind::StalePlacement`] where the node has shown a later generation (K4).
    pub(super) fn grant(
        &mut self,
        node: NodeId,
        generation: Generation,
        until: Duration,
        now: Duration,
        fresh: LeaseId,
        epoch: u64,
    ) -> Result<LeaseId, KeyErrorKind> {
        let held = self.0.get(&node);
        if held.is_some_and(|held| held.generation > generation) {
            return Err(KeyErrorKind::StalePlacement);
        }
        let lease = held
            .filter(|held| held.generation == generation && now < held.until)
            .map_or(fresh, |held| held.lease);
        let held = Held {
            lease,
            generation,
            until,
            epoch,
            fenced: None,
        };
        self.0.insert(node, held);
        Ok(lease)
    }

    /// Whether `lease` is the one that `node` holds now.
    ///
    /// # Errors
    /// [`KeyErrorKind::LeaseEnded`].
    pub(super) fn check(
        &self,
        node: NodeId,
        lease: LeaseId,
        now: Duration,
    ) -> Result<(), KeyErrorKind> {
        match self.0.get(&node) {
            Some(held) if held.lease == lease && now < held.until => Ok(()),
            _ => Err(KeyErrorKind::LeaseEnded),
        }
    }

    /// Whether `node` holds a lease that runs.
    pub(super) fn runs(&self, node: NodeId, now: Duration) -> bool {
        self.0.get(&node).is_some_and(|held| now < held.until)
    }

    /// Ends every lease; generations are remembered.
    pub(super) fn end_all(&mut self, now: Duration, at_ms: u64) {
        for held in self.0.values_mut() {
            if now < held.until {
                let drained = None;
                held.fenced = Some(Fenced { at_ms, drained });
            }
            held.until = Duration::ZERO;
        }
    }

    /// A node has drained after a fence. It may be one whose lease another keymanager granted.
    pub(super) fn drained(&mut self, node: NodeId, epoch: u64, took_ms: u64, at_ms: u64) {
        let held = self.0.entry(node).or_insert(Held {
            lease: LeaseId(0),
            generation: Generation::default(),
            until: Duration::ZERO,
            epoch,
            fenced: None,
        });
        let fenced = held.fenced.get_or_insert(Fenced {
            at_ms: at_ms.saturating_sub(took_ms),
            drained: None,
        });
        fenced.drained = Some(Drained { at_ms, took_ms });
    }

    /// Every node's last lease.
    pub(super) fn status(&self, tenant: TenantId, now: Duration) -> Vec<LeaseStatus> {
        let shown = self.0.iter().map(|(node, held)| {
            let left = held.until.saturating_sub(now);
            let drained = held.fenced.and_then(|fenced| fenced.drained);
            LeaseStatus {
                node: *node,
                tenant,
                remaining_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
                epoch: held.epoch,
                fenced_at_ms: held.fenced.map(|fenced| fenced.at_ms),
                drained_at_ms: drained.map(|drained| drained.at_ms),
                drain_took_ms: drained.map(|drained| drained.took_ms),
            }
        });
        shown.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(7);

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_runs_to_its_end_and_is_prolonged() {
        let mut book = LeaseBook::default();
        let lease = book
            .grant(NODE, Generation(1), s(45), s(0), LeaseId(1), 9)
            .unwrap();
        assert_eq!(book.check(NODE, lease, s(44)), Ok(()));
        let ended = Err(KeyErrorKind::LeaseEnded);
        assert_eq!(book.check(NODE, lease, s(45)), ended, "K2");
        assert_eq!(book.check(NodeId(8), lease, s(1)), ended);
        assert_eq!(book.check(NODE, LeaseId(2), s(1)), ended);
        let again = book.grant(NODE, Generation(1), s(60), s(20), LeaseId(2), 9);
        assert_eq!(again, Ok(lease));
        assert_eq!(book.check(NODE, lease, s(59)), Ok(()));
        let later = book.grant(NODE, Generation(1), s(99), s(60), LeaseId(3), 9);
        assert_eq!(later, Ok(LeaseId(3)), "an ended lease does not come back");
    }

    #[test]
    fn an_older_generation_gets_nothing_even_after_a_fence() {
        let mut book = LeaseBook::default();
        let grant = |book: &mut LeaseBook, generation, lease| {
            book.grant(NODE, Generation(generation), s(45), s(0), LeaseId(lease), 9)
        };
        let first = grant(&mut book, 1, 1).unwrap();
        assert_eq!(grant(&mut book, 2, 2), Ok(LeaseId(2)));
        assert!(book.check(NODE, first, s(1)).is_err(), "K4");
        book.end_all(s(2), 5_000);
        book.drained(NODE, 9, 30, 5_040);
        let [shown] = book.status(TenantId([1; 16]), s(2)).try_into().unwrap();
        assert_eq!((shown.remaining_ms, shown.fenced_at_ms), (0, Some(5_000)));
        assert_eq!(
            (shown.drained_at_ms, shown.drain_took_ms),
            (Some(5_040), Some(30))
        );
        assert!(book.check(NODE, LeaseId(2), s(1)).is_err());
        assert_eq!(grant(&mut book, 1, 3), Err(KeyErrorKind::StalePlacement));
    }
}
