//! Every time that a bound of KEYS.md is made of; all can be set, so that a drill runs in seconds.

use std::time::Duration;

/// The times of one key configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timings {
    /// P: from one probe of a unit that answers to the next (K1).
    pub probe: Duration,
    /// No lease outlives the last successful decrypt by more than this (K2).
    pub lease: Duration,
    /// Between two renewals of a node (K2).
    pub renewal: Duration,
    /// Between the two strikes that make a refusal definitive (K8).
    pub strike: Duration,
    /// G: how long an outage may last, counted from the last successful decrypt (K3).
    pub grace: Duration,
    /// R: how long a fence waits for running operations (K2).
    pub drain: Duration,
    /// Between probes of a revoked unit, so that a re-grant heals by itself (K8).
    pub heal: Duration,
    /// The first wait after an outage; it doubles from there (K8).
    pub backoff_min: Duration,
    /// The longest wait during an outage (K8).
    pub backoff_max: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            probe: Duration::from_secs(15),
            lease: Duration::from_secs(45),
            renewal: Duration::from_secs(10),
            strike: Duration::from_secs(5),
            grace: Duration::from_secs(900),
            drain: Duration::from_secs(5),
            heal: Duration::from_secs(10),
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_secs(10),
        }
    }
}
