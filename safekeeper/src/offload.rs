//! Brings finished segments into the bucket, in their order, and the beginning of the next where it
//! is not finished in time (D8).

use std::ops::Range;
use std::time::Duration;

use bytes::BytesMut;
use ids::Lsn;
use service::clock::boottime;
use service::task::Shutdown;
use store::{GetError, PutError, SealedGetError, SealedPutError};

use crate::archive::{Archive, ArchiveError, Upload};
use crate::metrics::metrics;
use crate::timeline::{Position, Timeline, TimelineError};
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

impl OffloadError {
    /// Whether the bucket does not answer.
    const fn is_silence(&self) -> bool {
        match self {
            Self::Archive(ArchiveError::Get(SealedGetError::Get(error))) => {
                matches!(error, GetError::Unavailable { .. })
            }
            Self::Put(error) => matches!(error, PutError::Unknown { .. }),
            Self::Archive(_) | Self::Timeline(_) | Self::Seal(_) => false,
        }
    }
}

/// Offloads until the timeline ends. What is committed waits for `tail` at most, and a little
/// longer on some nodes, so that one of them does it for all.
pub(crate) async fn keep(timeline: Timeline, archive: Archive, tail: Duration, stop: Shutdown) {
    let turn = u32::try_from(timeline.place().node.0 % 4).unwrap_or_default();
    let patience = tail + tail / 8 * turn;
    tokio::select! {
        () = stop.requested() => {}
        // K6: what is half done is dropped with its plaintext.
        _ = timeline.ended() => {}
        () = run(&timeline, &archive, patience) => {}
    }
}

async fn run(timeline: &Timeline, archive: &Archive, patience: Duration) {
    archive.admitted().await; // D4
    let mut position = timeline.position();
    let (mut upload, mut looked) = (None, false);
    loop {
        let now = *position.borrow_and_update();
        let (range, look_only) = match next(&now, boottime(), patience) {
            Next::Put(range) => (range, false),
            // What was put before the process began is known from the bucket alone.
            Next::Wait(range, _) if !looked => (range, true),
            Next::Wait(_, wait) => {
                tokio::select! {
                    changed = position.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(wait) => {}
                }
                continue;
            }
            Next::Nothing => {
                upload = None;
                if position.changed().await.is_err() {
                    return;
                }
                continue;
            }
        };
        looked = true;
        let segment = range.start.segment(SEGMENT_BYTES);
        let offloaded = match look_only {
            true => look(timeline, archive, &range).await,
            false => offload(timeline, archive, range, &mut upload).await,
        };
        let id = timeline.place().timeline;
        match &offloaded {
            Ok(_) => archive.heard(true),
            Err(error) if error.is_silence() => archive.heard(false),
            Err(_) => {}
        }
        match offloaded {
            Ok(None) => {}
            Ok(Some(end)) => {
                upload = None;
                let told = position.wait_for(|p| p.backup.max(p.partial) >= end).await;
                let Ok(whole) = told.map(|p| p.backup) else {
                    return;
                };
                let tenant = timeline.keys().tenant();
                let removed = archive.remove_replaced(tenant, id, whole, end).await;
                if let Err(error) = removed {
                    tracing::info!(timeline = %id, %error, "beginnings of segments are not removed");
                }
            }
            Err(error) => {
                tracing::warn!(timeline = %id, segment, %error, "WAL is not brought into the bucket");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Bring this into the bucket: a finished segment, or the beginning of one.
    Put(Range<Lsn>),
    /// The same, unless it has got there otherwise within this time.
    Wait(Range<Lsn>, Duration),
    Nothing,
}

/// A segment goes once it is finished and committed, and its beginning once what is committed was
/// exposed for `patience` (D5, D8).
fn next(position: &Position, now: Duration, patience: Duration) -> Next {
    let (from, commit) = (position.backup.max(position.first), position.commit);
    if !from.is_valid() || commit <= from {
        return Next::Nothing;
    }
    let border = Lsn((from.segment(SEGMENT_BYTES) + 1).saturating_mul(SEGMENT_BYTES));
    if border <= commit {
        return Next::Put(from..border);
    }
    match position.exposed {
        None => Next::Nothing,
        Some(since) => match (since + patience).checked_sub(now) {
            Some(wait) if wait > Duration::ZERO => Next::Wait(from..commit, wait),
            _ => Next::Put(from..commit),
        },
    }
}

/// Answers up to where the bucket has it, where that is news; another safekeeper may have been
/// first, or this one before it was started anew.
async fn look(
    timeline: &Timeline,
    archive: &Archive,
    range: &Range<Lsn>,
) -> Result<Option<Lsn>, OffloadError> {
    let (keys, id) = (timeline.keys(), timeline.place().timeline);
    let known = timeline.position().borrow().partial;
    let there = archive.end_of(keys, id, range.start).await?;
    let Some(end) = news(there, range, known) else {
        return Ok(None);
    };
    tell(timeline, end).await?;
    Ok(Some(end))
}

/// What `there`, the end of WAL in the bucket, says of `range`, of which `known` was known before.
/// A beginning that is shorter than this node's makes what is exposed younger, so that nodes which
/// are a little ahead of each other do not replace each other's; it does not finish a segment.
fn news(there: Option<Lsn>, range: &Range<Lsn>, known: Lsn) -> Option<Lsn> {
    let end = there?.min(range.end);
    let is_news = end == range.end || (!is_border(range.end) && end > known);
    (is_news && end > range.start).then_some(end)
}

async fn offload(
    timeline: &Timeline,
    archive: &Archive,
    range: Range<Lsn>,
    upload: &mut Option<Upload>,
) -> Result<Option<Lsn>, OffloadError> {
    let (keys, place) = (timeline.keys(), timeline.place());
    // A beginning that was not put yet is of no use once its segment is finished.
    upload.take_if(|sealed| is_border(range.end) && !is_border(sealed.range().end));
    if upload.is_none()
        && let Some(end) = look(timeline, archive, &range).await?
    {
        return Ok(Some(end));
    }
    // D3: sealed once, put until it is there.
    let sealed = match upload {
        Some(sealed) => sealed,
        None => {
            let wal = read(timeline, range.clone()).await?;
            let sealed = archive.seal(keys, place.timeline, place.generation, range, &wal);
            upload.insert(sealed.await?)
        }
    };
    timeline.check()?;
    archive.put(sealed).await?;
    let end = sealed.range().end;
    match is_border(end) {
        true => metrics().segments_offloaded.inc(),
        false => metrics().tails_offloaded.inc(),
    }
    tell(timeline, end).await?;
    Ok(Some(end))
}

async fn tell(timeline: &Timeline, end: Lsn) -> Result<(), TimelineError> {
    match is_border(end) {
        true => timeline.backed_up(end).await,
        false => timeline.partly_backed_up(end).await,
    }
}

const fn is_border(lsn: Lsn) -> bool {
    lsn.0.is_multiple_of(SEGMENT_BYTES)
}

async fn read(timeline: &Timeline, range: Range<Lsn>) -> Result<BytesMut, TimelineError> {
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
    fn a_shorter_beginning_in_the_bucket_is_news_once_and_ends_no_segment() {
        let range = Lsn(100)..Lsn(200);
        //  there, known -> told
        for (there, known, told) in [
            (None, 0, None),
            (Some(100), 0, None),
            (Some(150), 0, Some(150)),
            (Some(150), 150, None),
            (Some(200), 0, Some(200)),
            (Some(900), 200, Some(200)),
        ] {
            let news = news(there.map(Lsn), &range, Lsn(known));
            assert_eq!(news, told.map(Lsn), "{there:?}, {known}");
        }
        let end = Lsn(SEGMENT_BYTES);
        let whole = Lsn(100)..end;
        assert_eq!(news(Some(Lsn(150)), &whole, Lsn(0)), None);
        assert_eq!(news(Some(end), &whole, Lsn(150)), Some(end));
    }

    #[test]
    fn finished_segments_go_at_once_and_a_tail_when_it_was_exposed_for_long() {
        let border = |n: u64| Lsn(n * SEGMENT_BYTES);
        let seconds = Duration::from_secs;
        let start = Lsn(5 * SEGMENT_BYTES + 100);
        let inside = Lsn(border(6).0 - 8);
        let (none, at) = (None, Some(seconds(100)));
        let wait = |range, s| Next::Wait(range, seconds(s));
        //  first, backup,    commit,   exposed, now -> next
        for (first, backup, commit, exposed, now, expected) in [
            (Lsn(0), Lsn(0), border(9), none, 0, Next::Nothing),
            (start, Lsn(0), start, none, 0, Next::Nothing),
            (start, Lsn(0), inside, none, 0, Next::Nothing),
            (start, Lsn(0), inside, at, 110, wait(start..inside, 20)),
            (start, Lsn(0), inside, at, 130, Next::Put(start..inside)),
            (
                start,
                Lsn(0),
                border(6),
                at,
                100,
                Next::Put(start..border(6)),
            ),
            (start, border(6), border(6), none, 0, Next::Nothing),
            (
                start,
                border(6),
                border(8),
                none,
                0,
                Next::Put(border(6)..border(7)),
            ),
        ] {
            let position = Position {
                first,
                backup,
                commit,
                exposed,
                ..Position::default()
            };
            let found = next(&position, seconds(now), seconds(30));
            assert_eq!(found, expected, "{position:?} at {now}");
        }
    }
}
