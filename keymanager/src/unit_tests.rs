//! Scripts of probes against the state machine: times in seconds.

use super::*;
use ErrorClass::{BrokenBlob, OurFault, Outage, Refused};

const DENIED: ErrorClass = Refused {
    reason: RevokeReason::AccessDenied,
    at_once: false,
};
const DISABLED: ErrorClass = Refused {
    reason: RevokeReason::Disabled,
    at_once: true,
};
const DENIAL: Closed = Closed::Refused(RevokeReason::AccessDenied);

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn active_since(t_ok: u64) -> Unit {
    let mut unit = Unit::new(Timings::default());
    assert_eq!(
        unit.remaining(s(t_ok)),
        None,
        "nothing is granted before the first answer"
    );
    assert_eq!(unit.on_success(s(t_ok)), None);
    unit
}

#[test]
fn a_lease_counts_from_the_sending_of_the_last_success() {
    let unit = active_since(100);
    for (now, left) in [
        (100, Some(45)),
        (110, Some(35)),
        (144, Some(1)),
        (145, None),
        (200, None),
    ] {
        assert_eq!(unit.remaining(s(now)), left.map(s), "K2 at {now}");
    }
    assert_eq!(unit.next_probe(), s(115));
}

#[test]
fn disabled_counts_at_once() {
    let mut unit = active_since(100);
    let fence = Transition::Fence(Closed::Refused(RevokeReason::Disabled));
    assert_eq!(unit.on_failure(s(115), DISABLED), Some(fence));
    assert_eq!(unit.remaining(s(115)), None);
    assert_eq!(unit.state(), TenantState::Revoked(RevokeReason::Disabled));
    assert_eq!(unit.on_failure(s(125), DISABLED), None, "fenced once");
}

#[test]
fn other_refusals_need_two_strikes_apart() {
    let mut unit = active_since(100);
    assert_eq!(unit.on_failure(s(115), DENIED), None);
    assert_eq!(unit.next_probe(), s(120));
    assert_eq!(
        unit.on_failure(s(117), DENIED),
        None,
        "too near to be the second"
    );
    assert_eq!(unit.state(), TenantState::Active);
    assert_eq!(
        unit.on_failure(s(120), DENIED),
        Some(Transition::Fence(DENIAL))
    );
}

#[test]
fn a_success_takes_a_strike_back_unless_it_is_older() {
    let mut unit = active_since(100);
    unit.on_failure(s(115), DENIED);
    unit.on_success(s(114));
    assert_eq!(
        unit.remaining(s(115)),
        Some(s(30)),
        "an overtaken answer extends nothing"
    );
    unit.on_success(s(116));
    assert_eq!(unit.on_failure(s(130), DENIED), None, "counting began anew");
}

#[test]
fn a_success_sent_before_the_fence_does_not_heal() {
    let mut unit = active_since(100);
    unit.on_failure(s(115), DENIED);
    unit.on_failure(s(120), DENIED);
    assert_eq!(unit.on_success(s(118)), None);
    assert_eq!(unit.remaining(s(121)), None);
    assert_eq!(unit.on_success(s(130)), Some(Transition::Healed));
}

#[test]
fn an_outage_is_ridden_out_until_the_grace_ends() {
    for class in [Outage, OurFault] {
        let mut unit = active_since(100);
        assert_eq!(unit.on_failure(s(115), class), None);
        assert_eq!(unit.state(), TenantState::Unverified);
        assert_eq!(unit.remaining(s(500)), Some(s(45)));
        assert_eq!(
            unit.remaining(s(990)),
            Some(s(10)),
            "K3: not beyond t_ok + G"
        );
        assert_eq!(unit.on_tick(s(999)), None);
        assert_eq!(
            unit.on_tick(s(1000)),
            Some(Transition::Fence(Closed::GraceEnded))
        );
        assert_eq!(unit.remaining(s(1000)), None);
        assert_eq!(unit.on_success(s(1010)), Some(Transition::Healed));
    }
}

#[test]
fn without_grace_an_outage_closes_at_once() {
    let mut unit = Unit::new(Timings {
        grace: Duration::ZERO,
        ..Timings::default()
    });
    unit.on_success(s(100));
    assert_eq!(
        unit.on_failure(s(115), Outage),
        Some(Transition::Fence(Closed::GraceEnded))
    );
}

#[test]
fn a_refusal_followed_by_silence_gets_no_grace() {
    let mut unit = active_since(100);
    unit.on_failure(s(115), DENIED);
    assert_eq!(unit.on_failure(s(120), Outage), None);
    assert_eq!(unit.remaining(s(130)), Some(s(15)), "K2: t_ok + 45 s holds");
    assert_eq!(unit.on_tick(s(145)), Some(Transition::Fence(DENIAL)));
}

#[test]
fn a_broken_canary_neither_fences_nor_extends() {
    let mut unit = active_since(100);
    assert_eq!(
        unit.on_failure(s(115), BrokenBlob),
        Some(Transition::BrokenCanary)
    );
    assert_eq!(unit.state(), TenantState::Active);
    assert_eq!(unit.remaining(s(115)), Some(s(30)));
    let mut now = s(115);
    for wait in [200, 400, 800] {
        assert_eq!(unit.next_probe() - now, Duration::from_millis(wait), "K8");
        now = unit.next_probe();
        unit.on_failure(now, BrokenBlob);
    }
}

#[test]
fn a_revoked_unit_is_probed_and_heals() {
    let mut unit = active_since(100);
    unit.on_failure(s(115), DISABLED);
    assert_eq!(unit.next_probe(), s(125));
    unit.on_failure(s(125), Outage);
    assert_eq!(
        unit.state(),
        TenantState::Revoked(RevokeReason::Disabled),
        "no grace for it"
    );
    assert_eq!(unit.next_probe(), s(135));
    assert_eq!(unit.on_success(s(135)), Some(Transition::Healed));
    assert_eq!(unit.remaining(s(135)), Some(s(45)));
}

#[test]
fn outages_are_asked_about_less_and_less_often() {
    let mut unit = active_since(100);
    let mut now = s(115);
    for wait in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
        unit.on_failure(now, Outage);
        assert_eq!(unit.next_probe() - now, Duration::from_millis(wait), "K8");
        now = unit.next_probe();
    }
}

#[test]
fn the_kms_is_asked_once_more_before_the_grace_ends() {
    let timings = Timings {
        backoff_max: s(800),
        ..Timings::default()
    };
    let (end, ahead) = (s(100) + timings.grace, timings.lease / 2);
    assert!(ahead > timings.strike + timings.renewal);
    let mut unit = Unit::new(timings);
    unit.on_success(s(100));
    let mut now = s(115);
    for _ in 0..20 {
        assert_eq!(unit.on_failure(now, Outage), None);
        if unit.next_probe() >= end {
            break;
        }
        now = unit.next_probe();
    }
    assert_eq!(now, end - ahead, "K3");
}
