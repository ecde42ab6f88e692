//! Renewals (K2): one request per node and period for all its tenants. Both sides keep what was
//! told last, a [`Round`], so that request and answer name changes alone.

use std::collections::{BTreeMap, BTreeSet};

use ids::{NodeId, TenantId};
use serde::{Deserialize, Serialize};

use crate::keys::{Lease, MalformedAnswer};

/// Asks for the renewal of the leases of all tenants of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// The node that asks.
    pub node: NodeId,
    /// Grows with every request of a node; an answer repeats it.
    pub seqno: u64,
    /// The round that this request changes; without one `added` names every tenant.
    #[serde(default)]
    pub round: Option<u64>,
    /// Tenants that are not in the round.
    #[serde(default)]
    pub added: Vec<TenantId>,
    /// Tenants of the round that are no longer wanted.
    #[serde(default)]
    pub dropped: Vec<TenantId>,
}

/// The answer to [`Renew`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewAnswer {
    /// The `seqno` of the request.
    pub seqno: u64,
    /// The name of the round that this answer makes; `None` where the one that was asked about is
    /// not known here: then the node names every tenant.
    pub round: Option<u64>,
    /// Milliseconds left for each tenant of the round, in the order of their identifiers, counted
    /// from the moment the node sent its request (K2); 0 where there is no lease.
    #[serde(default)]
    pub remaining_ms: Vec<u64>,
    /// Leases that differ from what was told last in more than their time.
    #[serde(default)]
    pub changed: Vec<Lease>,
}

impl RenewAnswer {
    /// The round that was asked about is not known.
    #[must_use]
    pub const fn of_unknown_round(seqno: u64) -> Self {
        Self {
            seqno,
            round: None,
            remaining_ms: Vec::new(),
            changed: Vec::new(),
        }
    }
}

/// What a keymanager has told a node. Its name is of the keymanager's choice and never used twice,
/// so that the two of them cannot mean different tenants by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    id: u64,
    /// Without their time.
    told: BTreeMap<TenantId, Lease>,
}

impl Round {
    /// What a node that was told `before` asks in order to renew for `wanted`.
    #[must_use]
    pub fn ask(
        before: Option<&Self>,
        node: NodeId,
        seqno: u64,
        wanted: &BTreeSet<TenantId>,
    ) -> Renew {
        let is_new = |tenant: &&TenantId| !before.is_some_and(|b| b.told.contains_key(tenant));
        let told = before.iter().flat_map(|round| round.told.keys());
        Renew {
            node,
            seqno,
            round: before.map(|round| round.id),
            added: wanted.iter().filter(is_new).copied().collect(),
            dropped: told.filter(|t| !wanted.contains(t)).copied().collect(),
        }
    }

    /// The tenants that `request` is about, for a keymanager that told `before`; `None` where it
    /// speaks of another round.
    #[must_use]
    pub fn tenants(before: Option<&Self>, request: &Renew) -> Option<BTreeSet<TenantId>> {
        let mut tenants = match (before, request.round) {
            (_, None) => BTreeSet::new(),
            (Some(before), Some(id)) if before.id == id => before.told.keys().copied().collect(),
            _ => return None,
        };
        tenants.extend(&request.added);
        for dropped in &request.dropped {
            tenants.remove(dropped);
        }
        Some(tenants)
    }

    /// The answer that tells `leases` to a node that was told `before`, and the round that it makes.
    #[must_use]
    pub fn answer(
        before: Option<&Self>,
        request: &Renew,
        id: u64,
        leases: Vec<Lease>,
    ) -> (Self, RenewAnswer) {
        let leases: BTreeMap<TenantId, Lease> = leases.into_iter().map(|l| (l.tenant, l)).collect();
        let remaining_ms = leases.values().map(|lease| lease.remaining_ms).collect();
        let before = before.filter(|before| Some(before.id) == request.round);
        let told: BTreeMap<TenantId, Lease> =
            leases.into_iter().map(|(t, l)| (t, timeless(l))).collect();
        let is_changed = |lease: &&Lease| {
            let was = before.and_then(|before| before.told.get(&lease.tenant));
            was != Some(*lease)
        };
        let changed = told.values().filter(is_changed).cloned().collect();
        let answer = RenewAnswer {
            seqno: request.seqno,
            round: Some(id),
            remaining_ms,
            changed,
        };
        (Self { id, told }, answer)
    }

    /// What `answer` says of each of `wanted`, for a node that was told `before` and asked for
    /// them. `None`: the keymanager does not know the round, and has to be asked without one.
    ///
    /// # Errors
    /// [`MalformedAnswer`] where it is not about exactly these tenants: a time must never be taken
    /// for that of another tenant (K2).
    pub fn read(
        before: Option<Self>,
        wanted: &BTreeSet<TenantId>,
        answer: RenewAnswer,
    ) -> Result<Option<(Self, Vec<Lease>)>, MalformedAnswer> {
        let Some(id) = answer.round else {
            return Ok(None);
        };
        let mut told = before.map(|round| round.told).unwrap_or_default();
        told.retain(|tenant, _| wanted.contains(tenant));
        let changed = answer.changed.into_iter().map(|l| (l.tenant, timeless(l)));
        told.extend(changed);
        if !told.keys().eq(wanted) || answer.remaining_ms.len() != told.len() {
            return Err(MalformedAnswer);
        }
        let timed = told.values().zip(answer.remaining_ms);
        let leases = timed.map(|(lease, remaining_ms)| Lease {
            remaining_ms,
            ..lease.clone()
        });
        let leases = leases.collect();
        Ok(Some((Self { id, told }, leases)))
    }
}

fn timeless(lease: Lease) -> Lease {
    Lease {
        remaining_ms: 0,
        ..lease
    }
}

#[cfg(test)]
mod tests {
    use ids::KekVersion;

    use super::*;
    use crate::keys::{LeaseId, TenantState};

    const NODE: NodeId = NodeId(3);

    fn tenant(n: u8) -> TenantId {
        TenantId([n; 16])
    }

    fn tenants(numbers: &[u8]) -> BTreeSet<TenantId> {
        numbers.iter().map(|n| tenant(*n)).collect()
    }

    fn lease(n: u8, epoch: u64, remaining_ms: u64) -> Lease {
        Lease {
            tenant: tenant(n),
            lease: Some(LeaseId(u64::from(n))),
            remaining_ms,
            epoch,
            kek_id: None,
            active_kek: KekVersion(1),
            lowest_kek: KekVersion(1),
            state: TenantState::Active,
        }
    }

    /// A node and a keymanager that speak to each other.
    #[derive(Default)]
    struct Pair {
        node: Option<Round>,
        keymanager: Option<Round>,
        rounds: u64,
    }

    impl Pair {
        /// One renewal; what crossed the wire, and what the node has understood.
        fn renew(&mut self, wanted: &[u8], granted: &[Lease]) -> (Renew, RenewAnswer, Vec<Lease>) {
            self.rounds += 1;
            let wanted = tenants(wanted);
            let request = Round::ask(self.node.as_ref(), NODE, self.rounds, &wanted);
            let about = Round::tenants(self.keymanager.as_ref(), &request).unwrap();
            assert_eq!(about, wanted);
            let before = self.keymanager.as_ref();
            let (next, answer) = Round::answer(before, &request, self.rounds, granted.to_vec());
            self.keymanager = Some(next);
            let read = Round::read(self.node.take(), &wanted, answer.clone());
            let (round, leases) = read.unwrap().unwrap();
            self.node = Some(round);
            assert_eq!(self.node, self.keymanager);
            (request, answer, leases)
        }
    }

    #[test]
    fn both_sides_understand_the_same_and_only_changes_are_named() {
        let mut pair = Pair::default();
        let all = [lease(1, 1, 10), lease(2, 1, 20), lease(3, 1, 30)];
        let (request, answer, read) = pair.renew(&[1, 2, 3], &all);
        assert_eq!((request.added.len(), answer.changed.len()), (3, 3));
        assert_eq!(read, all);
        // Time alone has passed.
        let later = [lease(1, 1, 11), lease(2, 1, 21), lease(3, 1, 31)];
        let (request, answer, read) = pair.renew(&[1, 2, 3], &later);
        assert_eq!((request.added.len(), request.dropped.len()), (0, 0));
        assert_eq!((answer.changed.len(), read), (0, later.to_vec()));
        // One goes, one comes, one is of another epoch.
        let next = [lease(2, 2, 5), lease(3, 1, 32), lease(4, 1, 40)];
        let (request, answer, read) = pair.renew(&[2, 3, 4], &next);
        assert_eq!(
            (request.added, request.dropped),
            (vec![tenant(4)], vec![tenant(1)])
        );
        assert_eq!((answer.changed.len(), read), (2, next.to_vec()));
        // Who was away comes back, and is told in full again.
        let again = [lease(1, 1, 9), lease(2, 2, 5)];
        let (_, answer, read) = pair.renew(&[1, 2], &again);
        assert_eq!(
            (answer.changed, read),
            (vec![lease(1, 1, 0)], again.to_vec())
        );
    }

    #[test]
    fn a_round_of_another_time_is_not_taken_for_this_one() {
        let mut pair = Pair::default();
        drop(pair.renew(&[1], &[lease(1, 1, 10)]));
        let asked = Round::ask(pair.node.as_ref(), NODE, 9, &tenants(&[1]));
        assert_eq!(Round::tenants(None, &asked), None, "it started anew");
        drop(pair.renew(&[1], &[lease(1, 1, 10)]));
        assert_eq!(Round::tenants(pair.keymanager.as_ref(), &asked), None);
        let unknown = RenewAnswer::of_unknown_round(9);
        let read = Round::read(pair.node.clone(), &tenants(&[1]), unknown);
        assert_eq!(read, Ok(None));
        let full = Round::ask(None, NODE, 10, &tenants(&[1]));
        let about = Round::tenants(pair.keymanager.as_ref(), &full);
        assert_eq!(about, Some(tenants(&[1])));
    }

    #[test]
    fn times_that_are_not_of_exactly_these_tenants_are_refused() {
        let answer = |remaining_ms: &[u64], changed: &[Lease]| RenewAnswer {
            seqno: 1,
            round: Some(1),
            remaining_ms: remaining_ms.to_vec(),
            changed: changed.to_vec(),
        };
        let wanted = tenants(&[1, 2]);
        let (one, two, three) = (lease(1, 1, 0), lease(2, 1, 0), lease(3, 1, 0));
        let whole = [one.clone(), two.clone()];
        for (case, answer) in [
            ("a tenant lacks", answer(&[5], &whole[..1])),
            (
                "another tenant",
                answer(&[5, 6], &[one.clone(), three.clone()]),
            ),
            ("one too many", answer(&[5, 6, 7], &[one, two, three])),
            ("a time lacks", answer(&[5], &whole)),
        ] {
            assert_eq!(
                Round::read(None, &wanted, answer),
                Err(MalformedAnswer),
                "{case}"
            );
        }
        assert!(Round::read(None, &wanted, answer(&[5, 6], &whole)).is_ok());
    }
}
