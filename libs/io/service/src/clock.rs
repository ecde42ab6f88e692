//! The two clocks: leases count on BOOTTIME, names and tokens carry unix seconds.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The time since boot, suspended time included (K2).
#[must_use]
pub fn boottime() -> Duration {
    read(ClockId::CLOCK_BOOTTIME)
}

/// Seconds since 1970.
#[must_use]
pub fn unix_seconds() -> u64 {
    read(ClockId::CLOCK_REALTIME).as_secs()
}

fn read(clock: ClockId) -> Duration {
    // Linux has both clocks; were one refused, zero would end every lease, which is the safe side
    // for a deadline only if nobody computes one from it: so the process must not go on.
    clock_gettime(clock).map_or_else(|_| std::process::abort(), Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boottime_goes_on() {
        let before = boottime();
        std::thread::sleep(Duration::from_millis(5));
        assert!(boottime() - before >= Duration::from_millis(5));
        assert!(unix_seconds() > 1_700_000_000);
    }
}
