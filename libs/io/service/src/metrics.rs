//! Metrics of the process, in Prometheus' text form.

use std::sync::OnceLock;

use prometheus::{Registry, TextEncoder};

/// The registry whose content `/metrics` shows.
pub fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(Registry::new)
}

/// Everything registered, as text.
///
/// # Errors
/// A metric that cannot be written down.
pub fn render() -> Result<String, prometheus::Error> {
    TextEncoder::new().encode_to_string(&registry().gather())
}
