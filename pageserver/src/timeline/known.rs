//! What is known of a timeline's manifests, before it is attached and after.

use ids::TimelineId;

use super::home::Home;
use super::{AttachError, Timeline};

impl Home {
    /// The parent that has to be attached first; `None` where the timeline has none.
    pub(crate) async fn ancestor(&self) -> Result<Option<TimelineId>, AttachError> {
        let (_, manifest) = self
            .newest()
            .await?
            .ok_or(AttachError::Absent(self.timeline))?;
        Ok(manifest.ancestor.map(|ancestor| ancestor.timeline))
    }
}

impl Timeline {
    /// The number of the newest manifest from here that was accepted: what a bucket that was set
    /// back is told by.
    pub(crate) async fn accepted_manifest(&self) -> u64 {
        self.writer.lock().await.accepted
    }
}
