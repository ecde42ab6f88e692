//! Every file of every relation.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use ids::{Fork, Lsn, RelTag};
use pg::datadir::{self, DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, SEGMENT_BLOCKS};
use pg::page::BLOCK;

use super::BackupError;
use super::archive::Archive;
use crate::timeline::Timeline;

/// How many pages are rebuilt at a time, and so how many are in memory.
const PAGES_AT_A_TIME: usize = 64;

pub(super) async fn write(
    timeline: &Timeline,
    lsn: Lsn,
    out: &mut Archive,
) -> Result<(), BackupError> {
    let databases = timeline.databases(lsn).await?;
    let own = databases
        .iter()
        .filter(|(spc, _)| *spc == DEFAULT_TABLESPACE);
    for (spc, db) in own.copied().chain([(GLOBAL_TABLESPACE, 0)]) {
        let forks = timeline.relations(spc, db, lsn).await?;
        let reset: BTreeSet<u32> = forks
            .iter()
            .filter(|fork| fork.fork == Fork::Init)
            .map(|fork| fork.rel)
            .collect();
        for fork in forks {
            if fork.fork == Fork::Init {
                // Unlogged: after a start it is what its init fork says.
                let main = RelTag {
                    fork: Fork::Main,
                    ..fork
                };
                write_fork(timeline, (fork, main), lsn, out).await?;
            } else if reset.contains(&fork.rel) {
                continue;
            }
            write_fork(timeline, (fork, fork), lsn, out).await?;
        }
    }
    Ok(())
}

/// Writes the files of `name` with the pages of `fork`.
async fn write_fork(
    timeline: &Timeline,
    (fork, name): (RelTag, RelTag),
    lsn: Lsn,
    out: &mut Archive,
) -> Result<(), BackupError> {
    let blocks = timeline.relation_blocks(fork, lsn).await?.unwrap_or(0);
    // A fork without a page is an empty file.
    for segment in 0..blocks.div_ceil(SEGMENT_BLOCKS).max(1) {
        let path = datadir::relation_path(name, segment);
        let path = path.ok_or(BackupError::Relation(name))?;
        let first = segment * SEGMENT_BLOCKS;
        let end = blocks.min(first.saturating_add(SEGMENT_BLOCKS));
        let length = u64::from(end - first) * BLOCK as u64;
        let mut member = out.begin(&path, length)?;
        for begin in (first..end).step_by(PAGES_AT_A_TIME) {
            let batch = begin..end.min(begin.saturating_add(PAGES_AT_A_TIME as u32));
            // All of them, before the client is waited for: a read that nobody polls may hold
            // what the reads of others wait for.
            let pages: Vec<_> = stream::iter(batch)
                .map(|block| timeline.page_inside(fork, block, lsn))
                .buffered(PAGES_AT_A_TIME)
                .try_collect()
                .await?;
            for page in pages {
                out.append(&mut member, page).await?;
            }
        }
        out.end(member);
    }
    Ok(())
}
