//! Files: relations, databases, tablespaces, relation maps (`storage_xlog.h`,
//! `dbcommands_xlog.h`, `tablespace.h`, `relmapper.h`).

use bytes::Bytes;
use ids::RelTag;

use super::fields::Fields;
use super::xact::RelFile;
use crate::PgMajor;
use crate::datadir::FilenodeMap;
use crate::wal::{Malformed, Record};

/// Bits of `flags` of [`StorageRecord::Truncate`].
pub mod truncate_flags {
    /// The data.
    pub const MAIN: u32 = 0x01;
    /// The visibility map.
    pub const VM: u32 = 0x02;
    /// The free space map.
    pub const FSM: u32 = 0x04;

    pub(super) const KNOWN: u32 = MAIN | VM | FSM;
}

/// What happened to the files of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageRecord {
    /// A fork was made, empty.
    Create(RelTag),
    /// A relation was cut.
    Truncate {
        /// The relation.
        file: RelFile,
        /// The blocks of data that stay.
        blocks: u32,
        /// See [`truncate_flags`].
        flags: u32,
    },
}

/// What happened to a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseRecord {
    /// It was made as a copy of the files of another: in 14 always.
    CreateFileCopy {
        /// The database.
        db: u32,
        /// Its tablespace.
        spc: u32,
        /// The one that was copied.
        from_db: u32,
        /// Its tablespace.
        from_spc: u32,
    },
    /// It was made empty; its content follows in the log. 15 on.
    CreateWalLog {
        /// The database.
        db: u32,
        /// Its tablespace.
        spc: u32,
    },
    /// Its directories were removed.
    Drop {
        /// The database.
        db: u32,
        /// The tablespaces that it had directories in.
        spcs: Vec<u32>,
    },
}

/// What happened to a tablespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TablespaceRecord {
    /// It was made.
    Create {
        /// The tablespace.
        spc: u32,
        /// The directory that it stands for.
        path: Bytes,
    },
    /// It was removed.
    Drop {
        /// The tablespace.
        spc: u32,
    },
}

/// A relation map was written anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelmapUpdate {
    /// The database; 0 for the shared map.
    pub db: u32,
    /// Its tablespace.
    pub spc: u32,
    /// The content of `pg_filenode.map`.
    pub map: FilenodeMap,
}

pub(super) fn read_storage(
    record: &Record,
    mut fields: Fields<'_>,
) -> Result<StorageRecord, Malformed> {
    let read = match record.op() {
        0x10 => {
            let file = fields.rel_file("relation")?;
            StorageRecord::Create(fields.fork_of(file, "fork")?)
        }
        0x20 => {
            let blocks = fields.u32("number of blocks")?;
            let file = fields.rel_file("relation")?;
            let flags = fields.u32("flags")?;
            if flags & !truncate_flags::KNOWN != 0 {
                return Err(Malformed::Field {
                    what: "flags",
                    value: u64::from(flags),
                });
            }
            StorageRecord::Truncate {
                file,
                blocks,
                flags,
            }
        }
        _ => return Err(Malformed::UnknownOp),
    };
    fields.finish("payload").map(|()| read)
}

pub(super) fn read_database(
    version: PgMajor,
    record: &Record,
    mut fields: Fields<'_>,
) -> Result<DatabaseRecord, Malformed> {
    let db = fields.u32("database")?;
    let op = match record.op() {
        // 14 only copies files, and 15 put its new way of making databases in between.
        0x10 if version < PgMajor::V15 => 0x20,
        0x20 if version < PgMajor::V15 => return Err(Malformed::UnknownOp),
        op => op,
    };
    let read = match op {
        0x00 => DatabaseRecord::CreateFileCopy {
            db,
            spc: fields.u32("tablespace")?,
            from_db: fields.u32("source database")?,
            from_spc: fields.u32("source tablespace")?,
        },
        0x10 => DatabaseRecord::CreateWalLog {
            db,
            spc: fields.u32("tablespace")?,
        },
        0x20 => {
            let count = fields.count("number of tablespaces")?;
            let spcs = fields.xids(count, "tablespaces")?;
            DatabaseRecord::Drop { db, spcs }
        }
        _ => return Err(Malformed::UnknownOp),
    };
    fields.finish("payload").map(|()| read)
}

pub(super) fn read_tablespace(
    record: &Record,
    mut fields: Fields<'_>,
) -> Result<TablespaceRecord, Malformed> {
    let spc = fields.u32("tablespace")?;
    let read = match record.op() {
        0x00 => TablespaceRecord::Create {
            spc,
            path: fields.c_string("path")?,
        },
        0x10 => TablespaceRecord::Drop { spc },
        _ => return Err(Malformed::UnknownOp),
    };
    fields.finish("payload").map(|()| read)
}

pub(super) fn read_relmap(
    version: PgMajor,
    record: &Record,
    mut fields: Fields<'_>,
) -> Result<RelmapUpdate, Malformed> {
    if record.op() != 0x00 {
        return Err(Malformed::UnknownOp);
    }
    let (db, spc) = (fields.u32("database")?, fields.u32("tablespace")?);
    let length = fields.count("length of map")?;
    let map = fields.bytes(length as usize, "map")?;
    fields.finish("map")?;
    let map = FilenodeMap::parse(version, map).map_err(Malformed::FilenodeMap)?;
    Ok(RelmapUpdate { db, spc, map })
}
