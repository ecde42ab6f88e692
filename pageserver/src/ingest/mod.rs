//! Turns decoded records into values. [`Ingest`] does no I/O: the caller feeds records in order
//! and stores what comes out at the record's end, as [`stream`] does.
//!
//! PostgreSQL 15. Tablespaces, commit timestamps and `wal_level = minimal` are not supported: such
//! a record stops ingest, since half a record would lose data in silence.

mod directory;
mod files;
mod load;
mod multixact;
pub(crate) mod stream;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use ids::{Fork, Key, KeyKind, Lsn, RelTag, SlruKind};
use pg::PgMajor;
use pg::control::CheckPoint;
use pg::rmgr::{
    ClogRecord, Finish, OriginRecord, Outcome, ParameterChange, Payload, Prepare, StandbyRecord,
    TablespaceRecord, XactRecord, XlogRecord,
};
use pg::wal::{DecodeError, Record, rmgr};
use redo::vm;

pub(crate) use directory::{Directory, EXTENSION_MAX};
use directory::{beside, slru_place};
pub(crate) use load::LoadError;
pub(crate) use stream::{IngestStop, IngestStream};

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
    #[error("tablespaces are not supported: {0} is one")]
    Tablespace(u32),
    #[error("track_commit_timestamp is not supported yet")]
    CommitTimestamps,
    /// A transaction may leave its own new files out of WAL then.
    #[error("wal_level = minimal keeps data out of WAL, and is not supported")]
    MinimalWal,
    #[error("PostgreSQL's timeline {0} is not the one that the WAL is on")]
    OtherTimeline(u32),
    #[error("database {0} was never made")]
    NoDatabase(u32),
    #[error("block {block} of {fork} is more than {EXTENSION_MAX} blocks past its end at {len}")]
    FarBlock { fork: RelTag, block: u32, len: u32 },
    #[error("a template of {blocks} blocks is too long to be copied as files: not supported yet")]
    LongTemplate { blocks: u64 },
    #[error("page {page} of {} was never made", slru.directory())]
    NoSlruPage { slru: SlruKind, page: u32 },
    #[error("transaction {0} was never prepared")]
    NotPrepared(u32),
    /// C3: a next transaction that is too low would hide rows.
    #[error("the next transaction is {found}, below {seen}, though all before that were seen")]
    NextXid { found: u64, seen: u64 },
}

/// What a record changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// In the order in which it applies.
    pub(crate) values: Vec<(Key, Value)>,
    /// What the caller copies, as it was before the record.
    pub(crate) copy: Option<CopyDatabase>,
}

/// A database that is made of the files of another. Its lists and lengths are among the values;
/// its map and blocks are to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CopyDatabase {
    /// Tablespace and database.
    pub(crate) from: (u32, u32),
    pub(crate) to: (u32, u32),
    /// The forks of the template, and their lengths in blocks.
    pub(crate) forks: Vec<(RelTag, u32)>,
}

impl CopyDatabase {
    /// Every key that is to be copied: from which, to which.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (Key, Key)> + '_ {
        let map = |(spc, db)| Key::new(KeyKind::RelMap { spc, db });
        let blocks = self.forks.iter().flat_map(|&(from, len)| {
            let (spc, db) = self.to;
            let to = RelTag { spc, db, ..from };
            let key = |fork, block| Key::new(KeyKind::RelBlock(fork, block));
            (0..len).map(move |block| (key(from, block), key(to, block)))
        });
        std::iter::once((map(self.from), map(self.to))).chain(blocks)
    }
}

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

    fn payload(
        &mut self,
        record: &Record,
        payload: Payload,
        out: &mut Changes,
    ) -> Result<(), Reason> {
        match payload {
            Payload::Pages | Payload::LogicalMessage(_) => {}
            Payload::Standby(standby) => self.standby(standby),
            Payload::Xlog(xlog) => self.xlog(xlog)?,
            Payload::Xact(XactRecord::Finish(finish)) => self.finish(record, &finish, out)?,
            Payload::Xact(XactRecord::Prepare(prepare)) => self.prepare(&prepare, out),
            // A hint for a standby.
            Payload::Xact(XactRecord::Assignment { top, subxacts }) => {
                subxacts
                    .iter()
                    .chain([&top])
                    .for_each(|xid| self.saw_xid(*xid));
            }
            // Logical decoding reads it in WAL.
            Payload::Xact(XactRecord::Invalidations) => {}
            Payload::Storage(storage) => self.storage(storage, out)?,
            Payload::Clog(clog) => self.clog(clog, out),
            Payload::MultiXact(multixact) => self.multixact(multixact, out)?,
            Payload::Relmap(update) => {
                let (spc, db) = (update.spc, update.db);
                self.directory.check_database(spc, db)?;
                let map = record.main_data.slice(RELMAP_HEADER_BYTES..);
                out.put(KeyKind::RelMap { spc, db }, Value::Image(map));
            }
            Payload::Database(database) => self.database(database, out)?,
            Payload::Origin(OriginRecord::Set { origin, lsn, .. }) => progress(origin, lsn, out),
            Payload::Origin(OriginRecord::Drop { origin }) => {
                out.put(KeyKind::ReplOrigin(origin), Value::Gone);
            }
            Payload::CommitTs(_) => return Err(Reason::CommitTimestamps),
            Payload::Tablespace(
                TablespaceRecord::Create { spc, .. } | TablespaceRecord::Drop { spc },
            ) => {
                return Err(Reason::Tablespace(spc));
            }
        }
        Ok(())
    }

    fn standby(&mut self, standby: StandbyRecord) {
        match standby {
            StandbyRecord::RunningXacts(running) => {
                self.saw_xid(running.next_xid.wrapping_sub(1));
                for xid in running.xids.iter().chain(&running.subxids) {
                    self.saw_xid(*xid);
                }
            }
            // The first that a transaction does may be a lock.
            StandbyRecord::Locks(locks) => locks.iter().for_each(|lock| self.saw_xid(lock.xid)),
            StandbyRecord::Invalidations { .. } => {}
        }
    }

    fn xlog(&mut self, xlog: XlogRecord) -> Result<(), Reason> {
        match xlog {
            XlogRecord::CheckPoint {
                shutdown,
                checkpoint,
            } => {
                let (seen, next_oid) = (self.checkpoint.next_xid, self.checkpoint.next_oid);
                let before = self.checkpoint;
                if shutdown && checkpoint.next_xid < seen {
                    let found = checkpoint.next_xid;
                    return Err(Reason::NextXid { found, seen });
                }
                self.checkpoint = checkpoint;
                if !shutdown {
                    // Taken before the record was written: others may have begun since.
                    self.checkpoint.next_xid = checkpoint.next_xid.max(seen);
                    self.checkpoint.next_oid = next_oid;
                    self.advance_multi(before.next_multi, before.next_multi_offset);
                    self.keep_oldest(&before);
                }
            }
            XlogRecord::ParameterChange(parameters) => check_parameters(&parameters)?,
            XlogRecord::EndOfRecovery { tli, .. } if tli != self.checkpoint.tli => {
                return Err(Reason::OtherTimeline(tli));
            }
            XlogRecord::NextOid(next) => self.checkpoint.next_oid = next,
            XlogRecord::FullPageWrites(on) => self.checkpoint.full_page_writes = on,
            XlogRecord::Noop
            | XlogRecord::Switch
            | XlogRecord::BackupEnd(_)
            | XlogRecord::RestorePoint { .. }
            // What got lost was never whole: the decoder has not given it.
            | XlogRecord::OverwriteContrecord { .. }
            | XlogRecord::EndOfRecovery { .. }
            | XlogRecord::Images => {}
        }
        Ok(())
    }

    fn finish(
        &mut self,
        record: &Record,
        finish: &Finish,
        out: &mut Changes,
    ) -> Result<(), Reason> {
        if let (Some(origin), Some(there)) = (record.origin, finish.origin) {
            progress(origin, there.lsn, out);
        }
        let status = match finish.outcome {
            Outcome::Commit => XidStatus::Committed,
            Outcome::Abort => XidStatus::Aborted,
        };
        if finish.was_prepared && !self.directory.drop_prepared(finish.xid, out) {
            return Err(Reason::NotPrepared(finish.xid));
        }
        // Taken before the record's place in WAL, so it may be behind one that was seen.
        if finish.time > self.commit_time {
            self.commit_time = finish.time;
            let time = Bytes::copy_from_slice(&finish.time.to_le_bytes());
            out.put(KeyKind::CommitTime, Value::Image(time));
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

    fn prepare(&mut self, prepare: &Prepare, out: &mut Changes) {
        for xid in prepare.subxacts.iter().chain([&prepare.xid]) {
            self.saw_xid(*xid);
        }
        self.directory
            .add_prepared(prepare.xid, prepare.state_file(), out);
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

    /// Of an online checkpoint: what was cut off since it was taken stays cut off.
    fn keep_oldest(&mut self, before: &CheckPoint) {
        let checkpoint = &mut self.checkpoint;
        if is_ahead(before.oldest_xid, checkpoint.oldest_xid) {
            checkpoint.oldest_xid = before.oldest_xid;
            checkpoint.oldest_xid_db = before.oldest_xid_db;
        }
        if is_ahead(before.oldest_multi, checkpoint.oldest_multi) {
            checkpoint.oldest_multi = before.oldest_multi;
            checkpoint.oldest_multi_db = before.oldest_multi_db;
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

/// How far a replication origin has been replayed.
fn progress(origin: u16, there: Lsn, out: &mut Changes) {
    let lsn = Bytes::copy_from_slice(&there.0.to_le_bytes());
    out.put(KeyKind::ReplOrigin(origin), Value::Image(lsn));
}

/// Settings of the server decide what is in its WAL.
const fn check_parameters(parameters: &ParameterChange) -> Result<(), Reason> {
    if parameters.wal_level == 0 {
        return Err(Reason::MinimalWal);
    }
    if parameters.track_commit_timestamp {
        return Err(Reason::CommitTimestamps);
    }
    Ok(())
}

/// Whether `a` comes after `b`, modulo 2^32.
const fn is_ahead(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
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
