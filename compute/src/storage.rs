//! The pageserver, as the agent asks it: where it is, and for base backups.

use std::io::{self, Read};
use std::time::Duration;

use api::timeline::{Backup, PageserverStatus, timeline_path};
use api::{Client, ClientError, Grade};
use bytes::{Buf, Bytes};
use ids::{Lsn, TenantId, TimelineId};
use service::libpq::WireError;
use service::libpq::client::{Client as Libpq, CopyStream};
use tokio::sync::mpsc;

use crate::boot::archive::{self, UnpackError};
use crate::config::{Config, Owner};
use crate::sandbox::Disk;

/// How often the pageserver is asked where it is.
const POLL: Duration = Duration::from_millis(500);
/// Pieces of an archive that wait for the disk.
const PIECES: usize = 16;
/// How long the pageserver may take to let us in.
const CONNECT: Duration = Duration::from_secs(10);
/// How long it may say nothing while it sends, or before: it may have to read from the bucket.
const SILENCE: Duration = Duration::from_secs(60);

/// The pageserver does not give what a start needs.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// It cannot be asked.
    #[error("the pageserver: {0}")]
    Client(#[from] ClientError),
    /// It refuses a base backup, or the connection broke.
    #[error("the pageserver, while it sends a base backup: {0}")]
    Wire(#[from] WireError),
    /// It does not answer.
    #[error("the pageserver says nothing for {0:?}")]
    Silent(Duration),
    /// The base backup is none.
    #[error(transparent)]
    Backup(#[from] UnpackError),
    /// It has WAL that no quorum has.
    #[error(
        "the pageserver is at {found}, the quorum's WAL ends at {end}: storage holds WAL that this \
         quorum does not have; check that the safekeepers are those of this timeline"
    )]
    Ahead {
        /// Where it is.
        found: Lsn,
        /// Where the quorum ends.
        end: Lsn,
    },
    /// It cannot redo a record.
    #[error("the pageserver has stopped ingest: {0}")]
    Stopped(String),
    /// A rule of ours does not hold (C3).
    #[error("asked for a base backup as of {asked}, and got one as of {got}")]
    Elsewhere {
        /// What was asked for.
        asked: Lsn,
        /// What came.
        got: Lsn,
    },
    /// The task that reads an archive ended.
    #[error("the reader of the base backup ended")]
    Reader,
}

impl StorageError {
    /// How a caller should take it.
    #[must_use]
    pub fn grade(&self) -> Grade {
        match self {
            Self::Client(error) => error.grade(),
            Self::Wire(WireError::Server { sqlstate, .. }) => match sqlstate.as_str() {
                "58R01" | "58R02" => Grade::KeyUnavailable,
                "58R03" => Grade::DataDamaged,
                state if state.starts_with("28") => Grade::FixRequest,
                _ => Grade::Retry,
            },
            Self::Wire(_) | Self::Silent(_) | Self::Backup(UnpackError::Io { .. }) => Grade::Retry,
            Self::Ahead { .. } | Self::Stopped(_) | Self::Backup(_) => Grade::DataDamaged,
            Self::Elsewhere { .. } | Self::Reader => Grade::Bug,
        }
    }
}

/// The pageserver of one timeline.
#[derive(Clone)]
pub struct Storage {
    http: Client,
    libpq: String,
    token: String,
    tenant: TenantId,
    timeline: TimelineId,
}

impl Storage {
    /// The one that `config` names. Nothing is asked yet.
    ///
    /// # Errors
    /// An address or an identity that cannot be used.
    pub fn new(config: &Config, token: &str) -> Result<Self, ClientError> {
        Ok(Self {
            http: config.pageserver_client(token)?,
            libpq: config.pageserver.libpq.clone(),
            token: token.to_owned(),
            tenant: config.tenant,
            timeline: config.timeline,
        })
    }

    /// Where it is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<PageserverStatus, ClientError> {
        let path = timeline_path(self.tenant, self.timeline);
        self.http.get(&path).await
    }

    /// What a start has to know before the quorum is asked.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub async fn describe(&self) -> Result<Backup, StorageError> {
        let command = format!("basebackup {} {}", self.tenant, self.timeline);
        self.read(&command, archive::describe).await
    }

    /// Waits until everything up to `end` is ingested; `progress` hears how far it is.
    ///
    /// # Errors
    /// It is beyond, has stopped, or refuses. Where it does not answer it is asked again.
    pub async fn reaches(&self, end: Lsn, progress: impl Fn(String)) -> Result<(), StorageError> {
        loop {
            match self.status().await {
                Ok(status) => {
                    let found = status.last_record_lsn;
                    if found > end {
                        return Err(StorageError::Ahead { found, end });
                    }
                    if found == end {
                        return Ok(());
                    }
                    if let Some(why) = status.stopped {
                        return Err(StorageError::Stopped(why));
                    }
                    progress(format!("the pageserver is at {found} of {end}"));
                }
                Err(error) if error.grade().may_retry() => progress(error.to_string()),
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Unpacks the base backup as of `end` into the data directory on `disk`.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub async fn unpack(&self, end: Lsn, disk: Disk, owner: Owner) -> Result<Backup, StorageError> {
        let command = format!("fullbackup {} {} {end}", self.tenant, self.timeline);
        // The handle is held for as long as the task writes, whoever stops waiting for it.
        let backup = self
            .read(&command, move |archive| {
                archive::unpack(archive, &disk.data(), owner)
            })
            .await?;
        if backup.lsn != end {
            let (asked, got) = (end, backup.lsn);
            return Err(StorageError::Elsewhere { asked, got });
        }
        Ok(backup)
    }

    async fn read<T: Send + 'static>(
        &self,
        command: &str,
        read: impl FnOnce(ArchiveReader) -> Result<T, UnpackError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let (tenant, timeline) = (self.tenant.to_string(), self.timeline.to_string());
        let options = [("tenant_id", &*tenant), ("timeline_id", &*timeline)];
        let client = Libpq::connect(&self.libpq, &options, &self.token);
        let client = patient(CONNECT, client).await??;
        let copy = patient(SILENCE, client.query_copy_out(command)).await??;
        let (sender, pieces) = mpsc::channel(PIECES);
        let reader = ArchiveReader {
            pieces,
            piece: Bytes::new(),
        };
        let reading = tokio::task::spawn_blocking(move || read(reader));
        // A broken connection looks like an early end to the reader: its own reason comes first.
        pump(copy, sender).await?;
        Ok(reading.await.map_err(|_| StorageError::Reader)??)
    }
}

/// Until the copy is done, or the reader has what it wants.
async fn pump(mut copy: CopyStream, sender: mpsc::Sender<Bytes>) -> Result<(), StorageError> {
    while let Some(piece) = patient(SILENCE, copy.read_copy()).await?? {
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn patient<T>(limit: Duration, answer: impl Future<Output = T>) -> Result<T, StorageError> {
    let answer = tokio::time::timeout(limit, answer).await;
    answer.map_err(|_| StorageError::Silent(limit))
}

/// An archive that arrives in pieces, for a thread that may block.
struct ArchiveReader {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for ArchiveReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let taken = into.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut into[..taken]);
        Ok(taken)
    }
}
