//! Turns decoded records into values. No I/O: the caller feeds records in order and stores what
//! comes out at the record's end.
//!
//! PostgreSQL 15. The truncation of multixacts, tablespaces, commit timestamps, replication origins
//! and databases copied as files are not supported yet: such a record stops
//! ingest, since half a record would lose data in silence.

mod directory;
mod multixact;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use ids::{Fork, Key, KeyKind, Lsn, SlruKind};
use pg::PgMajor;
use pg::control::CheckPoint;
use pg::rmgr::{
    ClogRecord, DatabaseRecord, Finish, Outcome, Payload, Prepare, StandbyRecord, StorageRecord,
    XactRecord, XlogRecord, truncate_flags,
};
use pg::wal::{DecodeError, Record, rmgr};
use redo::vm;

pub(crate) use directory::Directory;
use directory::{beside, slru_place};

use crate::value::{Value, XidStatus};

const XIDS_PER_CLOG_PAGE: u32 = 8192 * 4;
/// Database, tablespace and length, before the map: reading the payload checked all three.
const RELMAP_HEADER_BYTES: usize = 12;
const FIRST_NORMAL_XID: u32 = 3;

/// A record that ingest does not get past.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IngestError {
    /// It cannot be understood.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It is understood, and does not fit or is not supported.
    #[error("WAL record at {lsn} ({} rmgr {rmid}, info {info:#04x}): {reason}", rmgr::name(*rmid))]
    Refused {
        lsn: Lsn,
        rmid: u8,
        info: u8,
        reason: Reason,
    },
}

/// Why a record is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("not supported yet")]
    Unsupported,
    #[error("page {page} of {} was never made", slru.directory())]
    NoSlruPage { slru: SlruKind, page: u32 },
    #[error("transaction {0} was never prepared")]
    NotPrepared(u32),
    /// C3: a next transaction that is too low would hide rows.
    #[error("the next transaction is {found}, below {seen}, though all before that were seen")]
    NextXid { found: u64, seen: u64 },
}

/// What a record changes, in the order in which it applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes(pub(crate) Vec<(Key, Value)>);

/// Everything that the next record's meaning depends on.
#[derive(Clone, Debug)]
pub(crate) struct Ingest {
    version: PgMajor,
    directory: Directory,
    checkpoint: CheckPoint,
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
            stopped: None,
        }
    }

    pub(crate) const fn directory(&self) -> &Directory {
        &self.directory
    }

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
        let changes = pg::wal::decode(self.version, start, end, bytes.clone())
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
        self.blocks(record, bytes, &mut out);
        self.payload(record, payload, &mut out)
            .map_err(|reason| IngestError::Refused {
                lsn: record.start,
                rmid: record.rmid,
                info: record.info,
                reason,
            })?;
        if self.checkpoint != before {
            let image = Bytes::copy_from_slice(&self.checkpoint.encode());
            out.put(KeyKind::Checkpoint, Value::Image(image));
        }
        Ok(out)
    }

    fn blocks(&mut self, record: &Record, bytes: &Bytes, out: &mut Changes) {
        for (index, block) in record.blocks.iter().enumerate() {
            let will_init = redo::will_init(record, index);
            self.directory.reach(block.rel, block.blkno, will_init, out);
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
    }

    fn payload(
        &mut self,
        record: &Record,
        payload: Payload,
        out: &mut Changes,
    ) -> Result<(), Reason> {
        match payload {
            Payload::Pages | Payload::LogicalMessage(_) => {}
            Payload::Standby(StandbyRecord::RunningXacts(running)) => {
                self.saw_xid(running.next_xid.wrapping_sub(1));
            }
            Payload::Standby(_) => {}
            Payload::Xlog(xlog) => self.xlog(xlog)?,
            Payload::Xact(XactRecord::Finish(finish)) => self.finish(&finish, out)?,
            Payload::Xact(XactRecord::Prepare(prepare)) => self.prepare(&prepare, out)?,
            // Hints for a standby and for logical decoding.
            Payload::Xact(XactRecord::Assignment { .. } | XactRecord::Invalidations) => {}
            Payload::Storage(StorageRecord::Create(fork)) => self.directory.create_fork(fork, out),
            Payload::Storage(storage) => self.truncate(storage, out),
            Payload::Clog(clog) => self.clog(clog, out),
            Payload::MultiXact(multixact) => self.multixact(multixact, out)?,
            Payload::Relmap(update) => {
                let (spc, db) = (update.spc, update.db);
                let map = record.main_data.slice(RELMAP_HEADER_BYTES..);
                out.put(KeyKind::RelMap { spc, db }, Value::Image(map));
            }
            Payload::Database(DatabaseRecord::CreateWalLog { db, spc }) => {
                self.directory.add_database(spc, db, out);
            }
            Payload::Database(DatabaseRecord::Drop { db, spcs }) => {
                for spc in spcs {
                    self.directory.drop_database(spc, db, out);
                }
            }
            _ => return Err(Reason::Unsupported),
        }
        Ok(())
    }

    fn xlog(&mut self, xlog: XlogRecord) -> Result<(), Reason> {
        match xlog {
            XlogRecord::CheckPoint {
                shutdown,
                checkpoint,
            } => {
                let (seen, next_oid) = (self.checkpoint.next_xid, self.checkpoint.next_oid);
                let multi = (
                    self.checkpoint.next_multi,
                    self.checkpoint.next_multi_offset,
                );
                if shutdown && checkpoint.next_xid < seen {
                    let found = checkpoint.next_xid;
                    return Err(Reason::NextXid { found, seen });
                }
                self.checkpoint = checkpoint;
                if !shutdown {
                    // Taken before the record was written: others may have begun since.
                    self.checkpoint.next_xid = checkpoint.next_xid.max(seen);
                    self.checkpoint.next_oid = next_oid;
                    self.advance_multi(multi.0, multi.1);
                }
            }
            XlogRecord::NextOid(next) => self.checkpoint.next_oid = next,
            XlogRecord::FullPageWrites(on) => self.checkpoint.full_page_writes = on,
            XlogRecord::Noop
            | XlogRecord::Switch
            | XlogRecord::BackupEnd(_)
            | XlogRecord::RestorePoint { .. }
            | XlogRecord::Images => {}
            _ => return Err(Reason::Unsupported),
        }
        Ok(())
    }

    fn finish(&mut self, finish: &Finish, out: &mut Changes) -> Result<(), Reason> {
        if finish.origin.is_some() {
            return Err(Reason::Unsupported);
        }
        let status = match finish.outcome {
            Outcome::Commit => XidStatus::Committed,
            Outcome::Abort => XidStatus::Aborted,
        };
        if finish.was_prepared && !self.directory.drop_prepared(finish.xid, out) {
            return Err(Reason::NotPrepared(finish.xid));
        }
        let mut xids = vec![finish.xid];
        xids.extend(&finish.subxacts);
        xids.retain(|xid| *xid >= FIRST_NORMAL_XID);
        for xid in &xids {
            self.saw_xid(*xid);
        }
        for of_page in xids.chunk_by(|a, b| a / XIDS_PER_CLOG_PAGE == b / XIDS_PER_CLOG_PAGE) {
            let page = of_page[0] / XIDS_PER_CLOG_PAGE;
            if !self.directory.has_page(SlruKind::Clog, page) {
                return Err(Reason::NoSlruPage {
                    slru: SlruKind::Clog,
                    page,
                });
            }
            let (segment, block) = slru_place(page);
            let xids = of_page.to_vec();
            out.put(
                KeyKind::SlruBlock(SlruKind::Clog, segment, block),
                Value::ClogSet { status, xids },
            );
        }
        for file in &finish.dropped {
            for fork in [Fork::Main, Fork::Fsm, Fork::Vm, Fork::Init] {
                self.directory.drop_fork(file.fork(fork), out);
            }
        }
        Ok(())
    }

    fn prepare(&mut self, prepare: &Prepare, out: &mut Changes) -> Result<(), Reason> {
        if prepare.origin.lsn != Lsn(0) {
            return Err(Reason::Unsupported);
        }
        for xid in prepare.subxacts.iter().chain([&prepare.xid]) {
            self.saw_xid(*xid);
        }
        self.directory
            .add_prepared(prepare.xid, prepare.state_file(), out);
        Ok(())
    }

    fn truncate(&mut self, storage: StorageRecord, out: &mut Changes) {
        let StorageRecord::Truncate {
            file,
            blocks,
            flags,
        } = storage
        else {
            return;
        };
        if flags & truncate_flags::MAIN != 0 {
            self.directory.cut(file.fork(Fork::Main), blocks, out);
        }
        // The free space map only hints, and its pages correct themselves: it stays as long as
        // it is.
        let map = file.fork(Fork::Vm);
        if flags & truncate_flags::VM != 0 {
            self.directory.cut(map, vm::truncated_len(blocks), out);
            let tail = vm::map_block(blocks);
            if !blocks.is_multiple_of(vm::PAGES_PER_MAP_PAGE) && self.directory.has_block(map, tail)
            {
                let heap_blocks = blocks;
                out.put(
                    KeyKind::RelBlock(map, tail),
                    Value::VmTruncate { heap_blocks },
                );
            }
        }
    }

    fn clog(&mut self, clog: ClogRecord, out: &mut Changes) {
        match clog {
            ClogRecord::ZeroPage(page) => self.directory.zero_page(SlruKind::Clog, page, out),
            ClogRecord::Truncate {
                page: first,
                oldest_xid,
                oldest_xid_db,
            } => {
                let precedes = |page| clog_page_precedes(page, first);
                self.directory.cut_slru(SlruKind::Clog, precedes, out);
                self.checkpoint.oldest_xid = oldest_xid;
                self.checkpoint.oldest_xid_db = oldest_xid_db;
            }
        }
    }

    /// Keeps `next_xid` above every transaction seen (C3), over wraparound.
    fn saw_xid(&mut self, xid: u32) {
        if xid < FIRST_NORMAL_XID {
            return;
        }
        let next = self.checkpoint.next_xid;
        let ahead = xid.wrapping_sub(next as u32);
        if ahead.cast_signed() >= 0 {
            let after = next + u64::from(ahead) + 1;
            // The lowest numbers of an epoch are no transactions.
            let special = u64::from(FIRST_NORMAL_XID).saturating_sub(after & 0xFFFF_FFFF);
            self.checkpoint.next_xid = after + special;
        }
    }
}

/// Whether all of `page` is older than all of `other`, as transactions count: modulo 2^32.
const fn clog_page_precedes(page: u32, other: u32) -> bool {
    let (page, other) = (
        page.wrapping_mul(XIDS_PER_CLOG_PAGE),
        other.wrapping_mul(XIDS_PER_CLOG_PAGE),
    );
    let last = other.wrapping_add(XIDS_PER_CLOG_PAGE - 1);
    page.wrapping_sub(other).cast_signed() < 0 && page.wrapping_sub(last).cast_signed() < 0
}
