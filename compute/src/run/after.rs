//! What follows the end of a start.

use std::time::Duration;

use keyring::KeyError;

use crate::failure::Failure;
use crate::sandbox::SandboxError;
use crate::standby::StandbyError;
use crate::status::Phase;

/// A PostgreSQL that was open for less than this failed fast.
const FAST: Duration = Duration::from_secs(60);
/// Fast failures in a row after which the agent ends.
pub(super) const FAST_MAX: u32 = 8;
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// What the agent does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Waits for the key, and starts again (R2).
    Fenced,
    /// Starts again in a moment: PostgreSQL did not run, or did nothing wrong.
    Again,
    /// Starts again with a backoff, and not without end: PostgreSQL ended by itself.
    Anew,
    /// Ends: nothing that another start repairs.
    End,
}

/// `phase` is how far it came.
pub(super) fn next(failure: &Failure, phase: Phase) -> Next {
    let ran = matches!(phase, Phase::Start | Phase::Open);
    match failure {
        Failure::Key(why) if is_fence(why) => Next::Fenced,
        // C1: another compute runs; to elect ourselves again would end it in turn.
        Failure::Lost(_) => Next::End,
        // The watchdog acts on an agent that was stopped for too long.
        Failure::Sandbox(SandboxError::Ended) | Failure::Silence { .. } => Next::Again,
        Failure::Ended { .. }
        | Failure::Slow
        | Failure::Standby(StandbyError::Postgres { .. })
        | Failure::Sandbox(SandboxError::Failed(_))
            if ran =>
        {
            Next::Anew
        }
        _ if failure.grade().may_retry() && phase != Phase::Open => Next::Again,
        _ => Next::End,
    }
}

/// Whether the settings of `ALTER SYSTEM` can be why a start failed (N3): PostgreSQL was started,
/// and did not come as far as an open door.
pub(super) const fn blames_settings(failure: &Failure, phase: Phase) -> bool {
    matches!(phase, Phase::Start)
        && matches!(
            failure,
            Failure::Ended { .. }
                | Failure::Slow
                | Failure::NotLetIn(_)
                | Failure::Standby(StandbyError::Postgres { .. })
        )
}

const fn is_fence(why: &KeyError) -> bool {
    matches!(
        why.grade(),
        api::Grade::KeyUnavailable | api::Grade::Retry | api::Grade::RetryElsewhere
    )
}

/// Counts the ends of a PostgreSQL that ended by itself.
#[derive(Debug, Default)]
pub(super) struct Crashes {
    fast: u32,
}

impl Crashes {
    /// How long to wait before the next start, after one that was open for `open`; none where it
    /// is time to give up.
    pub(super) fn count(&mut self, open: Duration) -> Option<Duration> {
        if open >= FAST {
            self.fast = 0;
        }
        self.fast += 1;
        let backoff = Duration::from_secs(1 << (self.fast - 1).min(5)).min(BACKOFF_MAX);
        (self.fast <= FAST_MAX).then_some(backoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proposer::ProposerLost;

    fn crash() -> Failure {
        Failure::Ended { code: None }
    }

    #[test]
    fn a_postgres_that_ends_by_itself_is_started_anew() {
        assert_eq!(next(&crash(), Phase::Open), Next::Anew);
        assert_eq!(next(&crash(), Phase::Start), Next::Anew);
        let gone = StandbyError::Postgres {
            what: "streaming",
            source: service::libpq::WireError::Closed,
        };
        assert_eq!(next(&Failure::Standby(gone), Phase::Open), Next::Anew);
        let disk = SandboxError::Failed("the sealed disk is gone".to_owned());
        assert_eq!(next(&disk.into(), Phase::Open), Next::Anew);
    }

    #[test]
    fn what_is_not_repaired_by_a_start_ends_the_agent() {
        let lost = ProposerLost {
            reason: "term 2".to_owned(),
        };
        for phase in [Phase::Election, Phase::Start, Phase::Open] {
            let lost = Failure::Lost(lost.clone());
            assert_eq!(next(&lost, phase), Next::End, "C1");
        }
        let gap = StandbyError::Gap {
            expected: ids::Lsn(8),
            got: ids::Lsn(16),
        };
        assert_eq!(next(&Failure::Standby(gap), Phase::Open), Next::End);
        assert_eq!(next(&Failure::Swap, Phase::Lease), Next::End);
    }

    #[test]
    fn settings_are_blamed_for_a_start_that_came_to_nothing_and_for_nothing_else() {
        assert!(blames_settings(&crash(), Phase::Start));
        assert!(blames_settings(&Failure::Slow, Phase::Start));
        assert!(!blames_settings(&crash(), Phase::Open));
        assert!(!blames_settings(&Failure::Swap, Phase::Start));
        let lost = ProposerLost {
            reason: "term 2".to_owned(),
        };
        assert!(!blames_settings(&Failure::Lost(lost), Phase::Start), "C1");
    }

    #[test]
    fn fast_failures_wait_longer_and_longer_and_end() {
        let mut crashes = Crashes::default();
        let waits: Vec<_> = (0..=FAST_MAX)
            .map(|_| crashes.count(Duration::ZERO).map(|wait| wait.as_secs()))
            .collect();
        let expected = [1, 2, 4, 8, 16, 30, 30, 30].map(Some);
        assert_eq!(waits[..8], expected);
        assert_eq!(waits[8], None);
        // One that ran for long begins anew.
        assert_eq!(crashes.count(FAST), Some(Duration::from_secs(1)));
    }
}
