//! Brings finished segments into the bucket, in their order.

use std::time::Duration;

use bytes::BytesMut;
use ids::Lsn;
use service::task::Shutdown;
use store::{PutError, SealedPutError};

use crate::archive::{Archive, ArchiveError, Upload};
use crate::metrics::metrics;
use crate::timeline::{Timeline, TimelineError};
use crate::wal_store::SEGMENT_BYTES;

const RETRY: Duration = Duration::from_secs(5);
/// What is read at once, so that appends come between.
const READ_BYTES: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
enum OffloadError {
    #[error(transparent)]
    Timeline(#[from] TimelineError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Seal(#[from] SealedPutError),
    #[error(transparent)]
    Put(#[from] PutError),
}

/// Offloads until the timeline ends.
pub(crate) async fn keep(timeline: Timeline, archive: Archive, stop: Shutdown) {
    tokio::select! {
        () = stop.requested() => {}
        // K6: what is half done is dropped with its plaintext.
        _ = timeline.ended() => {}
        () = run(&timeline, &archive) => {}
    }
}

async fn run(timeline: &Timeline, archive: &Archive) {
    let mut position = timeline.position();
    let mut upload = None;
    loop {
        let now = *position.borrow_and_update();
        let Some((segment, start, end)) = next(now.backup.max(now.first), now.commit) else {
            if position.changed().await.is_err() {
                return;
            }
            continue;
        };
        match offload(timeline, archive, segment, start..end, &mut upload).await {
            Ok(()) => upload = None,
            Err(error) => {
                let id = timeline.place().timeline;
                tracing::warn!(timeline = %id, segment, %error, "a segment is not in the bucket");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// The segment that WAL at `from` belongs to, where it is finished and committed (D5).
fn next(from: Lsn, commit: Lsn) -> Option<(u64, Lsn, Lsn)> {
    let segment = from.is_valid().then(|| from.segment(SEGMENT_BYTES))?;
    let end = Lsn((segment + 1).saturating_mul(SEGMENT_BYTES));
    (end <= commit).then_some((segment, from, end))
}

async fn offload(
    timeline: &Timeline,
    archive: &Archive,
    segment: u64,
    range: std::ops::Range<Lsn>,
    upload: &mut Option<Upload>,
) -> Result<(), OffloadError> {
    let (keys, place) = (timeline.keys(), timeline.place());
    // Another safekeeper may have been first: any copy will do.
    let there = upload.is_none()
        && archive
            .holds(keys, place.timeline, segment, range.start)
            .await?;
    if !there {
        // D3: sealed once, put until it is there.
        let sealed = match upload {
            Some(sealed) => sealed,
            None => {
                let wal = read(timeline, range.clone()).await?;
                let sealed = archive.seal(keys, place.timeline, place.generation, segment, &wal);
                upload.insert(sealed.await?)
            }
        };
        timeline.check()?;
        archive.put(sealed).await?;
        metrics().segments_offloaded.inc();
    }
    Ok(timeline.backed_up(range.end).await?)
}

async fn read(timeline: &Timeline, range: std::ops::Range<Lsn>) -> Result<BytesMut, TimelineError> {
    let length = usize::try_from(range.end - range.start).unwrap_or_default();
    let mut wal = BytesMut::with_capacity(length);
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + READ_BYTES);
        wal.extend_from_slice(&timeline.read(at..end).await?);
        at = end;
    }
    Ok(wal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finished_and_committed_segments_go() {
        let border = |n: u64| Lsn(n * SEGMENT_BYTES);
        let start = Lsn(5 * SEGMENT_BYTES + 100);
        assert_eq!(next(Lsn(0), border(9)), None);
        assert_eq!(next(start, Lsn(border(6).0 - 8)), None);
        assert_eq!(next(start, border(6)), Some((5, start, border(6))));
        assert_eq!(next(border(6), border(6)), None);
        assert_eq!(next(border(6), border(8)), Some((6, border(6), border(7))));
    }
}
