//! Transactions: what becomes of them, which are prepared, and how far they are counted.

use bytes::Bytes;
use ids::{Fork, KeyKind, SlruKind};
use pg::rmgr::{ClogRecord, Finish, Outcome, Prepare, StandbyRecord, XactRecord};
use pg::wal::Record;

use super::directory::slru_place;
use super::{Changes, Directory, Ingest, Reason};
use crate::value::{Value, XidStatus};

const XIDS_PER_CLOG_PAGE: u32 = 8192 * 4;
const FIRST_NORMAL_XID: u32 = 3;

impl Ingest {
    pub(super) fn xact(
        &mut self,
        record: &Record,
        xact: XactRecord,
        out: &mut Changes,
    ) -> Result<(), Reason> {
        match xact {
            XactRecord::Finish(finish) => self.finish(record, &finish, out)?,
            XactRecord::Prepare(prepare) => self.prepare(record, &prepare, out),
            // A hint for a standby.
            XactRecord::Assignment { top, subxacts } => {
                self.saw_xids(subxacts.iter().chain([&top]))
            }
            // Logical decoding reads it in WAL.
            XactRecord::Invalidations => {}
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
            self.advance(origin, there.lsn, false, out);
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
        self.saw_xids(&xids);
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
        if finish.outcome == Outcome::Commit {
            self.note_commit(finish, record.origin, out);
        }
        for file in &finish.dropped {
            for fork in [Fork::Main, Fork::Fsm, Fork::Vm, Fork::Init] {
                self.directory.drop_fork(file.fork(fork), out);
            }
        }
        Ok(())
    }

    fn prepare(&mut self, record: &Record, prepare: &Prepare, out: &mut Changes) {
        self.saw_xids(prepare.subxacts.iter().chain([&prepare.xid]));
        if let Some(origin) = record.origin {
            self.advance(origin, prepare.origin.lsn, false, out);
        }
        let file = prepare.state_file();
        self.directory.add_prepared(prepare.xid, file, out);
    }

    pub(super) fn clog(&mut self, clog: ClogRecord, out: &mut Changes) {
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

    pub(super) fn standby(&mut self, standby: StandbyRecord) {
        match standby {
            StandbyRecord::RunningXacts(running) => {
                self.saw_xid(running.next_xid.wrapping_sub(1));
                self.saw_xids(running.xids.iter().chain(&running.subxids));
            }
            // The first that a transaction does may be a lock.
            StandbyRecord::Locks(locks) => self.saw_xids(locks.iter().map(|lock| &lock.xid)),
            StandbyRecord::Invalidations { .. } => {}
        }
    }

    fn saw_xids<'a>(&mut self, xids: impl IntoIterator<Item = &'a u32>) {
        for xid in xids {
            self.saw_xid(*xid);
        }
    }

    /// Keeps `next_xid` above every transaction seen (C3), over wraparound.
    pub(super) fn saw_xid(&mut self, xid: u32) {
        if xid < FIRST_NORMAL_XID {
            return;
        }
        let next = self.checkpoint.next_xid;
        let ahead = xid.wrapping_sub(next as u32);
        if ahead.cast_signed() >= 0 {
            let after = next.saturating_add(u64::from(ahead) + 1);
            // The lowest numbers of an epoch are no transactions.
            let special = u64::from(FIRST_NORMAL_XID).saturating_sub(after & 0xFFFF_FFFF);
            self.checkpoint.next_xid = after.saturating_add(special);
        }
    }
}

impl Directory {
    pub(super) fn add_prepared(&mut self, xid: u32, file: Bytes, out: &mut Changes) {
        let item = prepared_item(xid);
        self.prepared.insert(xid);
        out.put(KeyKind::TwoPhaseFiles, Value::ListAdd(item));
        out.put(KeyKind::TwoPhase(u64::from(xid)), Value::Image(file));
    }

    /// Answers whether it was there.
    fn drop_prepared(&mut self, xid: u32, out: &mut Changes) -> bool {
        let was_there = self.prepared.remove(&xid);
        if was_there {
            let item = prepared_item(xid);
            out.put(KeyKind::TwoPhaseFiles, Value::ListRemove(item));
            out.put(KeyKind::TwoPhase(u64::from(xid)), Value::Gone);
        }
        was_there
    }
}

fn prepared_item(xid: u32) -> Bytes {
    Bytes::copy_from_slice(&u64::from(xid).to_be_bytes())
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
