//! Turns decoded records into values. [`Ingest`] does no I/O: the caller feeds records in order
//! and stores what comes out at the record's end, as [`stream`] does.
//!
//! PostgreSQL 14 to 18. What a record does beside its blocks, case by case, and where:
//!
//! | record | effect | |
//! |---|---|---|
//! | heap changes | bits of the visibility map, where it is no block | `vm_clears` |
//! | any block past the end | zeros up to there | `directory::reach` |
//! | SMGR CREATE, TRUNCATE | lengths, the tail of the maps | `files` |
//! | XACT commit, abort, prepared too | `pg_xact`, `pg_commit_ts`, files that go, progress of origins | `transactions` |
//! | XACT prepare | a file in `pg_twophase` | `transactions` |
//! | DBASE, TBLSPC | lists; the copy of a template is what it was before the record | `databases` |
//! | RELMAP | the map, whole | here |
//! | CLOG, COMMIT_TS, MULTIXACT | pages of SLRUs begin and go | `transactions`, `multixact` |
//! | REPLORIGIN | progress of origins | `origins` |
//! | XLOG | fields of the checkpoint, settings in `pg_control` | `control` |
//! | LOGICALMSG | files of the agent (C7) | `kept` |
//! | custom managers | their pages cannot be made until an image comes; without a page: stop, or skip | here |
//!
//! `wal_level = minimal`, and whatever is not known of a record of PostgreSQL itself, stops ingest:
//! half a record would lose data in silence.

mod changes;
mod commit_ts;
mod control;
mod databases;
mod directory;
mod files;
pub(crate) mod kept;
mod load;
mod multixact;
mod origins;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
mod transactions;

use std::sync::Arc;

use bytes::Bytes;
use ids::{Fork, KeyKind, Lsn};
use pg::PgMajor;
use pg::control::{CheckPoint, ControlFile};
use pg::rmgr::Payload;
use pg::wal::{Record, rmgr};
use redo::vm;

pub(crate) use changes::{Changes, IngestError, Reason};
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
    /// With the settings of the server as of the last record.
    control: ControlFile,
    /// Custom resource managers whose records are skipped where they name no page.
    skipped: Arc<[u8]>,
    directory: Directory,
    checkpoint: CheckPoint,
    /// When the latest transaction ended that was seen here.
    commit_time: i64,
    stopped: Option<IngestError>,
}

impl Ingest {
    pub(crate) const fn new(
        control: ControlFile,
        directory: Directory,
        checkpoint: CheckPoint,
        skipped: Arc<[u8]>,
    ) -> Self {
        Self {
            control,
            skipped,
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
        let changes = pg::wal::decode(self.version(), start, end, bytes)
            .map_err(IngestError::from)
            .and_then(|record| self.ingest_record(&record, bytes));
        if let Err(error) = &changes {
            self.stopped = Some(error.clone());
        }
        changes
    }

    const fn version(&self) -> PgMajor {
        self.control.version()
    }

    fn ingest_record(&mut self, record: &Record, bytes: &Bytes) -> Result<Changes, IngestError> {
        let payload = Payload::read(self.version(), record)?;
        let (mut out, before) = (Changes::default(), self.checkpoint);
        self.saw_xid(record.xid);
        self.check_custom(record)
            .and_then(|()| self.blocks(record, bytes, &mut out))
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

    /// Of a custom resource manager the pages are known, which cannot be made until an image heals
    /// them. Where it names none, all that is stored might depend on it.
    fn check_custom(&self, record: &Record) -> Result<(), Reason> {
        let without_page = is_custom(self.version(), record.rmid) && record.blocks.is_empty();
        if without_page && !self.skipped.contains(&record.rmid) {
            return Err(Reason::Custom(record.rmid));
        }
        Ok(())
    }

    fn blocks(&mut self, record: &Record, bytes: &Bytes, out: &mut Changes) -> Result<(), Reason> {
        let control = &self.control;
        let logs_hints = control.checksum_version() != 0 || control.wal_log_hints();
        for (index, block) in record.blocks.iter().enumerate() {
            let will_init = redo::will_init(record, index);
            let directory = &mut self.directory;
            directory.reach(block.rel, block.blkno, will_init, out)?;
            let value = Value::Record {
                will_init,
                logs_hints,
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

    fn payload(
        &mut self,
        record: &Record,
        payload: Payload,
        out: &mut Changes,
    ) -> Result<(), Reason> {
        match payload {
            // What it says beside its pages is for its extension alone.
            Payload::Pages | Payload::Custom => {}
            Payload::LogicalMessage(message) => self.keep(record, &message, out)?,
            Payload::Standby(standby) => self.standby(standby),
            Payload::Xlog(xlog) => self.xlog(xlog, out)?,
            Payload::Xact(xact) => self.xact(record, xact, out)?,
            Payload::Storage(storage) => self.storage(storage, out)?,
            Payload::Clog(clog) => self.clog(clog, out),
            Payload::MultiXact(multixact) => self.multixact(multixact, out)?,
            Payload::Relmap(update) => {
                let (spc, db) = (update.spc, update.db);
                self.directory.reach_database(spc, db, out)?;
                let map = Bytes::copy_from_slice(&record.main_data[RELMAP_HEADER_BYTES..]);
                out.put(KeyKind::RelMap { spc, db }, Value::Image(map));
            }
            Payload::Database(database) => self.database(database, record.start, out)?,
            Payload::Origin(origin) => self.origin(origin, out),
            Payload::CommitTs(commit_ts) => self.commit_ts(commit_ts, out),
            Payload::Tablespace(tablespace) => self.tablespace(&tablespace, out)?,
        }
        Ok(())
    }
}

/// Whether redo knows nothing of this resource manager, and cannot.
fn is_custom(version: PgMajor, rmid: u8) -> bool {
    rmid >= rmgr::CUSTOM_MIN && !(rmid == rmgr::NEON && version >= PgMajor::V16)
}

/// Whether `a` comes after `b`, modulo 2^32.
const fn is_ahead(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}
