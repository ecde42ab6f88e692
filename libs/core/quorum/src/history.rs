//! The terms of a log, each with the position where it began to write.

use ids::{Lsn, Term};
use pg::wire::wal_push::TermStart;

/// Terms in rising order, with starts that do not fall.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History(Vec<TermStart>);

impl History {
    /// `None` where terms do not rise or starts fall: hostile bytes make such histories.
    #[must_use]
    pub fn new(entries: Vec<TermStart>) -> Option<Self> {
        let sorted = entries
            .windows(2)
            .all(|w| w[0].term < w[1].term && w[0].start <= w[1].start);
        sorted.then_some(Self(entries))
    }

    /// The entries.
    #[must_use]
    pub fn entries(&self) -> &[TermStart] {
        &self.0
    }

    /// What of this history a log that ends at `end` has reached.
    #[must_use]
    pub fn up_to(&self, end: Lsn) -> Self {
        Self(self.0.iter().filter(|e| e.start <= end).copied().collect())
    }

    /// The last term; 0 where there is none.
    #[must_use]
    pub fn last_term(&self) -> Term {
        self.0.last().map_or(Term(0), |e| e.term)
    }

    /// Where a log of this history that ends at `end` parts from one of `other` that goes on:
    /// the end of their last common term. `None` where they have nothing in common.
    #[must_use]
    pub fn common_point(&self, end: Lsn, other: &Self) -> Option<Lsn> {
        let mine = self.up_to(end);
        let common = mine
            .0
            .iter()
            .zip(&other.0)
            .take_while(|(a, b)| a == b)
            .count();
        if common == 0 {
            return None;
        }
        let next = |entries: &[TermStart]| entries.get(common).map_or(Lsn::MAX, |e| e.start);
        Some(next(&mine.0).min(next(&other.0)).min(end))
    }
}
