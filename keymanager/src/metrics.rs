//! What `/metrics` shows.

use std::sync::OnceLock;

use api::keys::TenantState;
use ids::TenantId;
use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use crate::class::ErrorClass;

struct Metrics {
    state: IntGaugeVec,
    probes: IntCounterVec,
    fences: IntCounterVec,
    keys: IntCounterVec,
}

/// The state of `tenant`, as operators are told it.
pub(crate) fn state(tenant: TenantId, state: TenantState) {
    let tenant = tenant.to_string();
    // Every state is shown, so that an alarm needs to know no tenant beforehand.
    for (name, is_it) in [
        ("active", state == TenantState::Active),
        ("unverified", state == TenantState::Unverified),
        ("revoked", matches!(state, TenantState::Revoked(_))),
        ("unknown", state == TenantState::Unknown),
    ] {
        let of = metrics().state.with_label_values(&[&tenant, name]);
        of.set(is_it.into());
    }
}

/// A KMS was asked whether it still opens a KEK.
pub(crate) fn probed(answer: Result<(), ErrorClass>) {
    let outcome = match answer {
        Ok(()) => "opened",
        Err(class) => class.name(),
    };
    metrics().probes.with_label_values(&[outcome]).inc();
}

/// All leases of `tenant` ended.
pub(crate) fn fenced(tenant: TenantId) {
    let of = [&tenant.to_string()];
    metrics().fences.with_label_values(&of).inc();
}

/// `count` data keys are about to leave, as the answer to `what` the ledger calls the request.
pub(crate) fn gave(what: &'static str, count: usize) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    metrics().keys.with_label_values(&[what]).inc_by(count);
}

fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| make().expect("the names below are valid, and registered once"))
}

fn make() -> prometheus::Result<Metrics> {
    let counter = |name: &str, help: &str, labels: &[&str]| {
        registered(IntCounterVec::new(named(name, help), labels)?)
    };
    Ok(Metrics {
        state: registered(IntGaugeVec::new(
            named("tenant_state", "1 for the state that a tenant is in"),
            &["tenant", "state"],
        )?)?,
        probes: counter(
            "probes_total",
            "Questions to a KMS whether it still opens a KEK, by what came of them",
            &["outcome"],
        )?,
        fences: counter("fences_total", "Times that all leases ended", &["tenant"])?,
        keys: counter("data_keys_total", "Data keys that left", &["what"])?,
    })
}

fn named(name: &str, help: &str) -> Opts {
    Opts::new(format!("redoubt_keymanager_{name}"), help)
}

fn registered<C: Collector + Clone + 'static>(metric: C) -> prometheus::Result<C> {
    service::metrics::registry().register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_state_of_a_tenant_is_shown_at_a_time() {
        let tenant = TenantId([0x5a; 16]);
        let shown = |name: &str| {
            let line = format!("{{state=\"{name}\",tenant=\"{tenant}\"}} 1");
            service::metrics::render().expect("metrics").contains(&line)
        };
        state(tenant, TenantState::Active);
        assert!(shown("active") && !shown("revoked"));
        state(
            tenant,
            TenantState::Revoked(api::keys::RevokeReason::Disabled),
        );
        assert!(shown("revoked") && !shown("active"));
    }
}
