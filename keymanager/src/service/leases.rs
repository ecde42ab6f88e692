//! The lease book of one tenant: which node holds which lease, and until when (K2, K4).

use std::collections::BTreeMap;
use std::time::Duration;

use api::keys::{KeyErrorKind, LeaseId};
use ids::{Generation, NodeId};

struct Held {
    lease: LeaseId,
    generation: Generation,
    until: Duration,
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

    /// Ends every lease; generations are remembered.
    pub(super) fn end_all(&mut self) {
        for held in self.0.values_mut() {
            held.until = Duration::ZERO;
        }
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
            .grant(NODE, Generation(1), s(45), s(0), LeaseId(1))
            .unwrap();
        assert_eq!(book.check(NODE, lease, s(44)), Ok(()));
        let ended = Err(KeyErrorKind::LeaseEnded);
        assert_eq!(book.check(NODE, lease, s(45)), ended, "K2");
        assert_eq!(book.check(NodeId(8), lease, s(1)), ended);
        assert_eq!(book.check(NODE, LeaseId(2), s(1)), ended);
        let again = book.grant(NODE, Generation(1), s(60), s(20), LeaseId(2));
        assert_eq!(again, Ok(lease));
        assert_eq!(book.check(NODE, lease, s(59)), Ok(()));
        let later = book.grant(NODE, Generation(1), s(99), s(60), LeaseId(3));
        assert_eq!(later, Ok(LeaseId(3)), "an ended lease does not come back");
    }

    #[test]
    fn an_older_generation_gets_nothing_even_after_a_fence() {
        let mut book = LeaseBook::default();
        let grant = |book: &mut LeaseBook, generation, lease| {
            book.grant(NODE, Generation(generation), s(45), s(0), LeaseId(lease))
        };
        let first = grant(&mut book, 1, 1).unwrap();
        assert_eq!(grant(&mut book, 2, 2), Ok(LeaseId(2)));
        assert!(book.check(NODE, first, s(1)).is_err(), "K4");
        book.end_all();
        assert!(book.check(NODE, LeaseId(2), s(1)).is_err());
        assert_eq!(grant(&mut book, 1, 3), Err(KeyErrorKind::StalePlacement));
    }
}
