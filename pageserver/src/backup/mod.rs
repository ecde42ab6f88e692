//! The base backup: an uncompressed tar of the data directory as of the end of a record.
//!
//! The first member says as of when it is (C3); `pg_control` is the last one, so that a directory
//! that is not whole has none. There is no configuration, which the agent writes,
//! but for that of `ALTER SYSTEM` (C7), and no WAL, which the agent makes.
//!
//! A tablespace is a directory in `pg_tblspc`, as servers make it themselves for one without a
//! location: a link would lead out of the disk that the agent seals. Free space maps, which are not
//! in WAL, are made of the pages that are sent.

mod archive;
mod error;
mod free_space;
mod relations;
mod slru;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use api::timeline::{BACKUP_MEMBER, Backup};
use bytes::Bytes;
use ids::Lsn;
use pg::control::{CheckPoint, ControlFile};
use pg::datadir::{self, DIRECTORIES, FILENODE_MAP, GLOBAL_TABLESPACE};
use pg::{PgMajor, tablespace};
use tokio::sync::mpsc;

pub(crate) use error::BackupError;

use crate::timeline::{LastRecord, Timeline};
use archive::Archive;

/// How long a backup waits for WAL that has not come yet.
const WAIT: Duration = Duration::from_secs(60);

/// Writes the backup at the last record that ends at or before `lsn` (the last of all where it is
/// not given) into `sink`, piece by piece. With `full` every file of a relation is in it, else
/// none. Where this fails, what was sent is not a backup.
pub(crate) async fn write(
    timeline: &Arc<Timeline>,
    lsn: Option<Lsn>,
    full: bool,
    sink: mpsc::Sender<Bytes>,
) -> Result<Backup, BackupError> {
    let at = last_record_before(timeline, lsn).await?;
    let (lsn, checkpoint) = (at.end, timeline.checkpoint(at.end).await?);
    let control = timeline.control_file(lsn).await?;
    let version = control.version();
    slru::check_next_xid(timeline, &checkpoint, lsn).await?;
    let backup = describe(timeline, at, &checkpoint, &control);
    let mut out = Archive::new(sink);
    let member = serde_json::to_vec(&backup)?;
    out.file(BACKUP_MEMBER, member.into()).await?;
    for directory in DIRECTORIES {
        out.directory(directory).await?;
    }
    databases(timeline, version, lsn, &mut out).await?;
    slru::write(timeline, lsn, &mut out).await?;
    for xid in timeline.prepared(lsn).await? {
        let state = timeline.prepared_state(xid, lsn).await?;
        let path = datadir::twophase_path(version, xid, checkpoint.next_xid);
        out.file(&path, state).await?;
    }
    let origins = timeline.origins(lsn).await?;
    if !origins.is_empty() {
        let file = pg::origins::encode(&origins);
        out.file(pg::origins::ORIGINS, file.into()).await?;
    }
    // C7. `pg_control`, the last member, still makes the directory whole.
    for (path, content) in timeline.kept_files(lsn).await? {
        out.file(path.as_str(), content).await?;
    }
    if full {
        relations::write(timeline, version, lsn, &mut out).await?;
    }
    let control = Bytes::copy_from_slice(control.as_bytes());
    out.file("global/pg_control", control).await?;
    // Asked when the answer leaves, and for the last time here (D1, K5).
    timeline.serving()?;
    out.finish().await?;
    Ok(backup)
}

/// The record after which the backup is.
async fn last_record_before(
    timeline: &Timeline,
    lsn: Option<Lsn>,
) -> Result<LastRecord, BackupError> {
    if let Some(lsn) = lsn {
        timeline.wait_for(lsn, WAIT).await?;
    }
    let last = timeline.last_record()?;
    match (lsn, timeline.ancestor()) {
        (None, _) => Ok(last),
        (Some(asked), _) if asked == last.end => Ok(last),
        // Where the branch begins it has no record of its own.
        (Some(asked), Some(ancestor)) if asked == ancestor.lsn => Ok(LastRecord {
            end: asked,
            start: Lsn::INVALID,
        }),
        (Some(asked), _) => Err(BackupError::Past {
            asked,
            last: last.end,
        }),
    }
}

fn describe(
    timeline: &Timeline,
    at: LastRecord,
    checkpoint: &CheckPoint,
    control: &ControlFile,
) -> Backup {
    let digits = checkpoint.encode().map(|byte| format!("{byte:02x}"));
    Backup {
        lsn: at.end,
        previous_record: at.start,
        pg_major: timeline.pg_major(),
        system_id: control.system_id(),
        wal_segment_bytes: control.segment_bytes(),
        checkpoint: digits.concat(),
    }
}

/// The directories of tablespaces and databases, each with its version, and its relation map where
/// it is in its own tablespace.
async fn databases(
    timeline: &Timeline,
    version: PgMajor,
    lsn: Lsn,
    out: &mut Archive,
) -> Result<(), BackupError> {
    let line = Bytes::from(format!("{version}\n"));
    out.file("PG_VERSION", line.clone()).await?;
    for spc in timeline.tablespaces(lsn).await? {
        out.directory(&format!("pg_tblspc/{spc}")).await?;
        let directory = tablespace::version_directory(version, spc);
        out.directory(&directory).await?;
    }
    for (spc, db) in places(timeline, lsn).await? {
        let directory = tablespace::database_directory(version, spc, db);
        let directory = directory.ok_or(BackupError::Place { spc, db })?;
        if db != 0 {
            out.directory(&directory).await?;
        }
        let Some(map) = timeline.relation_map(spc, db, lsn).await? else {
            continue;
        };
        if db != 0 {
            out.file(&format!("{directory}/PG_VERSION"), line.clone())
                .await?;
        }
        out.file(&format!("{directory}/{FILENODE_MAP}"), map)
            .await?;
    }
    Ok(())
}

/// Where there are relations: tablespaces and databases, the shared ones first.
async fn places(timeline: &Timeline, lsn: Lsn) -> Result<Vec<(u32, u32)>, BackupError> {
    let mut places = vec![(GLOBAL_TABLESPACE, 0)];
    places.extend(timeline.databases(lsn).await?);
    Ok(places)
}
