//! Waits that grow, with jitter: those who failed together do not come back together.

use std::time::Duration;

use service::entropy::OsEntropy;

/// The next wait.
pub(crate) struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// From `shortest`, doubling up to `longest`.
    pub(crate) const fn new(shortest: Duration, longest: Duration) -> Self {
        Self {
            shortest,
            longest,
            next: shortest,
        }
    }

    /// How long to wait now: between a half and the whole of what it has grown to.
    pub(crate) fn next(&mut self) -> Duration {
        let now = self.next;
        self.next = (now * 2).min(self.longest);
        let [share] = OsEntropy::bytes::<1>();
        now.mul_f64(0.5 + f64::from(share) / 512.0)
    }

    /// Something succeeded.
    pub(crate) const fn reset(&mut self) {
        self.next = self.shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_longest_and_begin_anew() {
        let (shortest, longest) = (Duration::from_millis(100), Duration::from_millis(400));
        let mut backoff = Backoff::new(shortest, longest);
        for whole in [100, 200, 400, 400] {
            let (wait, whole) = (backoff.next(), Duration::from_millis(whole));
            assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= shortest);
    }
}
