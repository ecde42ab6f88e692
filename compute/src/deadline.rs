//! The one deadline that PostgreSQL lives under (K6): on BOOTTIME, moved by the agent at each
//! renewal, held by the watchdog.
//!
//!   W1  the watchdog's deadline lies [`RESERVE`] before the end of the lease;
//!   W2  no extension reaches further than [`LONGEST`] from now (K2: no lease outlives 45 s);
//!   W3  a deadline that has passed is never moved again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use service::clock::boottime;

/// What killing takes, and the rounding of clocks, fit into this.
pub const RESERVE: Duration = Duration::from_secs(1);
/// The longest time that an agent may be silent.
pub const LONGEST: Duration = Duration::from_secs(45);
/// What a compute without a lease (development) is given at a time.
pub const WITHOUT_LEASE: Duration = Duration::from_secs(10);

/// Until when the watchdog lets PostgreSQL live, with a lease that ends at `lease` (W1, W2).
#[must_use]
pub fn for_lease(now: Duration, lease: Duration) -> Duration {
    lease.saturating_sub(RESERVE).min(now + LONGEST)
}

/// The deadline as the watchdog holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Duration);

impl Deadline {
    /// Ends at `at`, or after [`LONGEST`] (W2).
    #[must_use]
    pub fn new(now: Duration, at: Duration) -> Self {
        Self(at.min(now + LONGEST))
    }

    /// Whether it is over. The moment itself is.
    #[must_use]
    pub fn passed(self, now: Duration) -> bool {
        now >= self.0
    }

    /// Moves it to `at`; never back, never after it has passed (W3). Answers whether it still runs.
    pub fn extend(&mut self, now: Duration, at: Duration) -> bool {
        if self.passed(now) {
            return false;
        }
        self.0 = self.0.max(at.min(now + LONGEST));
        true
    }
}

/// A deadline that several look at; clones are the same.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Mutex<Deadline>>);

impl Shared {
    /// Ends at `at`.
    #[must_use]
    pub fn new(at: Duration) -> Self {
        Self(Arc::new(Mutex::new(Deadline::new(boottime(), at))))
    }

    /// As [`Deadline::extend`].
    pub fn extend(&self, at: Duration) -> bool {
        let mut deadline = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.extend(boottime(), at)
    }

    /// Whether it is over.
    #[must_use]
    pub fn passed(&self) -> bool {
        let deadline = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.passed(boottime())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_watchdog_ends_before_the_lease() {
        assert_eq!(for_lease(s(100), s(130)), s(129));
        assert_eq!(for_lease(s(100), s(0)), s(0), "a lease that is over");
        assert_eq!(for_lease(s(100), s(900)), s(145), "W2");
    }

    #[test]
    fn a_deadline_moves_forward_while_it_runs_and_never_again() {
        let mut deadline = Deadline::new(s(10), s(20));
        assert!(!deadline.passed(s(19)) && deadline.passed(s(20)));
        assert!(deadline.extend(s(15), s(30)) && !deadline.passed(s(29)));
        assert!(
            deadline.extend(s(15), s(25)),
            "an older extension comes late"
        );
        assert!(!deadline.passed(s(29)) && deadline.passed(s(30)));
        assert!(!deadline.extend(s(30), s(60)), "W3");
        assert!(deadline.passed(s(31)));
    }

    #[test]
    fn nobody_extends_without_end() {
        let mut deadline = Deadline::new(s(10), Duration::MAX);
        assert!(deadline.passed(s(55)));
        assert!(deadline.extend(s(50), Duration::MAX));
        assert!(!deadline.passed(s(94)) && deadline.passed(s(95)), "W2");
    }
}
