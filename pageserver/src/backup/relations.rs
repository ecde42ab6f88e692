//! Every file of every relation.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use ids::{Fork, Lsn, RelTag};
use pg::datadir::SEGMENT_BLOCKS;
use pg::page::BLOCK;
use pg::{PgMajor, tablespace};

use super::BackupError;
use super::archive::Archive;
use super::free_space::FreeSpace;
use crate::timeline::Timeline;

/// How many pages are rebuilt at a time, and so how many are in memory.
const PAGES_AT_A_TIME: usize = 64;

pub(super) async fn write(
    timeline: &Timeline,
    version: PgMajor,
    lsn: Lsn,
    out: &mut Archive,
) -> Result<(), BackupError> {
    let mut writer = Writer {
        timeline,
        version,
        lsn,
        out,
    };
    for (spc, db) in super::places(timeline, lsn).await? {
        let forks = timeline.relations(spc, db, lsn).await?;
        let reset: BTreeSet<u32> = forks
            .iter()
            .filter(|fork| fork.fork == Fork::Init)
            .map(|fork| fork.rel)
            .collect();
        for fork in forks {
            match fork.fork {
                Fork::Init => {
                    // Unlogged: after a start it is what its init fork says.
                    let main = beside(fork, Fork::Main);
                    writer.fork(fork, main).await?;
                    writer.fork(fork, fork).await?;
                }
                _ if reset.contains(&fork.rel) => {}
                // Made of the pages themselves: what is stored is of long ago.
                Fork::Fsm => {}
                Fork::Main => {
                    let free = writer.fork(fork, fork).await?;
                    writer.map(beside(fork, Fork::Fsm), &free).await?;
                }
                Fork::Vm => drop(writer.fork(fork, fork).await?),
            }
        }
    }
    Ok(())
}

const fn beside(rel: RelTag, fork: Fork) -> RelTag {
    RelTag { fork, ..rel }
}

struct Writer<'a> {
    timeline: &'a Timeline,
    version: PgMajor,
    lsn: Lsn,
    out: &'a mut Archive,
}

impl Writer<'_> {
    fn path(&self, name: RelTag, segment: u32) -> Result<String, BackupError> {
        let path = tablespace::relation_path(self.version, name, segment);
        path.ok_or(BackupError::Relation(name))
    }

    /// Writes the files of `name` with the pages of `fork`, and answers what room these have.
    async fn fork(&mut self, fork: RelTag, name: RelTag) -> Result<FreeSpace, BackupError> {
        let (timeline, lsn) = (self.timeline, self.lsn);
        let mut free = FreeSpace::default();
        let blocks = timeline.relation_blocks(fork, lsn).await?.unwrap_or(0);
        // A fork without a page is an empty file.
        for segment in 0..blocks.div_ceil(SEGMENT_BLOCKS).max(1) {
            let path = self.path(name, segment)?;
            let first = segment * SEGMENT_BLOCKS;
            let end = blocks.min(first.saturating_add(SEGMENT_BLOCKS));
            let length = u64::from(end - first) * BLOCK as u64;
            let mut member = self.out.begin(&path, length)?;
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
                    free.add(&page);
                    self.out.append(&mut member, page).await?;
                }
            }
            self.out.end(member);
        }
        Ok(free)
    }

    /// Writes the free space map of a relation whose pages were written.
    async fn map(&mut self, name: RelTag, free: &FreeSpace) -> Result<(), BackupError> {
        let mut pages = free.pages();
        if self.timeline.has_checksums(self.lsn).await? {
            for (page, block) in pages.iter_mut().zip(0..) {
                pg::page::stamp_checksum(page, block);
            }
        }
        for (pages, segment) in pages.chunks(SEGMENT_BLOCKS as usize).zip(0..) {
            let content = Bytes::copy_from_slice(pages.as_flattened());
            let path = self.path(name, segment)?;
            self.out.file(&path, content).await?;
        }
        Ok(())
    }
}
