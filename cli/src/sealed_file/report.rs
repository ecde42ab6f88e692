//! What is shown of a sealed file: every field of its header that people ask for, by name.

use std::fmt;
use std::path::Path;

use ids::{FileId, KekId, Lsn, TenantId, TimelineId};
use sealed::header::{FORMAT_VERSION, Header};
use sealed::log::{Outline, Tail};
use sealed::{HEADER_BYTES, ObjectKind};
use serde::{Serialize, Serializer};

const TAG_BYTES: u64 = 16;

#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) file: String,
    bytes: u64,
    format_version: u16,
    kind: &'static str,
    file_id: FileId,
    tenant: TenantId,
    timeline: TimelineId,
    shard_number: u8,
    shard_count: u8,
    generation: u32,
    aux: u64,
    created_unix: u64,
    kek_id: KekId,
    kek_version: u32,
    plaintext_bytes: Option<u64>,
    chunk_bytes: Option<u64>,
    chunks: Option<u64>,
    #[serde(serialize_with = "log")]
    log: Option<Outline>,
}

impl Report {
    pub(crate) fn new(path: &Path, bytes: u64, header: &Header, log: Option<Outline>) -> Self {
        let slot = header.active_slot();
        let chunk_bytes = header
            .kind
            .is_object()
            .then(|| 1 << header.kind.chunk_log2());
        let plaintext_bytes = header.plaintext_len;
        Self {
            file: path.display().to_string(),
            bytes,
            format_version: FORMAT_VERSION,
            kind: kind_name(header.kind),
            file_id: header.file_id,
            tenant: header.tenant,
            timeline: header.timeline,
            shard_number: header.shard_number,
            shard_count: header.shard_count,
            generation: header.generation.0,
            aux: header.aux,
            created_unix: header.created_unix,
            kek_id: slot.kek_id(),
            kek_version: slot.kek_version().0,
            plaintext_bytes,
            chunk_bytes,
            // An empty object has one chunk, which is empty.
            chunks: plaintext_bytes
                .zip(chunk_bytes)
                .map(|(len, size)| len.div_ceil(size).max(1)),
            log,
        }
    }

    /// What is wrong, as far as it shows without a key.
    pub(crate) fn damage(&self) -> Option<String> {
        if let Some(log) = &self.log {
            return match log.tail {
                Tail::Damaged { later } => Some(format!(
                    "damaged at offset {}: no record follows there, but one stands at {later}",
                    log.end_offset
                )),
                _ if log.epochs.is_empty() => Some("the log has no epoch".to_owned()),
                Tail::Clean | Tail::Torn => None,
            };
        }
        let expected = self.sealed_bytes()?;
        (expected != Some(self.bytes)).then(|| match expected {
            Some(expected) => {
                format!(
                    "cut or extended: {} bytes, its header says {expected}",
                    self.bytes
                )
            }
            None => "its header names a length that no file can have".to_owned(),
        })
    }

    /// The length that the header asks for: `None` if it asks for none, `Some(None)` if for an
    /// impossible one.
    fn sealed_bytes(&self) -> Option<Option<u64>> {
        let (plaintext, chunks) = self.plaintext_bytes.zip(self.chunks)?;
        Some(
            chunks
                .checked_mul(TAG_BYTES)
                .and_then(|tags| tags.checked_add(plaintext))
                .and_then(|body| body.checked_add(HEADER_BYTES as u64)),
        )
    }

    /// What someone who repairs should know, though it is not damage by itself.
    pub(crate) fn note(&self) -> Option<String> {
        let log = self.log.as_ref()?;
        (log.tail == Tail::Torn).then(|| {
            format!(
                "a write was cut short at offset {}; whether it had been acknowledged, only the \
                 acceptor's record tells",
                log.end_offset
            )
        })
    }

    /// What the answer "sound" rests on.
    pub(crate) fn checked(&self) -> String {
        match (&self.log, self.chunks) {
            (Some(log), _) => {
                format!(
                    "{} epochs and {} frames in one chain",
                    log.epochs.len(),
                    log.frames
                )
            }
            (None, Some(chunks)) => format!("length of {chunks} chunks"),
            (None, None) => "no length to compare".to_owned(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<14}{value}");
        line("file", &self.file)?;
        line("kind", &self.kind)?;
        line("format", &self.format_version)?;
        line("size", &format_args!("{} bytes", self.bytes))?;
        line("file id", &self.file_id)?;
        line("tenant", &self.tenant)?;
        line("timeline", &self.timeline)?;
        line(
            "shard",
            &format_args!("{} of {}", self.shard_number, self.shard_count),
        )?;
        line("generation", &self.generation)?;
        line("aux", &self.aux)?;
        line(
            "created",
            &format_args!("{} (unix seconds)", self.created_unix),
        )?;
        line(
            "key",
            &format_args!("KEK {} version {}", self.kek_id, self.kek_version),
        )?;
        if let Some((chunks, size)) = self.chunks.zip(self.chunk_bytes) {
            line("chunks", &format_args!("{chunks} of {size} bytes"))?;
        }
        if let Some(plaintext) = self.plaintext_bytes {
            line("plaintext", &format_args!("{plaintext} bytes"))?;
        }
        if let Some(log) = &self.log {
            for epoch in &log.epochs {
                let (number, term, node) = (epoch.number, epoch.term.0, epoch.node.0);
                let at = epoch.start_lsn;
                line(
                    "epoch",
                    &format_args!("{number}: term {term}, node {node}, from {at}"),
                )?;
            }
            line(
                "frames",
                &format_args!("{}, {} bytes of WAL", log.frames, log.wal_bytes),
            )?;
            line(
                "end",
                &format_args!("{} at offset {}", log.end_lsn, log.end_offset),
            )?;
            line("complete", &if log.complete { "yes" } else { "no" })?;
        }
        Ok(())
    }
}

/// The outline of a log in JSON.
fn log<S: Serializer>(log: &Option<Outline>, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Epoch {
        number: u32,
        term: u64,
        node: u64,
        start_lsn: Lsn,
        offset: u64,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Behind {
        Clean,
        Torn,
        Damaged { later: u64 },
    }
    #[derive(Serialize)]
    struct Log {
        epochs: Vec<Epoch>,
        frames: u64,
        wal_bytes: u64,
        end_lsn: Lsn,
        complete: bool,
        end_offset: u64,
        tail: Behind,
    }
    let shown = log.as_ref().map(|log| Log {
        epochs: (log.epochs.iter())
            .map(|epoch| Epoch {
                number: epoch.number,
                term: epoch.term.0,
                node: epoch.node.0,
                start_lsn: epoch.start_lsn,
                offset: epoch.offset,
            })
            .collect(),
        frames: log.frames,
        wal_bytes: log.wal_bytes,
        end_lsn: log.end_lsn,
        complete: log.complete,
        end_offset: log.end_offset,
        tail: match log.tail {
            Tail::Clean => Behind::Clean,
            Tail::Torn => Behind::Torn,
            Tail::Damaged { later } => Behind::Damaged { later },
        },
    });
    shown.serialize(to)
}

fn kind_name(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::ImageLayer => "image layer",
        ObjectKind::DeltaLayer => "delta layer",
        ObjectKind::Manifest => "timeline manifest",
        ObjectKind::Document => "document",
        ObjectKind::RemoteWal => "WAL segment in the bucket",
        ObjectKind::RemotePartialWal => "partial WAL segment in the bucket",
        ObjectKind::BaseBackup => "base backup",
        ObjectKind::LocalWal => "WAL segment of a safekeeper",
        ObjectKind::Cache => "cache",
        ObjectKind::Record => "record",
    }
}
