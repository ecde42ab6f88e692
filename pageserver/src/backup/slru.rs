//! Transaction status, multixacts and commit timestamps.

use ids::{Key, KeyKind, Lsn, SlruKind};
use pg::control::CheckPoint;
use pg::datadir::{self, SLRU_SEGMENT_PAGES};
use pg::page::BLOCK;

use super::BackupError;
use super::archive::Archive;
use crate::timeline::Timeline;

const XIDS_PER_PAGE: u64 = BLOCK as u64 * 4;

/// Every segment that there is: ingest takes those away that are not needed any more.
pub(super) async fn write(
    timeline: &Timeline,
    lsn: Lsn,
    out: &mut Archive,
) -> Result<(), BackupError> {
    for slru in [
        SlruKind::Clog,
        SlruKind::MultiXactMembers,
        SlruKind::MultiXactOffsets,
        SlruKind::CommitTs,
    ] {
        for segment in timeline.slru_segments(slru, lsn).await? {
            let pages = timeline.slru_segment(slru, segment, lsn).await?;
            out.file(&datadir::slru_path(slru, segment), pages).await?;
        }
    }
    Ok(())
}

/// C3: of no transaction from the next one on the end is known.
pub(super) async fn check_next_xid(
    timeline: &Timeline,
    checkpoint: &CheckPoint,
    lsn: Lsn,
) -> Result<(), BackupError> {
    let next = checkpoint.next_xid;
    let first = (next & 0xFFFF_FFFF) as u32;
    let index = next % XIDS_PER_PAGE;
    let page = (u64::from(first) / XIDS_PER_PAGE) as u32;
    let (segment, block) = (page / SLRU_SEGMENT_PAGES, page % SLRU_SEGMENT_PAGES);
    let key = Key::new(KeyKind::SlruBlock(SlruKind::Clog, segment, block));
    let Some(status) = timeline.content(key, lsn).await? else {
        // The first transaction of a page makes it.
        return if index == 0 {
            Ok(())
        } else {
            Err(BackupError::NoStatusPage(next))
        };
    };
    let ended = |index: u64| {
        let byte = status.get((index / 4) as usize).copied().unwrap_or(0);
        byte >> (index % 4 * 2) & 0b11 != 0
    };
    match (index..XIDS_PER_PAGE).find(|index| ended(*index)) {
        // No more than a page: fits.
        Some(at) => Err(BackupError::NextXid {
            next,
            seen: first.wrapping_add((at - index) as u32),
        }),
        None => Ok(()),
    }
}
