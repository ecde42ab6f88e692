//! What is committed and lies on safekeepers alone: up to where, and since when (D8).
//!
//!   X1  the time that is told is never later than the true one, but for the interval of [`note`];
//!   X2  memory is bounded, however long the bucket is away.
//!
//! [`note`]: Exposure::note

use std::collections::VecDeque;
use std::time::Duration;

use ids::Lsn;

/// Marks that are kept; beyond, neighbours are joined (X2).
const MARKS_MAX: usize = 64;

/// The ends of WAL as they were committed, oldest first, as far as it is exposed.
#[derive(Debug, Default)]
pub(crate) struct Exposure {
    marks: VecDeque<Mark>,
}

/// At `at` everything below `end` was committed, and what is above the mark before was not long.
#[derive(Debug, Clone, Copy)]
struct Mark {
    end: Lsn,
    at: Duration,
}

impl Exposure {
    /// At `now` WAL is committed up to `commit`, and in the bucket up to `covered`. To be called
    /// about once a second.
    pub(crate) fn note(&mut self, commit: Lsn, covered: Lsn, now: Duration) {
        while self
            .marks
            .pop_front_if(|mark| mark.end <= covered)
            .is_some()
        {}
        let known = self.marks.back().map_or(covered, |mark| mark.end);
        if commit > known {
            let (end, at) = (commit, now);
            self.marks.push_back(Mark { end, at });
        }
        if self.marks.len() > MARKS_MAX {
            self.join();
        }
    }

    /// Since when the oldest exposed WAL is; `None` where all is in the bucket.
    pub(crate) fn since(&self) -> Option<Duration> {
        self.marks.front().map(|mark| mark.at)
    }

    /// Each mark with the one behind it: the end of the later, the time of the earlier (X1).
    fn join(&mut self) {
        let marks: Vec<_> = self.marks.drain(..).collect();
        let joined = marks.chunks(2).filter_map(|pair| {
            let (first, last) = (pair.first()?, pair.last()?);
            let (end, at) = (last.end, first.at);
            Some(Mark { end, at })
        });
        self.marks = joined.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_begins_with_the_oldest_wal_that_is_not_covered() {
        let mut exposure = Exposure::default();
        exposure.note(Lsn(100), Lsn(100), at(1));
        assert_eq!(exposure.since(), None);
        exposure.note(Lsn(200), Lsn(100), at(2));
        exposure.note(Lsn(200), Lsn(100), at(3));
        exposure.note(Lsn(300), Lsn(100), at(4));
        assert_eq!(exposure.since(), Some(at(2)), "an idle tail gets older");
        exposure.note(Lsn(300), Lsn(199), at(5));
        assert_eq!(exposure.since(), Some(at(2)));
        exposure.note(Lsn(300), Lsn(200), at(6));
        assert_eq!(exposure.since(), Some(at(4)));
        exposure.note(Lsn(300), Lsn(300), at(7));
        assert_eq!(exposure.since(), None);
    }

    #[test]
    fn a_long_outage_of_the_bucket_takes_bounded_memory_and_makes_nothing_younger() {
        let mut exposure = Exposure::default();
        for second in 1..100_000 {
            exposure.note(Lsn(second * 10), Lsn(0), at(second));
            assert!(exposure.marks.len() <= MARKS_MAX, "X2");
        }
        assert_eq!(exposure.since(), Some(at(1)));
        for covered in (0..1_000_000).step_by(12_345) {
            exposure.note(Lsn(999_990), Lsn(covered), at(100_000));
            // The byte at `covered` was committed in this second.
            let true_age = at(covered / 10 + 1);
            assert!(exposure.since() <= Some(true_age), "X1 at {covered}");
        }
    }
}
