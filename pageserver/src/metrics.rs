//! What is counted. Labels are ids: nothing of a customer's is in them.

use std::sync::OnceLock;
use std::time::Duration;

use ids::{NodeId, TenantId, TimelineId};
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
};

use crate::tenants::Attached;

struct Metrics {
    last_record: IntGaugeVec,
    remote_consistent: IntGaugeVec,
    ingested: IntCounter,
    damaged_wal: IntCounterVec,
    requests: HistogramVec,
    flushes: Histogram,
    compactions: IntCounter,
    unreadable: IntCounterVec,
}

/// A read of WAL was taken in.
pub(crate) fn ingested(bytes: usize) {
    if let Some(metrics) = metrics() {
        metrics.ingested.inc_by(bytes as u64);
    }
}

/// A safekeeper sent damaged WAL. It is counted by safekeeper over all attachments.
pub(crate) fn damaged_wal(tenant: TenantId, timeline: TimelineId, safekeeper: NodeId) {
    if let Some(metrics) = metrics() {
        let labels = [
            tenant.to_string(),
            timeline.to_string(),
            safekeeper.to_string(),
        ];
        metrics.damaged_wal.with_label_values(&labels).inc();
    }
}

/// A request of a page stream was answered.
pub(crate) fn answered(kind: &'static str, took: Duration) {
    if let Some(metrics) = metrics() {
        let histogram = metrics.requests.with_label_values(&[kind]);
        histogram.observe(took.as_secs_f64());
    }
}

/// A flush reached the bucket.
pub(crate) fn flushed(took: Duration) {
    if let Some(metrics) = metrics() {
        metrics.flushes.observe(took.as_secs_f64());
    }
}

/// A compaction wrote images.
pub(crate) fn compacted() {
    if let Some(metrics) = metrics() {
        metrics.compactions.inc();
    }
}

/// A page was wanted that cannot be made of what is stored.
pub(crate) fn unreadable(tenant: TenantId, timeline: TimelineId) {
    if let Some(metrics) = metrics() {
        let labels = [tenant.to_string(), timeline.to_string()];
        metrics.unreadable.with_label_values(&labels).inc();
    }
}

/// How far a timeline is.
pub(crate) fn progress(attached: &Attached) {
    let timeline = &attached.timeline;
    let (Some(metrics), Ok(last), Ok(consistent)) = (
        metrics(),
        timeline.last_lsn(),
        timeline.remote_consistent_lsn(),
    ) else {
        return;
    };
    let (tenant, timeline) = (timeline.tenant().to_string(), timeline.id().to_string());
    let labels = [tenant.as_str(), timeline.as_str()];
    for (gauge, lsn) in [
        (&metrics.last_record, last),
        (&metrics.remote_consistent, consistent),
    ] {
        let value = i64::try_from(lsn.0).unwrap_or(i64::MAX);
        gauge.with_label_values(&labels).set(value);
    }
}

/// A timeline is not attached any more.
pub(crate) fn forget(tenant: TenantId, timeline: TimelineId) {
    if let Some(metrics) = metrics() {
        let (tenant, timeline) = (tenant.to_string(), timeline.to_string());
        for gauge in [&metrics.last_record, &metrics.remote_consistent] {
            // One that was never set is not there.
            drop(gauge.remove_label_values(&[&tenant, &timeline]));
        }
    }
}

/// `None` where they could not be made, which no work depends on.
fn metrics() -> Option<&'static Metrics> {
    static METRICS: OnceLock<Option<Metrics>> = OnceLock::new();
    let made = METRICS.get_or_init(|| match make() {
        Ok(metrics) => Some(metrics),
        Err(error) => {
            tracing::error!(%error, "there are no metrics");
            None
        }
    });
    made.as_ref()
}

fn make() -> prometheus::Result<Metrics> {
    let of_timeline = ["tenant", "timeline"];
    let gauge =
        |name: &str, help: &str| registered(IntGaugeVec::new(Opts::new(name, help), &of_timeline)?);
    let latency = |name: &str, help: &str| {
        let buckets = prometheus::exponential_buckets(0.0001, 3.0, 11)?;
        Ok::<_, prometheus::Error>(HistogramOpts::new(name, help).buckets(buckets))
    };
    Ok(Metrics {
        last_record: gauge(
            "redoubt_pageserver_last_record_lsn",
            "Everything at or below was taken in",
        )?,
        remote_consistent: gauge(
            "redoubt_pageserver_remote_consistent_lsn",
            "Everything at or below is in the bucket",
        )?,
        ingested: registered(IntCounter::new(
            "redoubt_pageserver_ingested_bytes_total",
            "Bytes of WAL taken in",
        )?)?,
        damaged_wal: registered(IntCounterVec::new(
            Opts::new(
                "redoubt_pageserver_damaged_wal_total",
                "Times that a safekeeper sent WAL which cannot be taken in",
            ),
            &["tenant", "timeline", "safekeeper"],
        )?)?,
        requests: registered(HistogramVec::new(
            latency(
                "redoubt_pageserver_request_seconds",
                "Time from a request of a page stream to its answer",
            )?,
            &["kind"],
        )?)?,
        flushes: registered(Histogram::with_opts(latency(
            "redoubt_pageserver_flush_seconds",
            "Time that a flush to the bucket took",
        )?)?)?,
        compactions: registered(IntCounter::new(
            "redoubt_pageserver_compactions_total",
            "Times that images were written of what changed",
        )?)?,
        unreadable: registered(IntCounterVec::new(
            Opts::new(
                "redoubt_pageserver_unreadable_total",
                "Times that a page was wanted which cannot be redone",
            ),
            &of_timeline,
        )?)?,
    })
}

fn registered<C: Collector + Clone + 'static>(metric: C) -> prometheus::Result<C> {
    let registry = service::metrics::registry();
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
