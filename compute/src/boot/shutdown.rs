//! The synthetic shutdown checkpoint (C3): one record after the end of the timeline's WAL, and a
//! `pg_control` and a WAL segment that name it, so that stock PostgreSQL finds a clean shutdown.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use api::timeline::Backup;
use ids::Lsn;
use pg::PgMajor;
use pg::control::{CHECKPOINT_BYTES, CheckPoint, ControlError, ControlFile};
use pg::datadir::wal_segment_name;
use pg::wal::{LaidOut, WalShape, segment_prefix, shutdown_checkpoint};

use super::archive::{create, give};
use crate::config::Owner;

/// PostgreSQL's own timeline, which never changes: there is no local recovery.
pub const TLI: u32 = 1;
const CONTROL_FILE: &str = "global/pg_control";

/// A backup that PostgreSQL cannot be started from.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// The version is not one of ours.
    #[error(transparent)]
    Version(#[from] pg::UnsupportedVersion),
    /// The checkpoint of the description is none.
    #[error("the checkpoint of the base backup is not {CHECKPOINT_BYTES} bytes in hexadecimal")]
    Checkpoint,
    /// A field of the description cannot be.
    #[error("the base backup says that {field} is {value}")]
    Field {
        /// Which.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// `pg_control` is damaged, or of a cluster that is not stored.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// `pg_control` is of another cluster.
    #[error("pg_control is of system {found}, the timeline is of system {expected}")]
    Other {
        /// In `pg_control`.
        found: u64,
        /// In the description.
        expected: u64,
    },
    /// The disk refuses.
    #[error("cannot write {path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The record in its place, and what `pg_control` repeats of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntheticShutdown {
    /// The shape of the WAL.
    pub shape: WalShape,
    /// The end of the last record before; where [`LaidOut::bytes`] begin.
    pub from: Lsn,
    /// The record.
    pub laid: LaidOut,
    /// Its checkpoint.
    pub checkpoint: CheckPoint,
}

impl SyntheticShutdown {
    /// The record that follows what `backup` is as of, written at `time` (seconds since 1970).
    ///
    /// # Errors
    /// See [`ShutdownError`].
    pub fn after(backup: &Backup, time: u64) -> Result<Self, ShutdownError> {
        let field = |field, value| Err(ShutdownError::Field { field, value });
        if !WalShape::segment_bytes_valid(backup.wal_segment_bytes) {
            return field("wal_segment_bytes", backup.wal_segment_bytes);
        }
        // A record ends at a multiple of 8, and nothing ends before the first segment.
        if !backup.lsn.0.is_multiple_of(8) || backup.lsn.0 < backup.wal_segment_bytes {
            return field("lsn", backup.lsn.0);
        }
        if backup.previous_record >= backup.lsn {
            return field("previous_record", backup.previous_record.0);
        }
        let shape = WalShape {
            version: PgMajor::from_number(backup.pg_major)?,
            segment_bytes: backup.wal_segment_bytes,
            system_id: backup.system_id,
            tli: TLI,
        };
        let bytes = hex::decode(&backup.checkpoint).map_err(|_| ShutdownError::Checkpoint)?;
        if bytes.len() != CHECKPOINT_BYTES {
            return Err(ShutdownError::Checkpoint);
        }
        let checkpoint = CheckPoint::decode(&bytes).ok_or(ShutdownError::Checkpoint)?;
        let checkpoint = CheckPoint {
            time: i64::try_from(time).unwrap_or(checkpoint.time),
            // As PostgreSQL is started with: it writes a record of its own where this differs.
            full_page_writes: false,
            ..checkpoint
        };
        let (laid, checkpoint) =
            shutdown_checkpoint(&shape, backup.lsn, backup.previous_record, &checkpoint);
        Ok(Self {
            shape,
            from: backup.lsn,
            laid,
            checkpoint,
        })
    }

    /// Writes the record's segment and the `pg_control` that names it into `data`.
    ///
    /// # Errors
    /// See [`ShutdownError`].
    pub fn write(&self, data: &Path, owner: Owner) -> Result<ControlFile, ShutdownError> {
        let control = self.control(data)?;
        let path = data.join(CONTROL_FILE);
        let written = fs::write(&path, control.as_bytes()).and_then(|()| give(&path, owner));
        written.map_err(|source| ShutdownError::Io { path, source })?;
        for (segment, bytes) in self.pieces() {
            let name = wal_segment_name(TLI, segment, self.shape.segment_bytes);
            let path = data.join("pg_wal").join(name);
            let written = self.write_segment(&path, &bytes, owner);
            written.map_err(|source| ShutdownError::Io { path, source })?;
        }
        Ok(control)
    }

    fn control(&self, data: &Path) -> Result<ControlFile, ShutdownError> {
        let path = data.join(CONTROL_FILE);
        let bytes = fs::read(&path).map_err(|source| ShutdownError::Io { path, source })?;
        let mut control = ControlFile::parse(&bytes)?;
        let (found, expected) = (control.system_id(), self.shape.system_id);
        if found != expected {
            return Err(ShutdownError::Other { found, expected });
        }
        if control.segment_bytes() != self.shape.segment_bytes {
            let (field, value) = ("wal_segment_bytes of pg_control", control.segment_bytes());
            return Err(ShutdownError::Field { field, value });
        }
        control.set_shutdown(self.laid.start, &self.checkpoint);
        Ok(control)
    }

    /// The first LSN of a segment, and how it begins. A record may cross into the next one.
    fn pieces(&self) -> Vec<(Lsn, Vec<u8>)> {
        let length = self.shape.segment_bytes;
        let first = Lsn(self.from.0 - self.from.segment_offset(length));
        let offset = self.from.segment_offset(length);
        // Where the record begins a segment, the one before is not needed.
        let prefix = match offset {
            0 => Vec::new(),
            _ => segment_prefix(&self.shape, self.from),
        };
        let room = usize::try_from(length - offset).unwrap_or(usize::MAX);
        let (here, beyond) = self.laid.bytes.split_at(self.laid.bytes.len().min(room));
        let mut pieces = vec![(first, [&prefix[..], here].concat())];
        if !beyond.is_empty() {
            pieces.push((first + length, beyond.to_vec()));
        }
        pieces
    }

    fn write_segment(&self, path: &Path, bytes: &[u8], owner: Owner) -> io::Result<()> {
        let mut file = create(path)?;
        file.write_all(bytes)?;
        // The rest of the segment is a hole, which reads as zeros.
        file.set_len(self.shape.segment_bytes)?;
        give(path, owner)
    }
}

#[cfg(test)]
mod tests {
    use pg::wal::Decoder;

    use super::*;

    const SEGMENT: u64 = 1 << 20;

    fn backup(lsn: u64) -> Backup {
        let checkpoint = CheckPoint {
            next_xid: 735,
            full_page_writes: true,
            ..CheckPoint::default()
        };
        Backup {
            lsn: Lsn(lsn),
            previous_record: Lsn(lsn - 64),
            pg_major: 15,
            system_id: 7,
            wal_segment_bytes: SEGMENT,
            checkpoint: hex::encode(checkpoint.encode()),
        }
    }

    #[test]
    fn the_segment_reads_as_one_record_wherever_it_stands() {
        for offset in [0, 48, 4096, 8184, 8192, SEGMENT - 8, SEGMENT - 64] {
            let backup = backup(3 * SEGMENT + offset);
            let made = SyntheticShutdown::after(&backup, 1_700_000_000).unwrap();
            let pieces = made.pieces();
            let mut decoder = Decoder::scanning(made.shape, pieces[0].0);
            for (segment, bytes) in &pieces {
                assert_eq!(segment.0 % SEGMENT, 0, "whole from its beginning");
                assert!(bytes.len() as u64 <= SEGMENT);
                decoder.feed(bytes);
            }
            let (start, end, _) = decoder.next().unwrap().unwrap();
            assert_eq!((start, end), (made.laid.start, made.laid.end), "{offset}");
            assert_eq!(made.checkpoint.redo, start);
            assert_eq!(made.checkpoint.next_xid, 735);
            assert_eq!(made.checkpoint.time, 1_700_000_000);
        }
    }

    #[test]
    fn descriptions_that_cannot_be_are_refused() {
        let good = backup(3 * SEGMENT + 48);
        let refused = |backup: &Backup| SyntheticShutdown::after(backup, 1).is_err();
        assert!(!refused(&good));
        for bad in [
            Backup {
                lsn: Lsn(3 * SEGMENT + 49),
                ..good.clone()
            },
            Backup {
                lsn: Lsn(48),
                previous_record: Lsn(0),
                ..good.clone()
            },
            Backup {
                previous_record: good.lsn,
                ..good.clone()
            },
            Backup {
                wal_segment_bytes: 3,
                ..good.clone()
            },
            Backup {
                pg_major: 13,
                ..good.clone()
            },
            Backup {
                checkpoint: "00".repeat(87),
                ..good.clone()
            },
            Backup {
                checkpoint: "zz".repeat(88),
                ..good.clone()
            },
        ] {
            assert!(refused(&bad), "{bad:?}");
        }
    }
}
