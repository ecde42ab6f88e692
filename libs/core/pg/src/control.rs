//! `pg_control` of PostgreSQL 14 to 18, and the checkpoint inside it (`pg_control.h`), on
//! machines of 64 bits, little-endian.

use ids::Lsn;

use crate::cursor::Cursor;
use crate::rmgr::ParameterChange;
use crate::{PgMajor, UnsupportedVersion};

/// The length of the file.
pub const CONTROL_FILE_BYTES: usize = 8192;
/// The length of a checkpoint, in the file and in WAL.
pub const CHECKPOINT_BYTES: usize = 88;

const CHECKPOINT_AT: usize = 40;
const FLOAT_FORMAT: u64 = 1_234_567.0_f64.to_bits();

/// `pg_control` cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It is too short.
    #[error("pg_control has {0} bytes")]
    Length(usize),
    /// Its version is not supported.
    #[error(transparent)]
    Version(#[from] UnsupportedVersion),
    /// It fails its checksum.
    #[error("pg_control fails its checksum")]
    Checksum,
    /// The cluster was built in a way that Redoubt does not store.
    #[error("pg_control: {field} is {value}, which is not supported")]
    Unsupported {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

/// The fields of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckPoint {
    /// Where redo begins; itself for a shutdown checkpoint.
    pub redo: Lsn,
    /// PostgreSQL's timeline.
    pub tli: u32,
    /// The timeline before.
    pub prev_tli: u32,
    /// Whether full-page images are written.
    pub full_page_writes: bool,
    /// `wal_level`; 17 on, and before padding that is zero.
    pub wal_level: u32,
    /// The next transaction, with its epoch.
    pub next_xid: u64,
    /// The next OID.
    pub next_oid: u32,
    /// The next multixact.
    pub next_multi: u32,
    /// The next multixact member.
    pub next_multi_offset: u32,
    /// The oldest transaction that tuples may name.
    pub oldest_xid: u32,
    /// The database that holds it back.
    pub oldest_xid_db: u32,
    /// The oldest multixact that tuples may name.
    pub oldest_multi: u32,
    /// The database that holds it back.
    pub oldest_multi_db: u32,
    /// When, in Unix seconds.
    pub time: i64,
    /// The oldest transaction with a commit timestamp.
    pub oldest_commit_ts_xid: u32,
    /// The newest transaction with a commit timestamp.
    pub newest_commit_ts_xid: u32,
    /// The oldest running transaction; 0 at shutdown.
    pub oldest_active_xid: u32,
}

impl CheckPoint {
    /// Reads the 88 bytes; `None` where they are not all there.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut c = Cursor::new(bytes);
        let (redo, tli, prev_tli) = (Lsn(c.u64()?), c.u32()?, c.u32()?);
        let full_page_writes = c.u8()? != 0;
        c.take(3)?;
        let checkpoint = Self {
            redo,
            tli,
            prev_tli,
            full_page_writes,
            wal_level: c.u32()?,
            next_xid: c.u64()?,
            next_oid: c.u32()?,
            next_multi: c.u32()?,
            next_multi_offset: c.u32()?,
            oldest_xid: c.u32()?,
            oldest_xid_db: c.u32()?,
            oldest_multi: c.u32()?,
            oldest_multi_db: c.u32()?,
            time: {
                c.u32()?;
                c.u64()?.cast_signed()
            },
            oldest_commit_ts_xid: c.u32()?,
            newest_commit_ts_xid: c.u32()?,
            oldest_active_xid: c.u32()?,
        };
        c.u32()?;
        Some(checkpoint)
    }

    /// The 88 bytes; padding is zero.
    #[must_use]
    pub fn encode(&self) -> [u8; CHECKPOINT_BYTES] {
        let mut b = [0; CHECKPOINT_BYTES];
        let mut put = |at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.redo.0.to_le_bytes());
        put(16, &[u8::from(self.full_page_writes)]);
        put(24, &self.next_xid.to_le_bytes());
        put(64, &self.time.to_le_bytes());
        for (at, value) in [
            (8, self.tli),
            (12, self.prev_tli),
            (20, self.wal_level),
            (32, self.next_oid),
            (36, self.next_multi),
            (40, self.next_multi_offset),
            (44, self.oldest_xid),
            (48, self.oldest_xid_db),
            (52, self.oldest_multi),
            (56, self.oldest_multi_db),
            (72, self.oldest_commit_ts_xid),
            (76, self.newest_commit_ts_xid),
            (80, self.oldest_active_xid),
        ] {
            put(at, &value.to_le_bytes());
        }
        b
    }
}

/// A checked `pg_control`, kept as bytes: what is not patched stays as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    version: PgMajor,
    bytes: Vec<u8>,
}

impl ControlFile {
    /// Reads and checks a `pg_control`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        if bytes.len() != CONTROL_FILE_BYTES {
            return Err(ControlError::Length(bytes.len()));
        }
        let mut file = Self {
            version: PgMajor::V14,
            bytes: bytes.to_vec(),
        };
        file.version = PgMajor::from_catalog_version(file.word(12))?;
        if file.word(file.crc_at()) != file.crc() {
            return Err(ControlError::Checksum);
        }
        file.check_shape()?;
        Ok(file)
    }

    fn check_shape(&self) -> Result<(), ControlError> {
        let control_version = match self.version {
            PgMajor::V14 | PgMajor::V15 | PgMajor::V16 => 1300,
            PgMajor::V17 => 1700,
            PgMajor::V18 => 1800,
        };
        for (field, at, expected) in [
            ("pg_control_version", 8, control_version),
            ("maxAlign", 204, 8),
            ("blcksz", 216, 8192),
            ("relseg_size", 220, 131_072),
            ("xlog_blcksz", 224, 8192),
        ] {
            let value = self.word(at);
            if value != expected {
                return Err(ControlError::Unsupported {
                    field,
                    value: u64::from(value),
                });
            }
        }
        if self.long(208) != FLOAT_FORMAT {
            return Err(ControlError::Unsupported {
                field: "floatFormat",
                value: self.long(208),
            });
        }
        let segment = self.segment_bytes();
        if !crate::wal::WalShape::segment_bytes_valid(segment) {
            return Err(ControlError::Unsupported {
                field: "xlog_seg_size",
                value: segment,
            });
        }
        Ok(())
    }

    /// The major version of the cluster.
    #[must_use]
    pub const fn version(&self) -> PgMajor {
        self.version
    }

    /// The system identifier.
    #[must_use]
    pub fn system_id(&self) -> u64 {
        self.long(0)
    }

    /// `DBState`: 1 is shut down, 6 in production.
    #[must_use]
    pub fn state(&self) -> u32 {
        self.word(16)
    }

    /// Where the last checkpoint record begins.
    #[must_use]
    pub fn checkpoint_lsn(&self) -> Lsn {
        Lsn(self.long(32))
    }

    /// The last checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> CheckPoint {
        CheckPoint::decode(&self.bytes[CHECKPOINT_AT..]).unwrap_or_default()
    }

    /// The length of a WAL segment.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        u64::from(self.word(228))
    }

    /// The version of page checksums; 0 where there are none.
    #[must_use]
    pub fn checksum_version(&self) -> u32 {
        self.word(252)
    }

    /// Whether the first hint bit on a page writes an image even without checksums.
    #[must_use]
    pub fn wal_log_hints(&self) -> bool {
        self.bytes[176] != 0
    }

    /// Whether commits leave their time in `pg_commit_ts`.
    #[must_use]
    pub fn track_commit_timestamp(&self) -> bool {
        self.bytes[200] != 0
    }

    /// Makes it that of a cluster that was shut down by the checkpoint record at `at`.
    pub fn set_shutdown(&mut self, at: Lsn, checkpoint: &CheckPoint) {
        self.put(16, &1_u32.to_le_bytes());
        self.put(24, &checkpoint.time.to_le_bytes());
        self.put(32, &at.0.to_le_bytes());
        self.put(CHECKPOINT_AT, &checkpoint.encode());
        // minRecoveryPoint, its timeline, backupStartPoint, backupEndPoint, backupEndRequired.
        self.put(136, &[0; 12]);
        self.put(152, &[0; 17]);
        self.seal();
    }

    /// Takes over the settings that a server changed, as its own recovery does (`xlog_redo`).
    pub fn set_parameters(&mut self, parameters: &ParameterChange) {
        for (at, value) in [
            (172, parameters.wal_level),
            (180, parameters.max_connections),
            (184, parameters.max_worker_processes),
            (188, parameters.max_wal_senders),
            (192, parameters.max_prepared_xacts),
            (196, parameters.max_locks_per_xact),
        ] {
            self.put(at, &value.to_le_bytes());
        }
        self.put(176, &[u8::from(parameters.wal_log_hints)]);
        self.put(200, &[u8::from(parameters.track_commit_timestamp)]);
        self.seal();
    }

    fn seal(&mut self) {
        let crc = self.crc();
        self.put(self.crc_at(), &crc.to_le_bytes());
    }

    /// The bytes of the file.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    const fn crc_at(&self) -> usize {
        // 18 has default_char_signedness before the nonce.
        if matches!(self.version, PgMajor::V18) {
            292
        } else {
            288
        }
    }

    fn crc(&self) -> u32 {
        crc32c::crc32c(&self.bytes[..self.crc_at()])
    }

    // Offsets are constants far below the length, which `parse` checked.
    fn word(&self, at: usize) -> u32 {
        self.bytes[at..]
            .first_chunk()
            .map_or(0, |&bytes| u32::from_le_bytes(bytes))
    }

    fn long(&self, at: usize) -> u64 {
        self.bytes[at..]
            .first_chunk()
            .map_or(0, |&bytes| u64::from_le_bytes(bytes))
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_checkpoint_that_is_not_padding_comes_back() {
        let mut bytes = [0; CHECKPOINT_BYTES];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = at as u8 + 1;
        }
        bytes[16] = 1;
        for padding in [17..20, 60..64, 84..88] {
            bytes[padding].fill(0);
        }
        assert_eq!(CheckPoint::decode(&bytes).unwrap().encode(), bytes);
        assert_eq!(CheckPoint::decode(&bytes[..87]), None);
    }
}
