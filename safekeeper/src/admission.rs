//! Whether the bucket may be written to: only one that has passed the probe may (D4). One that
//! answers and fails it is refused, which ends the process; one that does not answer is asked
//! again and again, while WAL is served from this node's disk.

use std::time::Duration;

use service::task::Shutdown;
use store::ProbeError;

use crate::archive::Archive;

/// How long the start waits for the first answer.
const FIRST: Duration = Duration::from_secs(5);
/// Between two attempts.
pub const EVERY: Duration = Duration::from_secs(5);

/// Asks for the first time; where nobody answers, [`keep`] goes on asking.
///
/// # Errors
/// The bucket is refused.
pub async fn begin(archive: &Archive) -> Result<(), ProbeError> {
    let asked = tokio::time::timeout(FIRST, archive.probe()).await;
    let silent = format!("nothing within {} s", FIRST.as_secs());
    match asked.unwrap_or(Err(ProbeError::Unavailable(silent))) {
        Err(ProbeError::Unavailable(reason)) => {
            archive.heard(false);
            tracing::warn!(%reason, "the bucket does not answer: all WAL stays here until it does");
            Ok(())
        }
        answered => answered,
    }
}

/// Asks until the bucket has passed, and again whenever it does not answer, so that its return is
/// noticed where nothing else is asked of it; waits for `every` before each time.
///
/// # Errors
/// The bucket is refused.
pub async fn keep(archive: &Archive, every: Duration, stop: &Shutdown) -> Result<(), ProbeError> {
    loop {
        tokio::select! {
            () = stop.requested() => return Ok(()),
            () = tokio::time::sleep(every) => {}
        }
        if archive.is_admitted() && archive.unreachable_since().is_none() {
            continue;
        }
        let asked = tokio::select! {
            () = stop.requested() => return Ok(()),
            asked = archive.probe() => asked,
        };
        match asked {
            Ok(()) => tracing::info!("the bucket answers, and keeps what it has to"),
            Err(ProbeError::Unavailable(reason)) => {
                tracing::debug!(%reason, "the bucket does not answer");
            }
            Err(refused) => return Err(refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use store::fault::{Fault, Operation};
    use store::names::Cell;
    use store::{Bucket, BucketConfig};

    use super::*;

    const OFTEN: Duration = Duration::from_millis(1);

    /// A bucket whose first puts fail in this way.
    fn archive(root: &std::path::Path, fault: Fault, puts: usize) -> Archive {
        let bucket = Bucket::open(&BucketConfig::directory(root)).unwrap();
        let made = AtomicUsize::new(0);
        let fault = move |operation, _: &str| match operation {
            Operation::Put if made.fetch_add(1, Ordering::Relaxed) < puts => fault,
            _ => Fault::None,
        };
        let cell = Cell::new("dev").unwrap();
        Archive::new(bucket.with_faults(Arc::new(fault)), cell)
    }

    #[tokio::test]
    async fn one_that_does_not_answer_is_asked_until_it_passes() {
        let root = tempfile::tempdir().unwrap();
        let archive = archive(root.path(), Fault::Lost, 100);
        begin(&archive).await.unwrap();
        assert!(!archive.is_admitted());
        assert!(archive.unreachable_since().is_some());
        let stop = Shutdown::new();
        let kept = keep(&archive, OFTEN, &stop);
        let told = async {
            archive.admitted().await;
            assert_eq!(archive.unreachable_since(), None);
            // Silent later: asked again, though nobody writes to it.
            archive.heard(false);
            while archive.unreachable_since().is_some() {
                tokio::time::sleep(OFTEN).await;
            }
            stop.request();
        };
        tokio::join!(async { kept.await.unwrap() }, told);
    }

    #[tokio::test]
    async fn one_that_answers_and_fails_is_refused_at_any_time() {
        let root = tempfile::tempdir().unwrap();
        let careless = archive(root.path(), Fault::ConditionIgnored, usize::MAX);
        let refused = begin(&careless).await.err().unwrap();
        assert!(matches!(refused, ProbeError::NotConditional { .. }), "D4");
        let refused = keep(&careless, OFTEN, &Shutdown::new()).await;
        let refused = refused.err().unwrap();
        assert!(matches!(refused, ProbeError::NotConditional { .. }), "D4");
        assert!(!careless.is_admitted());
    }
}
