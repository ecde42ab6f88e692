//! What `/metrics` shows beside the names of no tenant.

use std::sync::OnceLock;

use prometheus::{IntCounter, IntGauge};

/// The counters of this process.
pub(crate) struct Metrics {
    /// Bytes of WAL made durable.
    pub(crate) wal_bytes: IntCounter,
    /// Writes of WAL, each with its sync: fewer than appends where these wait for each other.
    pub(crate) wal_writes: IntCounter,
    /// Appends of proposers.
    pub(crate) appends: IntCounter,
    /// Segments that this node has brought into the bucket.
    pub(crate) segments_offloaded: IntCounter,
    /// Beginnings of segments that this node has brought into the bucket (D8).
    pub(crate) tails_offloaded: IntCounter,
    /// Since when the bucket does not answer; 0 where it does.
    pub(crate) bucket_unreachable_since: IntGauge,
    /// Timelines whose log came into doubt (A5).
    pub(crate) doubts: IntCounter,
}

/// The counters of this process.
pub(crate) fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| Metrics {
        wal_bytes: counter("wal_bytes_total", "Bytes of WAL made durable"),
        wal_writes: counter("wal_writes_total", "Writes of WAL, each with its sync"),
        appends: counter("appends_total", "Appends of proposers"),
        segments_offloaded: counter("segments_offloaded_total", "Segments put into the bucket"),
        tails_offloaded: counter(
            "tails_offloaded_total",
            "Beginnings of segments put into it",
        ),
        bucket_unreachable_since: gauge(
            "bucket_unreachable_since_seconds",
            "Unix time since which the bucket does not answer, 0 where it does",
        ),
        doubts: counter("doubts_total", "Timelines whose log came into doubt"),
    })
}

fn counter(name: &str, help: &str) -> IntCounter {
    let name = format!("redoubt_safekeeper_{name}");
    let counter = IntCounter::new(name, help).expect("the names above are valid");
    // An error says that the name is taken, and then the counter is not shown.
    drop(service::metrics::registry().register(Box::new(counter.clone())));
    counter
}

fn gauge(name: &str, help: &str) -> IntGauge {
    let name = format!("redoubt_safekeeper_{name}");
    let gauge = IntGauge::new(name, help).expect("the names above are valid");
    // As above.
    drop(service::metrics::registry().register(Box::new(gauge.clone())));
    gauge
}
