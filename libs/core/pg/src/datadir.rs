//! The data directory: which file holds what, which directories must be there, relation maps.

use std::fmt::Write as _;

use bytes::Bytes;
use ids::{Fork, Lsn, RelTag, SlruKind};

use crate::PgMajor;
use crate::cursor::Cursor;

/// The tablespace whose files are in `base/`.
pub const DEFAULT_TABLESPACE: u32 = 1663;
/// The tablespace whose files are in `global/`.
pub const GLOBAL_TABLESPACE: u32 = 1664;
/// The blocks in a file of a relation: 1 GiB.
pub const SEGMENT_BLOCKS: u32 = 131_072;
/// The pages in a file of an SLRU.
pub const SLRU_SEGMENT_PAGES: u32 = 32;
/// The name of a relation map, in `global/` and in the directory of each database.
pub const FILENODE_MAP: &str = "pg_filenode.map";

/// The directories that a server does not start or does not work without. `base/<db>` of each
/// database comes on top; from 17 on servers make `pg_wal/summaries` where it is not there.
pub const DIRECTORIES: [&str; 22] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_wal/archive_status",
    "pg_xact",
];

/// The path of a file of a relation, below the data directory; `None` in a tablespace of the
/// user, which Redoubt does not store.
#[must_use]
pub fn relation_path(rel: RelTag, segment: u32) -> Option<String> {
    let mut path = match (rel.spc, rel.db) {
        (GLOBAL_TABLESPACE, 0) => format!("global/{}", rel.rel),
        (DEFAULT_TABLESPACE, db) if db != 0 => format!("base/{db}/{}", rel.rel),
        _ => return None,
    };
    path.push_str(rel.fork.suffix());
    if segment != 0 {
        let _ = write!(path, ".{segment}"); // into a string: cannot fail
    }
    Some(path)
}

/// The fork and segment that a path below the data directory is the file of; `None` for every
/// other file, temporary relations among them.
#[must_use]
pub fn parse_relation_path(path: &str) -> Option<(RelTag, u32)> {
    let (spc, db, name) = match path.strip_prefix("global/") {
        Some(name) => (GLOBAL_TABLESPACE, 0, name),
        None => {
            let (db, name) = path.strip_prefix("base/")?.split_once('/')?;
            (DEFAULT_TABLESPACE, number(db)?, name)
        }
    };
    let (name, segment) = match name.split_once('.') {
        Some((name, segment)) => (name, number(segment)?),
        None => (name, 0),
    };
    let (rel, fork) = match name.split_once('_') {
        None => (name, Fork::Main),
        Some((rel, "fsm")) => (rel, Fork::Fsm),
        Some((rel, "vm")) => (rel, Fork::Vm),
        Some((rel, "init")) => (rel, Fork::Init),
        Some(_) => return None,
    };
    let rel = number(rel)?;
    Some((RelTag { spc, db, rel, fork }, segment))
}

/// A number as PostgreSQL writes it in names: above 0, no sign, no zero in front.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

/// The path of a segment of an SLRU, below the data directory.
#[must_use]
pub fn slru_path(kind: SlruKind, segment: u32) -> String {
    format!("{}/{segment:04X}", kind.directory())
}

/// The SLRU and segment that a path below the data directory is the file of.
#[must_use]
pub fn parse_slru_path(path: &str) -> Option<(SlruKind, u32)> {
    let (directory, name) = path.rsplit_once('/')?;
    let kind = (0..=3)
        .filter_map(SlruKind::from_number)
        .find(|kind| kind.directory() == directory)?;
    let segment = u32::from_str_radix(name, 16).ok()?;
    (format!("{segment:04X}") == name).then_some((kind, segment))
}

/// The file in `pg_twophase` of a prepared transaction. Its name has the epoch from 17 on, which
/// the next transaction tells.
#[must_use]
pub fn twophase_path(version: PgMajor, xid: u32, next_xid: u64) -> String {
    if version < PgMajor::V17 {
        return format!("pg_twophase/{xid:08X}");
    }
    let (epoch, next) = ((next_xid >> 32) as u32, next_xid as u32);
    // Above the next one: from before the last wraparound.
    let epoch = epoch.saturating_sub(u32::from(xid > next));
    format!("pg_twophase/{epoch:08X}{xid:08X}")
}

/// The prepared transaction that a path below the data directory is the file of, where
/// [`twophase_path`] gives it that path.
#[must_use]
pub fn parse_twophase_path(version: PgMajor, path: &str, next_xid: u64) -> Option<u32> {
    let name = path.strip_prefix("pg_twophase/")?;
    let xid = u32::from_str_radix(name.get(name.len().checked_sub(8)?..)?, 16).ok()?;
    (twophase_path(version, xid, next_xid) == path).then_some(xid)
}

/// The name of the WAL segment that an LSN is in.
#[must_use]
pub fn wal_segment_name(tli: u32, lsn: Lsn, segment_bytes: u64) -> String {
    let segment = lsn.segment(segment_bytes);
    let per_id = 0x1_0000_0000 / segment_bytes;
    format!("{tli:08X}{:08X}{:08X}", segment / per_id, segment % per_id)
}

/// The timeline of PostgreSQL and the first LSN of the WAL segment with this name.
#[must_use]
pub fn parse_wal_segment_name(name: &str, segment_bytes: u64) -> Option<(u32, Lsn)> {
    let upper_hex = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    if name.len() != 24 || !name.bytes().all(upper_hex) {
        return None;
    }
    let part = |at: usize| u32::from_str_radix(name.get(at..at + 8)?, 16).ok();
    let (tli, high, low) = (part(0)?, part(8)?, part(16)?);
    let low = u64::from(low).checked_mul(segment_bytes)?;
    (low < 0x1_0000_0000).then_some((tli, Lsn(u64::from(high) << 32 | low)))
}

const MAP_MAGIC: u32 = 0x0059_2717;

/// The mappings that a map has room for, and the padding behind its checksum.
const fn map_shape(version: PgMajor) -> (u32, usize) {
    match version {
        PgMajor::V14 | PgMajor::V15 => (62, 4),
        PgMajor::V16 | PgMajor::V17 | PgMajor::V18 => (64, 0),
    }
}

/// A relation map cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilenodeMapError {
    /// It is too short or too long.
    #[error("relation map has {0} bytes")]
    Length(usize),
    /// It is something else.
    #[error("relation map has magic {0:#x}")]
    Magic(u32),
    /// It fails its checksum.
    #[error("relation map fails its checksum")]
    Checksum,
    /// More mappings than there is room for.
    #[error("relation map counts {0} mappings")]
    Count(u32),
}

/// A checked `pg_filenode.map`: the file numbers of catalogues that cannot say their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilenodeMap {
    bytes: Bytes,
    mappings: Vec<(u32, u32)>,
}

impl FilenodeMap {
    /// Checks a map: of 512 bytes in 14 and 15, of 524 from 16 on.
    pub fn parse(version: PgMajor, bytes: Bytes) -> Result<Self, FilenodeMapError> {
        let (room, padding_bytes) = map_shape(version);
        let crc_at = 8 + 8 * room as usize;
        let length = FilenodeMapError::Length(bytes.len());
        if bytes.len() != crc_at + 4 + padding_bytes {
            return Err(length);
        }
        let mut cursor = Cursor::new(&bytes);
        let magic = cursor.u32().ok_or(length)?;
        if magic != MAP_MAGIC {
            return Err(FilenodeMapError::Magic(magic));
        }
        let (checked, rest) = bytes.split_at_checked(crc_at).ok_or(length)?;
        if Cursor::new(rest).u32() != Some(crc32c::crc32c(checked)) {
            return Err(FilenodeMapError::Checksum);
        }
        let count = cursor.u32().ok_or(length)?;
        if count > room {
            return Err(FilenodeMapError::Count(count));
        }
        let mappings: Option<Vec<_>> = (0..count)
            .map(|_| Some((cursor.u32()?, cursor.u32()?)))
            .collect();
        let mappings = mappings.ok_or(length)?;
        Ok(Self { bytes, mappings })
    }

    /// Each catalogue's OID and its file number.
    #[must_use]
    pub fn mappings(&self) -> &[(u32, u32)] {
        &self.mappings
    }

    /// The file.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_read_as_they_are_written() {
        for (path, rel, segment) in [
            ("base/5/16384", (1663, 5, 16384, Fork::Main), 0),
            ("base/5/16384.7", (1663, 5, 16384, Fork::Main), 7),
            ("base/5/16384_fsm.1", (1663, 5, 16384, Fork::Fsm), 1),
            ("base/5/16384_init", (1663, 5, 16384, Fork::Init), 0),
            ("global/1262_vm", (1664, 0, 1262, Fork::Vm), 0),
        ] {
            let (spc, db, rel, fork) = rel;
            let rel = RelTag { spc, db, rel, fork };
            assert_eq!(relation_path(rel, segment).as_deref(), Some(path));
            assert_eq!(parse_relation_path(path), Some((rel, segment)));
        }
        for path in [
            "base/5/t3_16384",
            "base/5/PG_VERSION",
            "base/5/pg_filenode.map",
            "base/5/016384",
            "base/5/+1",
            "base/5/16384.0",
            "base/5/16384_x",
            "base/0/16384",
            "base/5/4294967296",
            "global/pg_control",
            "base/5/",
            "base/5",
            "global/1262/1",
        ] {
            assert_eq!(parse_relation_path(path), None, "{path}");
        }
        let foreign = RelTag {
            spc: 16400,
            db: 5,
            rel: 1,
            fork: Fork::Main,
        };
        assert_eq!(relation_path(foreign, 0), None);
    }

    #[test]
    fn names_of_slru_segments_are_read_as_they_are_written() {
        for (path, kind, segment) in [
            ("pg_xact/0000", SlruKind::Clog, 0),
            (
                "pg_multixact/members/14078",
                SlruKind::MultiXactMembers,
                0x14078,
            ),
            (
                "pg_multixact/offsets/00AB",
                SlruKind::MultiXactOffsets,
                0xAB,
            ),
        ] {
            assert_eq!(slru_path(kind, segment), path);
            assert_eq!(parse_slru_path(path), Some((kind, segment)));
        }
        for path in [
            "pg_xact/00ab",
            "pg_xact/00000",
            "pg_xact/1",
            "pg_subtrans/0000",
        ] {
            assert_eq!(parse_slru_path(path), None, "{path}");
        }
    }

    #[test]
    fn the_file_of_a_prepared_transaction_has_its_epoch_since_17() {
        for (version, xid, next, path) in [
            (PgMajor::V14, 0x2E0, 0x3_0000_02E1, "pg_twophase/000002E0"),
            (PgMajor::V16, 0x2E0, 0x2E1, "pg_twophase/000002E0"),
            (PgMajor::V17, 0x2E0, 0x2E1, "pg_twophase/00000000000002E0"),
            (
                PgMajor::V18,
                0x2E0,
                0x3_0000_02E1,
                "pg_twophase/00000003000002E0",
            ),
            (
                PgMajor::V18,
                0x2E2,
                0x3_0000_02E1,
                "pg_twophase/00000002000002E2",
            ),
        ] {
            assert_eq!(twophase_path(version, xid, next), path);
            assert_eq!(parse_twophase_path(version, path, next), Some(xid));
        }
        for path in [
            "pg_twophase/000002E0",
            "pg_twophase/00000000000002e0",
            "pg_twophase/00000001000002E0",
            "pg_twophase/2E0",
            "pg_twophase/\u{e9}00002E0",
            "pg_xact/00000000000002E0",
        ] {
            assert_eq!(
                parse_twophase_path(PgMajor::V17, path, 0x2E1),
                None,
                "{path}"
            );
        }
    }

    #[test]
    fn names_of_wal_segments_are_read_as_they_are_written() {
        let megabyte = 1 << 20;
        let at = Lsn(0x1_FFF1_2345);
        let name = "000000030000000100000FFF";
        assert_eq!(wal_segment_name(3, at, megabyte), name);
        assert_eq!(
            parse_wal_segment_name(name, megabyte),
            Some((3, Lsn(0x1_FFF0_0000)))
        );
        // There is no segment 0xFFF of 16 MiB.
        assert_eq!(parse_wal_segment_name(name, megabyte << 4), None);
        assert_eq!(parse_wal_segment_name("00000001.history", megabyte), None);
    }

    #[test]
    fn a_relation_map_is_held_to_its_checksum() {
        for (version, bytes, room) in [
            (PgMajor::V14, 512, 62),
            (PgMajor::V15, 512, 62),
            (PgMajor::V16, 524, 64),
            (PgMajor::V18, 524, 64),
        ] {
            let mut map = vec![0; bytes];
            map[..4].copy_from_slice(&MAP_MAGIC.to_le_bytes());
            map[4] = 1;
            map[8..16].copy_from_slice(&[1, 2, 0, 0, 3, 4, 0, 0]);
            let crc_at = 8 + 8 * room;
            let seal = |map: &mut Vec<u8>| {
                let crc = crc32c::crc32c(&map[..crc_at]);
                map[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
            };
            let parse = |map: &[u8]| FilenodeMap::parse(version, Bytes::copy_from_slice(map));
            assert_eq!(parse(&map), Err(FilenodeMapError::Checksum));
            seal(&mut map);
            assert_eq!(parse(&map).unwrap().mappings(), [(0x201, 0x403)]);
            for length in [0, bytes - 1, 1036 - bytes] {
                map.resize(length, 0);
                assert_eq!(parse(&map), Err(FilenodeMapError::Length(length)));
            }
            let mut map = vec![0; bytes];
            map[..4].copy_from_slice(&MAP_MAGIC.to_le_bytes());
            map[4] = room as u8;
            seal(&mut map);
            assert_eq!(parse(&map).unwrap().mappings().len(), room);
            map[4] += 1;
            seal(&mut map);
            assert_eq!(parse(&map), Err(FilenodeMapError::Count(room as u32 + 1)));
            map[0] ^= 1;
            assert_eq!(parse(&map), Err(FilenodeMapError::Magic(0x0059_2716)));
        }
    }
}
