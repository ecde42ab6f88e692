//! Turns decoded records into values. [`Ingest`] does no I/O: the caller feeds records in order
//! and stores what comes out at the record's end, as [`stream`] does.
//!
//! PostgreSQL 15. Tablespaces, commit timestamps and `wal_level = minimal` are not supported: such
//! a record stops ingest, since half a record would lose data in silence.

mod changes;
mod control;
mod directory;
mod files;
pub(crate) mod kept;
mod load;
mod multixact;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
mod transactions;

use bytes::Bytes;
use ids::{Fork, KeyKind, Lsn};
use pg::PgMajor;
use pg::control::CheckPoint;
use pg::rmgr::{Payload, TablespaceRecord};
use pg::wal::{Record, rmgr};
use redo::{Fault, vm};

pub(crate) use changes::{Changes, CopyDatabase, IngestError, Reason};
pub(crate) use directory::Directory;
use directory::beside;
pub(crate) use load::LoadError;
pub(crate) use stream::{IngestStop, IngestStream, Standing};

use crate::value::Value;

/// Database, tablespace and length, before the map: reading the payload checked all three.
const RELMAP_HEADER_BYTES: usize = 12;

/// Everything that the next record's meaning depends on.
#[derive(Clone, Debug)]
pub(crate) struct Ingest {
    version: PgMajor,
    directory: Directory,
    checkpoint: CheckPoint,
    /// When the latest transaction ended that was seen here.
    commit_time: i64,
    stopped: Option<IngestError>,
}

impl Ingest {
    pub(crate) const fn new(
        version: PgMajor,
        directory: Directory,
        checkpoint: CheckPoint,
    ) -> Self {
        Self {
            version,
            directory,
            checkpoint,
            commit_time: i64::MIN,
            stopped: None,
        }
    }

    #[cfg(test)]
    pub(crate) const fn directory(&self) -> &Directory {
        &self.directory
    }

    #[cfg(test)]
    pub(crate) const fn checkpoint(&self) -> &CheckPoint {
        &self.checkpoint
    }

    /// The changes of the record with these bytes. After an error every call gives that error.
    pub(crate) fn ingest(
        &mut self,
        start: Lsn,
        end: Lsn,
        bytes: &Bytes,
    ) -> Result<Changes, IngestError> {
        if let Some(stopped) = &self.stopped {
            return Err(stopped.clone());
        }
        let changes = pg::wal::decode(self.version, start, end, bytes)
            .map_err(IngestError::from)
            .and_then(|record| self.ingest_record(&record, bytes));
        if let Err(error) = &changes {
            self.stopped = Some(error.clone());
        }
        changes
    }

    fn ingest_record(&mut self, record: &Record, bytes: &Bytes) -> Result<Changes, IngestError> {
        let payload = Payload::read(self.version, record)?;
        let (mut out, before) = (Changes::default(), self.checkpoint);
        self.saw_xid(record.xid);
        self.blocks(record, bytes, &mut out)
            .and_then(|()| self.payload(record, payload, &mut out))
            .map_err(|reason| IngestError::Refused {
                lsn: record.start,
                rmid: record.rmid,
                info: record.info,
                reason,
            })?;
        assert!(
            self.checkpoint.next_xid >= before.next_xid,
            "C3: the next transaction never goes back"
        );
        if self.checkpoint != before {
            let image = Bytes::copy_from_slice(&self.checkpoint.encode());
            out.put(KeyKind::Checkpoint, Value::Image(image));
        }
        Ok(out)
    }

    fn blocks(&mut self, record: &Record, bytes: &Bytes, out: &mut Changes) -> Result<(), Reason> {
        for (index, block) in record.blocks.iter().enumerate() {
            self.check_redo(record, index)?;
            let will_init = redo::will_init(record, index);
            let directory = &mut self.directory;
            directory.reach(block.rel, block.blkno, will_init, out)?;
            let value = Value::Record {
                will_init,
                block: index as u8, // a record has at most 33 blocks
                start: record.start,
                record: bytes.clone(),
            };
            out.put(KeyKind::RelBlock(block.rel, block.blkno), value);
        }
        for (heap, heap_block, flags) in redo::vm_clears(record) {
            let (map, block) = (beside(heap, Fork::Vm), vm::map_block(heap_block));
            // A map that does not reach there says "not visible" already.
            if self.directory.has_block(map, block) {
                let clear = Value::VmClear { heap_block, flags };
                out.put(KeyKind::RelBlock(map, block), clear);
            }
        }
        Ok(())
    }

    /// Whether the pages of such a record can be made when they are asked for. Redo is tried on a
    /// page of zeros where it is not known to: other faults there say nothing.
    fn check_redo(&self, record: &Record, index: usize) -> Result<(), Reason> {
        if matches!(
            record.rmid,
            rmgr::HEAP | rmgr::HEAP2 | rmgr::BTREE | rmgr::XLOG
        ) {
            return Ok(());
        }
        let settings = redo::Settings {
            version: self.version,
            logs_hints: false,
        };
        let tried = redo::apply(settings, record, index, &mut pg::page::zeroed());
        match tried.map_err(|error| error.fault) {
            Err(Fault::Unsupported) => Err(Reason::NoRedo),
            _ => Ok(()),
        }
    }

    fn payload(
        &mut self,
        record: &Record,
        payload: Payload,
        out: &mut Changes,
    ) -> Result<(), Reason> {
        match payload {
            Payload::Pages => {}
            Payload::LogicalMessage(message) => self.keep(record, &message, out)?,
            Payload::Standby(standby) => self.standby(standby),
            Payload::Xlog(xlog) => self.xlog(xlog)?,
            Payload::Xact(xact) => self.xact(record, xact, out)?,
            Payload::Storage(storage) => self.storage(storage, out)?,
            Payload::Clog(clog) => self.clog(clog, out),
            Payload::MultiXact(multixact) => self.multixact(multixact, out)?,
            Payload::Relmap(update) => {
                let (spc, db) = (update.spc, update.db);
                self.directory.check_database(spc, db)?;
                let map = Bytes::copy_from_slice(&record.main_data[RELMAP_HEADER_BYTES..]);
                out.put(KeyKind::RelMap { spc, db }, Value::Image(map));
            }
            Payload::Database(database) => self.database(database, out)?,
            Payload::Origin(origin) => transactions::origin(origin, out),
            Payload::CommitTs(_) => return Err(Reason::CommitTimestamps),
            Payload::Custom => return Err(Reason::NoRedo),
            Payload::Tablespace(
                TablespaceRecord::Create { spc, .. } | TablespaceRecord::Drop { spc },
            ) => {
                return Err(Reason::Tablespace(spc));
            }
        }
        Ok(())
    }
}

/// Whether `a` comes after `b`, modulo 2^32.
const fn is_ahead(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}
