//! Damaged WAL: whether it is a safekeeper's, or the WAL's own.
//!
//!   W1  damaged bytes end ingest only where a majority of the safekeepers sent the same after the
//!       same record: a majority is what commits, so these are the bytes that were committed;
//!   W2  who cannot be asked counts for neither side: what is right may be there;
//!   W3  what was sent after another record counts no more.

use std::collections::BTreeMap;

use ids::{Lsn, NodeId};

use super::StreamEnd;
use crate::ingest::Standing;

/// Damaged bytes that were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// What is wrong and where, with the checksums where a record has any: what is compared.
    pub(super) reason: String,
    /// Whether that is so whatever comes behind.
    pub(super) is_proven: bool,
}

impl Damage {
    /// The damage that a stream ended at.
    pub(super) fn of(end: &StreamEnd) -> Option<Self> {
        let is_proven = match end {
            StreamEnd::Stopped(stop) if stop.standing() == Standing::Damaged => true,
            StreamEnd::Unfinished(_) => false,
            _ => return None,
        };
        let reason = end.to_string();
        Some(Self { reason, is_proven })
    }
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The others are asked from the last good record on.
    AskOthers,
    /// So many safekeepers sent the same: it is the WAL.
    OfTheWal { same: usize },
}

/// Who sent damaged bytes after one record.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    after: Lsn,
    sent: BTreeMap<NodeId, Damage>,
}

impl Suspects {
    /// One of `members` sent damaged bytes after the record that ends at `after`.
    pub(super) fn sent(
        &mut self,
        node: NodeId,
        after: Lsn,
        damage: Damage,
        members: &[NodeId],
    ) -> Verdict {
        if self.after != after {
            // W3
            (self.after, self.sent) = (after, BTreeMap::new());
        }
        let is_same = |member: &&NodeId| self.sent.get(member) == Some(&damage);
        // Who sends another damage than before damages what it sends: its newest counts.
        let others = members.iter().filter(|member| **member != node);
        let same = others.filter(is_same).count() + 1;
        let is_proven = damage.is_proven;
        self.sent.insert(node, damage);
        if is_proven && same > members.len() / 2 {
            return Verdict::OfTheWal { same };
        }
        Verdict::AskOthers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Safekeeper, the record before, what was wrong.
    type Sent = (u64, u64, &'static str);

    fn judge(members: u64, sent: &[Sent]) -> Verdict {
        let members: Vec<NodeId> = (1..=members).map(NodeId).collect();
        let mut suspects = Suspects::default();
        let mut verdict = Verdict::AskOthers;
        for (node, after, reason) in sent {
            assert_eq!(verdict, Verdict::AskOthers, "it had an end before {sent:?}");
            let damage = Damage {
                reason: (*reason).to_owned(),
                is_proven: *reason != "unfinished",
            };
            verdict = suspects.sent(NodeId(*node), Lsn(*after), damage, &members);
        }
        verdict
    }

    #[test]
    fn only_what_a_majority_sent_is_of_the_wal() {
        let asks = Verdict::AskOthers;
        let stops = |same| Verdict::OfTheWal { same };
        let table: &[(u64, &[Sent], Verdict)] = &[
            (1, &[(1, 8, "a")], stops(1)),
            (2, &[(1, 8, "a")], asks),
            (2, &[(1, 8, "a"), (2, 8, "a")], stops(2)),
            (3, &[(1, 8, "a")], asks),
            (3, &[(1, 8, "a"), (2, 8, "a")], stops(2)),
            // One that is asked again and again is one.
            (3, &[(1, 8, "a"), (1, 8, "a"), (1, 8, "a")], asks),
            (3, &[(1, 8, "a"), (2, 8, "b"), (3, 8, "c")], asks),
            (3, &[(1, 8, "a"), (2, 8, "b"), (3, 8, "a")], stops(2)),
            // The newest counts.
            (3, &[(1, 8, "a"), (1, 8, "b"), (2, 8, "a")], asks),
            // After another record.
            (3, &[(1, 8, "a"), (2, 16, "a")], asks),
            // One that has left the set.
            (3, &[(4, 8, "a"), (2, 8, "a")], asks),
            (5, &[(1, 8, "a"), (2, 8, "a")], asks),
            (5, &[(1, 8, "a"), (2, 8, "a"), (3, 8, "a")], stops(3)),
            (1, &[(1, 8, "unfinished")], asks),
            (3, &[(1, 8, "unfinished"), (2, 8, "unfinished")], asks),
        ];
        for (members, sent, verdict) in table {
            assert_eq!(judge(*members, sent), *verdict, "{members} {sent:?}");
        }
    }
}
