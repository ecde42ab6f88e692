//! Headers of WAL pages (`xlog_internal.h`) and the sizes that WAL segments may have.

use ids::Lsn;

use crate::PgMajor;
use crate::cursor::Cursor;

/// The length of a WAL page, in bytes.
pub const WAL_PAGE_BYTES: u64 = 8192;
/// The length of a header, except at the beginning of a segment.
pub const SHORT_HEADER_BYTES: usize = 24;
/// The length of the header at the beginning of a segment.
pub const LONG_HEADER_BYTES: usize = 40;

/// The page begins with the rest of a record.
pub const FIRST_IS_CONTRECORD: u16 = 0x0001;
/// The header is a long one.
pub const LONG_HEADER: u16 = 0x0002;
/// The page may be removed after its backup.
pub const BKP_REMOVABLE: u16 = 0x0004;
/// The page begins with a record that stands where the rest of one got lost.
pub const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;

const ALL_FLAGS: u16 = 0x000F;

/// What is the same on every WAL page of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalShape {
    /// The version, which says the magic.
    pub version: PgMajor,
    /// The length of a segment: a power of two, 1 MiB to 1 GiB.
    pub segment_bytes: u64,
    /// The cluster's system identifier.
    pub system_id: u64,
    /// PostgreSQL's own timeline.
    pub tli: u32,
}

impl WalShape {
    /// Whether PostgreSQL allows segments of this length.
    #[must_use]
    pub const fn segment_bytes_valid(bytes: u64) -> bool {
        bytes.is_power_of_two() && bytes >= 1 << 20 && bytes <= 1 << 30
    }

    /// The length of the header of the page that begins at `page`.
    #[must_use]
    pub const fn header_bytes(&self, page: Lsn) -> usize {
        if page.segment_offset(self.segment_bytes) == 0 {
            LONG_HEADER_BYTES
        } else {
            SHORT_HEADER_BYTES
        }
    }

    /// The header of the page that begins at `page`.
    #[must_use]
    pub fn encode_header(&self, page: Lsn, flags: u16, remaining: u32) -> Vec<u8> {
        let long = page.segment_offset(self.segment_bytes) == 0;
        let flags = if long { flags | LONG_HEADER } else { flags };
        let mut bytes = Vec::with_capacity(LONG_HEADER_BYTES);
        bytes.extend(self.version.wal_magic().to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(self.tli.to_le_bytes());
        bytes.extend(page.0.to_le_bytes());
        bytes.extend(remaining.to_le_bytes());
        bytes.extend([0; 4]);
        if long {
            bytes.extend(self.system_id.to_le_bytes());
            bytes.extend((self.segment_bytes as u32).to_le_bytes());
            bytes.extend((WAL_PAGE_BYTES as u32).to_le_bytes());
        }
        bytes
    }

    /// Reads and checks the header of the page at `page`: its flags and how much of a record is
    /// left to come. `bytes` has [`Self::header_bytes`].
    pub fn decode_header(&self, page: Lsn, bytes: &[u8]) -> Result<(u16, u32), PageHeaderError> {
        let mut cursor = Cursor::new(bytes);
        let mut read = || {
            let (magic, flags) = (cursor.u16()?, cursor.u16()?);
            let (tli, address, remaining) = (cursor.u32()?, cursor.u64()?, cursor.u32()?);
            cursor.u32()?;
            Some((magic, flags, tli, address, remaining))
        };
        let (magic, flags, tli, address, remaining) = read().ok_or(PageHeaderError {
            page,
            field: "length",
            value: bytes.len() as u64,
        })?;
        let long = page.segment_offset(self.segment_bytes) == 0;
        let mut checks = vec![
            ("magic", u64::from(magic), magic == self.version.wal_magic()),
            (
                "flags",
                u64::from(flags),
                flags & !ALL_FLAGS == 0 && (flags & LONG_HEADER != 0) == long,
            ),
            ("timeline", u64::from(tli), tli == self.tli),
            ("address", address, address == page.0),
        ];
        if long {
            let mut read = || Some((cursor.u64()?, cursor.u32()?, cursor.u32()?));
            let (system_id, segment, block) = read().ok_or(PageHeaderError {
                page,
                field: "length",
                value: bytes.len() as u64,
            })?;
            checks.extend([
                ("system identifier", system_id, system_id == self.system_id),
                (
                    "segment size",
                    u64::from(segment),
                    u64::from(segment) == self.segment_bytes,
                ),
                (
                    "page size",
                    u64::from(block),
                    u64::from(block) == WAL_PAGE_BYTES,
                ),
            ]);
        }
        for (field, value, right) in checks {
            if !right {
                return Err(PageHeaderError { page, field, value });
            }
        }
        Ok((flags, remaining))
    }
}

/// The header of a WAL page is not what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("WAL page at {page}: {field} is {value:#x}")]
pub struct PageHeaderError {
    /// Where the page begins.
    pub page: Lsn,
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub value: u64,
}
