//! Databases and tablespaces: which there are, and the forks that go with them.
//!
//! A tablespace is kept by its number. Where its directory was is of no use: a start of a compute has
//! it inside of the data directory.

use bytes::Bytes;
use ids::{Key, KeyKind, Lsn, RelTag};
use pg::datadir::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE};
use pg::rmgr::{DatabaseRecord, TablespaceRecord};

use super::directory::fork_item;
use super::{Changes, Directory, Ingest, Reason};
use crate::value::Value;

/// Blocks of a template that is copied as files: each of them becomes a value at once.
const TEMPLATE_BLOCKS_MAX: u64 = 2 << 20;

impl Ingest {
    pub(super) fn database(
        &mut self,
        database: DatabaseRecord,
        before: Lsn,
        out: &mut Changes,
    ) -> Result<(), Reason> {
        let directory = &mut self.directory;
        match database {
            DatabaseRecord::CreateWalLog { db, spc } => {
                directory.check_place(spc, db)?;
                directory.add_database(spc, db, out);
            }
            DatabaseRecord::CreateFileCopy {
                db,
                spc,
                from_db,
                from_spc,
            } => {
                directory.check_place(spc, db)?;
                directory.check_database(from_spc, from_db)?;
                if (from_spc, from_db) == (spc, db) {
                    return Err(Reason::NoDatabase(db));
                }
                directory.copy_database((from_spc, from_db), (spc, db), before, out)?;
            }
            DatabaseRecord::Drop { db, spcs } => {
                for spc in spcs {
                    directory.check_place(spc, db)?;
                    directory.drop_database(spc, db, out);
                }
            }
        }
        Ok(())
    }

    pub(super) fn tablespace(
        &mut self,
        tablespace: &TablespaceRecord,
        out: &mut Changes,
    ) -> Result<(), Reason> {
        let directory = &mut self.directory;
        let (TablespaceRecord::Create { spc, .. } | TablespaceRecord::Drop { spc }) = *tablespace;
        if matches!(spc, 0 | DEFAULT_TABLESPACE | GLOBAL_TABLESPACE) {
            return Err(Reason::Place { spc, db: 0 });
        }
        let item = Bytes::copy_from_slice(&spc.to_be_bytes());
        match tablespace {
            TablespaceRecord::Create { .. } if directory.tablespaces.insert(spc) => {
                out.put(KeyKind::Tablespaces, Value::ListAdd(item));
            }
            TablespaceRecord::Drop { .. } if directory.tablespaces.remove(&spc) => {
                // Nothing but empty directories of databases was left in it.
                let of = directory.databases.iter().filter(|(of, _)| *of == spc);
                for (spc, db) in of.copied().collect::<Vec<_>>() {
                    directory.drop_database(spc, db, out);
                }
                out.put(KeyKind::Tablespaces, Value::ListRemove(item));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Directory {
    pub(super) fn add_database(&mut self, spc: u32, db: u32, out: &mut Changes) {
        if self.databases.insert((spc, db)) {
            let item = database_item(spc, db);
            out.put(KeyKind::Databases, Value::ListAdd(item));
        }
    }

    /// Whether there can be a database here.
    fn check_place(&self, spc: u32, db: u32) -> Result<(), Reason> {
        match (spc, db) {
            (GLOBAL_TABLESPACE, _) | (_, 0) => Err(Reason::Place { spc, db }),
            (DEFAULT_TABLESPACE, _) => Ok(()),
            _ if self.tablespaces.contains(&spc) => Ok(()),
            _ => Err(Reason::NoTablespace(spc)),
        }
    }

    /// Whether files of this database can be there.
    pub(super) fn check_database(&self, spc: u32, db: u32) -> Result<(), Reason> {
        if (spc, db) == (GLOBAL_TABLESPACE, 0) {
            return Ok(());
        }
        self.check_place(spc, db)?;
        if self.databases.iter().any(|(_, known)| *known == db) {
            Ok(())
        } else {
            Err(Reason::NoDatabase(db))
        }
    }

    /// Makes files of a database possible in a tablespace. No record does so: the first file makes
    /// the directory.
    pub(super) fn reach_database(
        &mut self,
        spc: u32,
        db: u32,
        out: &mut Changes,
    ) -> Result<(), Reason> {
        self.check_database(spc, db)?;
        if db != 0 {
            self.add_database(spc, db, out);
        }
        Ok(())
    }

    /// Nothing of the database can be named afterwards in this tablespace.
    fn drop_database(&mut self, spc: u32, db: u32, out: &mut Changes) {
        let gone: Vec<RelTag> = self.forks.keys().copied().collect();
        for fork in gone.into_iter().filter(|f| f.spc == spc && f.db == db) {
            self.drop_fork(fork, out);
        }
        if self.databases.remove(&(spc, db)) {
            let item = database_item(spc, db);
            out.put(KeyKind::Databases, Value::ListRemove(item));
            out.put(KeyKind::RelMap { spc, db }, Value::Gone);
        }
    }

    /// Gives a database what another has `before` the record.
    fn copy_database(
        &mut self,
        from: (u32, u32),
        to: (u32, u32),
        before: Lsn,
        out: &mut Changes,
    ) -> Result<(), Reason> {
        let (spc, db) = to;
        let forks = self.forks.iter().map(|(fork, len)| (*fork, *len));
        let forks: Vec<_> = forks.filter(|(f, _)| (f.spc, f.db) == from).collect();
        let blocks = forks.iter().map(|(_, len)| u64::from(*len)).sum();
        if blocks > TEMPLATE_BLOCKS_MAX {
            return Err(Reason::LongTemplate { blocks });
        }
        self.drop_database(spc, db, out);
        self.add_database(spc, db, out);
        let copy = |key: KeyKind| Value::CopyOf {
            key: Key::new(key),
            at: before,
        };
        let map = |(spc, db)| KeyKind::RelMap { spc, db };
        out.put(map(to), copy(map(from)));
        let mut list = Vec::new();
        for (from, len) in forks {
            let to = RelTag { spc, db, ..from };
            list.extend(fork_item(to));
            self.set_len(to, len, out);
            for block in 0..len {
                let copied = copy(KeyKind::RelBlock(from, block));
                out.put(KeyKind::RelBlock(to, block), copied);
            }
        }
        out.put(KeyKind::Relations { spc, db }, Value::Image(list.into()));
        Ok(())
    }
}

pub(super) fn database_item(spc: u32, db: u32) -> Bytes {
    [spc.to_be_bytes(), db.to_be_bytes()].concat().into()
}
