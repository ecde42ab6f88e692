//! The state of one authorization unit (K1, K3, K8) and the leases that it allows (K2).
//!
//! Times are on BOOTTIME, as durations; probes and their answers come in, decisions go out.

use std::time::Duration;

use api::keys::{RevokeReason, TenantState};

use crate::class::ErrorClass;
use crate::timings::Timings;

/// Why a unit is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The KMS refused.
    Refused(RevokeReason),
    /// The KMS could not be asked for longer than the grace.
    GraceEnded,
}

impl Closed {
    /// As nodes and operators are told.
    #[must_use]
    pub const fn reason(self) -> RevokeReason {
        match self {
            Self::Refused(reason) => reason,
            Self::GraceEnded => RevokeReason::GraceEnded,
        }
    }
}

/// What the caller has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Fence all tenants of the unit.
    Fence(Closed),
    /// The unit answers again: mint a new KEK version with the next grant (K8).
    Healed,
    /// The canary does not open: raise an alarm and probe with another one.
    BrokenCanary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Untried,
    Active,
    Unverified { failures: u32 },
    Closed(Closed),
}

/// One authorization unit.
#[derive(Debug, Clone)]
pub struct Unit {
    timings: Timings,
    state: State,
    /// When the last successful decrypt was *sent* (K2).
    t_ok: Option<Duration>,
    /// The first refusal that no success followed: when it arrived, and what it said.
    strike: Option<(Duration, RevokeReason)>,
    /// How often in a row the canary did not open.
    broken: u32,
    next_probe: Duration,
}

impl Unit {
    /// A unit that nobody has asked yet: it grants nothing.
    #[must_use]
    pub const fn new(timings: Timings) -> Self {
        Self {
            timings,
            state: State::Untried,
            t_ok: None,
            strike: None,
            broken: 0,
            next_probe: Duration::ZERO,
        }
    }

    /// When to probe next; the caller adds jitter towards the earlier side.
    #[must_use]
    pub const fn next_probe(&self) -> Duration {
        self.next_probe
    }

    /// When the last successful decrypt was sent.
    #[must_use]
    pub const fn t_ok(&self) -> Option<Duration> {
        self.t_ok
    }

    /// Why the unit is closed, where it is.
    #[must_use]
    pub const fn closed(&self) -> Option<Closed> {
        match self.state {
            State::Closed(why) => Some(why),
            State::Untried | State::Active | State::Unverified { .. } => None,
        }
    }

    /// What nodes are told.
    #[must_use]
    pub const fn state(&self) -> TenantState {
        match self.state {
            State::Untried => TenantState::Unknown,
            State::Active => TenantState::Active,
            // Nobody refused, so a keymanager that reaches the KMS may still grant: "revoked"
            // would keep a node from asking it (K3).
            State::Unverified { .. } | State::Closed(Closed::GraceEnded) => TenantState::Unverified,
            State::Closed(Closed::Refused(reason)) => TenantState::Revoked(reason),
        }
    }

    /// How long a lease granted now may run; `None` where none is granted (K2, K3).
    #[must_use]
    pub fn remaining(&self, now: Duration) -> Option<Duration> {
        let t_ok = self.t_ok?;
        let strict_end = t_ok + self.timings.lease;
        let end = match self.state {
            State::Untried | State::Closed(_) => return None,
            State::Active => strict_end,
            // A refusal and then silence is a revocation in the making, not an outage.
            State::Unverified { .. } if self.strike.is_some() => strict_end,
            State::Unverified { .. } => (t_ok + self.timings.grace).min(now + self.timings.lease),
        };
        end.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// The KMS answered a probe that was sent at `sent`: the decrypt succeeded.
    pub fn on_success(&mut self, sent: Duration) -> Option<Transition> {
        // An answer that was overtaken by a refusal is older than what is known.
        if self.strike.is_some_and(|(at, _)| sent < at) {
            return None;
        }
        let healed = matches!(self.state, State::Closed(_));
        self.t_ok = self.t_ok.max(Some(sent));
        self.strike = None;
        self.broken = 0;
        self.state = State::Active;
        self.next_probe = sent + self.timings.probe;
        healed.then_some(Transition::Healed)
    }

    /// A probe failed; the answer, or its absence, was seen at `now`.
    pub fn on_failure(&mut self, now: Duration, class: ErrorClass) -> Option<Transition> {
        match class {
            ErrorClass::Refused { reason, at_once } => self.on_refusal(now, reason, at_once),
            ErrorClass::Outage | ErrorClass::OurFault => self.on_outage(now),
            ErrorClass::BrokenBlob => {
                self.next_probe = now + self.backoff(self.broken);
                self.broken = self.broken.saturating_add(1);
                self.on_tick(now).or(Some(Transition::BrokenCanary))
            }
        }
    }

    /// Time passed: a grace, or a lease under a first strike, may have ended.
    pub fn on_tick(&mut self, now: Duration) -> Option<Transition> {
        let t_ok = match self.state {
            State::Untried | State::Closed(_) => return None,
            State::Active | State::Unverified { .. } => self.t_ok?,
        };
        if let Some((_, reason)) = self.strike {
            let over = now >= t_ok + self.timings.lease;
            return if over {
                self.close(now, Closed::Refused(reason))
            } else {
                None
            };
        }
        let unverified = matches!(self.state, State::Unverified { .. });
        if unverified && now >= t_ok + self.timings.grace {
            return self.close(now, Closed::GraceEnded);
        }
        None
    }

    fn on_refusal(
        &mut self,
        now: Duration,
        reason: RevokeReason,
        at_once: bool,
    ) -> Option<Transition> {
        let (first, _) = *self.strike.get_or_insert((now, reason));
        if at_once || now >= first + self.timings.strike {
            return self.close(now, Closed::Refused(reason));
        }
        self.next_probe = first + self.timings.strike;
        self.on_tick(now)
    }

    fn on_outage(&mut self, now: Duration) -> Option<Transition> {
        let failures = match self.state {
            State::Closed(_) => {
                self.next_probe = now + self.timings.heal;
                return None;
            }
            State::Unverified { failures } => failures.saturating_add(1),
            State::Untried | State::Active => 0,
        };
        self.next_probe = now + self.backoff(failures);
        let t_ok = self.t_ok?;
        // Nothing closes for an outage that is over: one question comes so long before the end of
        // the grace that its answer still reaches the nodes by their renewals.
        let last = (t_ok + self.timings.grace).saturating_sub(self.timings.lease / 2);
        if now < last {
            self.next_probe = self.next_probe.min(last);
        }
        self.state = State::Unverified { failures };
        self.on_tick(now)
    }

    /// The wait after the `failures`th failure, counted from 0 (K8).
    fn backoff(&self, failures: u32) -> Duration {
        let wait = self
            .timings
            .backoff_min
            .saturating_mul(1 << failures.min(16));
        wait.min(self.timings.backoff_max)
    }

    fn close(&mut self, now: Duration, why: Closed) -> Option<Transition> {
        self.next_probe = now + self.timings.heal;
        if let Closed::Refused(reason) = why {
            // A success that was sent before this moment must not heal.
            self.strike = Some((now, reason));
        }
        let was = std::mem::replace(&mut self.state, State::Closed(why));
        // A refusal after the grace names the true reason, but nodes are fenced already.
        (!matches!(was, State::Closed(_))).then_some(Transition::Fence(why))
    }
}

#[cfg(test)]
#[path = "unit_tests.rs"]
mod tests;
