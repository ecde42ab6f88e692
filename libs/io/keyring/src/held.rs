//! The data keys in memory: locked (K9), and counted, so that a fenced node can show that it holds
//! none (K6).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use ids::TenantId;
use locked::LockedKey;
use prometheus::IntGauge;
use sealed::Dek;

use crate::KeyError;

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
    /// Moves a key to locked memory.
    ///
    /// # Errors
    /// [`KeyError::NoMemory`].
    pub(crate) fn keep(self: &Arc<Self>, tenant: TenantId, dek: Dek) -> Result<Counted, KeyError> {
        let dek = dek.kept(LockedKey::new);
        let dek = dek.map_err(|source| KeyError::NoMemory { tenant, source })?;
        self.0.fetch_add(1, Ordering::AcqRel);
        if let Some(gauge) = gauge() {
            gauge.inc();
        }
        Ok(Counted {
            dek,
            held: Arc::clone(self),
        })
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
