//! Manifests that are far below the newest are taken away (D3).

use store::{GetError, documents};

use super::Timeline;

/// After as many manifests the old ones are looked for.
const EVERY: u64 = 32;
/// As many of the newest stay: whoever lists sees the numbers of those who are still about.
const SPARED: usize = 128;
/// As many go at a time, so that nobody waits long for the one who puts manifests.
const AT_A_TIME: usize = 64;

impl Timeline {
    /// Takes old manifests away, now and then: each list of them goes through all. Only on the
    /// strength of `accepted`, which is newer and was accepted (D2). Failing harms nobody.
    pub(super) async fn prune_after(&self, accepted: u64) {
        if !accepted.is_multiple_of(EVERY) {
            return;
        }
        if let Err(error) = self.prune(accepted).await {
            tracing::warn!(timeline = %self.home.timeline, %error, "old manifests stay");
        }
    }

    async fn prune(&self, accepted: u64) -> Result<(), GetError> {
        let (bucket, series) = (&self.home.bucket, self.home.manifests());
        let numbers = documents::numbers(bucket, &series).await?;
        // The oldest first, so that what is there has no gaps.
        let old = numbers.into_iter().skip(SPARED).filter(|n| *n < accepted);
        let old: Vec<u64> = old.collect();
        for number in old.into_iter().rev().take(AT_A_TIME) {
            bucket.delete(&series.name(number)).await?;
        }
        Ok(())
    }
}
