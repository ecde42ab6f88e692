//! The import of a data directory of PostgreSQL 14 to 18 that was shut down cleanly: it becomes a
//! timeline, whose own WAL begins where the directory's ends.

mod archive;
mod files;
mod spool;
#[cfg(test)]
pub(crate) mod tests;
mod values;

use std::ops::Range;
use std::sync::Arc;

use api::timeline::Imported;
use bytes::Bytes;
use ids::{Key, KeyKind, Lsn};
use pg::page::BLOCK;

pub(crate) use archive::{Archive, ArchiveError, unpack};
use values::{Pages, Part, Plan};
pub(crate) use values::{ValuesError, plan};

use crate::compact::{Images, imaged};
use crate::timeline::{
    AttachError, Attachment, Closed, Home, IngestError, ReadError, Timeline, WriteError, create,
};
use crate::value::Value;

/// The bytes of an image layer that is made: it is in memory until it is put.
pub(crate) const IMAGE_BYTES: usize = 64 << 20;
/// The bytes that are read from the spool at a time.
const READ_BYTES: u64 = 128 * BLOCK as u64;

/// A data directory was not imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// The archive cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// What is in it cannot be a timeline.
    #[error(transparent)]
    Values(#[from] ValuesError),
    /// The timeline has another beginning, or has gone on.
    #[error("the timeline holds something else already, up to {last}")]
    Occupied { last: Lsn },
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// [`unpack`] and [`import`].
#[cfg(test)]
pub(crate) async fn import_tar(
    home: &Home,
    tar: impl tokio::io::AsyncRead + Send + Unpin + 'static,
) -> Result<(Arc<Timeline>, Imported), ImportError> {
    import(home, unpack(home, tar).await?, IMAGE_BYTES).await
}

/// Imports an archive of a data directory as the timeline of `home`, which it creates, attaches and
/// brings into the bucket, in image layers of about `image_bytes`. What cannot be imported is refused
/// before anything is written; what fails later leaves a timeline with nothing in it (D1). To import
/// the same again completes what was begun.
pub(crate) async fn import(
    home: &Home,
    archive: Archive,
    image_bytes: usize,
) -> Result<(Arc<Timeline>, Imported), ImportError> {
    let archive = Arc::new(archive);
    let Plan {
        imported,
        control,
        parts,
    } = blocking(&archive, plan).await??;
    // The values stand at the end of the last record, so the timeline begins before it.
    let (before, start) = (imported.previous_record, imported.start_lsn);
    create(home, imported.pg_major, None, before).await?;
    let timeline = Timeline::attach(Attachment {
        home: home.clone(),
        parent: None,
        known: 0,
    })
    .await?;
    let last = timeline.last_lsn()?;
    if last == before {
        let mut images = Images::new(&timeline, start, image_bytes);
        let written = write(&archive, parts, &mut images).await;
        let images = images.finish_or_delete(written).await?;
        timeline.begin_with(images, before, start).await?;
        timeline.ingest(Lsn(0), before, start, [])?;
    } else if !holds(&timeline, start, &control).await? {
        return Err(ImportError::Occupied { last });
    }
    tracing::info!(%start, "imported a data directory");
    Ok((timeline, imported))
}

/// Writes everything, in the order of the keys.
async fn write(
    archive: &Arc<Archive>,
    parts: Vec<(Key, Part)>,
    images: &mut Images<'_>,
) -> Result<(), ImportError> {
    for (key, part) in parts {
        match part {
            Part::Value(value) => images.put_value(key, value).await?,
            Part::File(range) => {
                let content = read(archive, range).await?;
                images.put_value(key, Value::Image(content)).await?;
            }
            Part::Pages(pages) => write_pages(archive, pages, images).await?,
        }
    }
    Ok(())
}

async fn write_pages(
    archive: &Arc<Archive>,
    pages: Pages,
    images: &mut Images<'_>,
) -> Result<(), ImportError> {
    let mut block = pages.first;
    let mut start = pages.range.start;
    while start < pages.range.end {
        let end = pages.range.end.min(start + READ_BYTES);
        let mut content = read(archive, start..end).await?;
        while !content.is_empty() {
            let page = content.split_to(BLOCK.min(content.len()));
            let key = pages.of.key(block);
            images.put_value(key, imaged(Some(page))).await?;
            block += 1;
        }
        start = end;
    }
    Ok(())
}

async fn read(archive: &Arc<Archive>, range: Range<u64>) -> Result<Bytes, ImportError> {
    let read = blocking(archive, |archive| archive.spool.read(range)).await?;
    Ok(read.map_err(ArchiveError::Spool)?)
}

/// Does what reads the spool off the threads that serve.
async fn blocking<T: Send + 'static>(
    archive: &Arc<Archive>,
    read: impl FnOnce(&Archive) -> T + Send + 'static,
) -> Result<T, ArchiveError> {
    let archive = Arc::clone(archive);
    let reading = tokio::task::spawn_blocking(move || read(&archive));
    reading.await.map_err(|_| ArchiveError::GivenUp)
}

/// Whether it is of this import, and nothing came after.
async fn holds(timeline: &Timeline, start: Lsn, control: &Bytes) -> Result<bool, ImportError> {
    if timeline.last_lsn()? != start {
        return Ok(false);
    }
    let held = timeline.content(Key::new(KeyKind::ControlFile), start);
    Ok(held.await?.is_some_and(|held| held == *control))
}
