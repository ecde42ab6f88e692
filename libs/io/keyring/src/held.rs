//! How many data keys are in memory: a fenced node can show that it holds none (K6).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use prometheus::IntGauge;
use sealed::Dek;

/// The keys of one keyring.
#[derive(Default)]
pub(crate) struct Held(AtomicUsize);

/// A key that counts for as long as it is not wiped.
pub(crate) struct Counted {
    /// Wiped by its drop.
    pub(crate) dek: Dek,
    held: Arc<Held>,
}

impl Held {
    pub(crate) fn count(self: &Arc<Self>, dek: Dek) -> Counted {
        self.0.fetch_add(1, Ordering::AcqRel);
        if let Some(gauge) = gauge() {
            gauge.inc();
        }
        Counted {
            dek,
            held: Arc::clone(self),
        }
    }

    pub(crate) fn now(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.held.0.fetch_sub(1, Ordering::AcqRel);
        if let Some(gauge) = gauge() {
            gauge.dec();
        }
    }
}

/// Of the whole process; `None` where it cannot be shown.
fn gauge() -> Option<&'static IntGauge> {
    static GAUGE: OnceLock<Option<IntGauge>> = OnceLock::new();
    let begin = || {
        let help = "data keys in memory that are not wiped";
        let gauge = IntGauge::new("redoubt_deks_held", help).ok()?;
        match service::metrics::registry().register(Box::new(gauge.clone())) {
            Ok(()) => Some(gauge),
            Err(error) => {
                tracing::warn!(%error, "redoubt_deks_held is not shown");
                None
            }
        }
    };
    GAUGE.get_or_init(begin).as_ref()
}
