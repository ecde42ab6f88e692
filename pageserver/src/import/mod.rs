//! The import of a data directory of PostgreSQL 15 that was shut down cleanly: it becomes a
//! timeline, whose own WAL begins where the directory's ends.

mod archive;
mod files;
#[cfg(test)]
pub(crate) mod tests;
mod values;

use std::sync::Arc;

use api::timeline::Imported;
use bytes::Bytes;
use ids::{Key, KeyKind, Lsn};

pub(crate) use archive::{ArchiveError, unpack};
pub(crate) use values::{ValuesError, values};

use crate::timeline::{
    AttachError, Attachment, Closed, Home, IngestError, ReadError, Timeline, WriteError, create,
};
use crate::value::Value;

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
    import(home, unpack(tar).await?).await
}

/// Imports the files of a data directory, named by their paths in it, as the timeline of `home`,
/// which it creates, attaches and brings into the bucket. To import the same again completes what
/// was begun.
pub(crate) async fn import(
    home: &Home,
    files: impl IntoIterator<Item = (String, Bytes)>,
) -> Result<(Arc<Timeline>, Imported), ImportError> {
    let (imported, values) = values(files)?;
    // The values stand at the end of the last record, so the timeline begins before it.
    let before = imported.previous_record;
    create(home, imported.pg_major, None, before).await?;
    let timeline = Timeline::attach(Attachment {
        home: home.clone(),
        parent: None,
        known: 0,
    })
    .await?;
    let last = timeline.last_lsn()?;
    if last == before {
        timeline.ingest(Lsn(0), before, imported.start_lsn, values)?;
    } else if !holds(&timeline, &imported, &values).await? {
        return Err(ImportError::Occupied { last });
    }
    timeline.flush().await?;
    tracing::info!(start = %imported.start_lsn, "imported a data directory");
    Ok((timeline, imported))
}

/// Whether it is of this import, and nothing came after.
async fn holds(
    timeline: &Timeline,
    imported: &Imported,
    values: &[(Key, Value)],
) -> Result<bool, ImportError> {
    let (start, control) = (imported.start_lsn, Key::new(KeyKind::ControlFile));
    if timeline.last_lsn()? != start {
        return Ok(false);
    }
    let held = timeline.content(control, start).await?;
    let given = values.iter().find(|(key, _)| *key == control);
    Ok(match (held, given) {
        (Some(held), Some((_, Value::Image(given)))) => held == *given,
        _ => false,
    })
}
