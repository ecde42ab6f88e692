//! Commit timestamps: when each transaction was committed, and by which replication origin
//! (`commit_ts.c`). Kept while `track_commit_timestamp` is on, and gone with it.

use bytes::{BufMut, Bytes, BytesMut};
use ids::{KeyKind, SlruKind};
use pg::rmgr::{CommitTsRecord, Finish};

use super::directory::slru_place;
use super::{Changes, Ingest, is_ahead};
use crate::value::Value;

/// A time and an origin, without padding.
const ENTRY_BYTES: u32 = 10;
const XIDS_PER_PAGE: u32 = 8192 / ENTRY_BYTES;
const NONE: u32 = 0;

impl Ingest {
    pub(super) fn commit_ts(&mut self, record: CommitTsRecord, out: &mut Changes) {
        match record {
            CommitTsRecord::ZeroPage(page) => {
                self.directory.zero_page(SlruKind::CommitTs, page, out);
            }
            CommitTsRecord::Truncate {
                page: first,
                oldest_xid,
            } => {
                let precedes = |page| page_precedes(page, first);
                self.directory.cut_slru(SlruKind::CommitTs, precedes, out);
                let oldest = &mut self.checkpoint.oldest_commit_ts_xid;
                if *oldest != NONE && is_ahead(oldest_xid, *oldest) {
                    *oldest = oldest_xid;
                }
            }
        }
    }

    /// Notes the time of a commit, of its subtransactions too.
    pub(super) fn note_commit(&mut self, finish: &Finish, origin: Option<u16>, out: &mut Changes) {
        if !self.control.track_commit_timestamp() {
            return;
        }
        let time = finish.origin.map_or(finish.time, |there| there.time);
        let mut entry = BytesMut::with_capacity(ENTRY_BYTES as usize);
        entry.put_i64_le(time);
        entry.put_u16_le(origin.unwrap_or(0));
        let entry = entry.freeze();
        for xid in finish.subxacts.iter().chain([&finish.xid]) {
            self.set_commit(*xid, entry.clone(), out);
        }
        let last = *finish.subxacts.last().unwrap_or(&finish.xid);
        let newest = &mut self.checkpoint.newest_commit_ts_xid;
        if is_ahead(last, *newest) {
            *newest = last;
        }
    }

    fn set_commit(&mut self, xid: u32, entry: Bytes, out: &mut Changes) {
        let page = xid / XIDS_PER_PAGE;
        // No record makes the page that the setting came on in.
        if !self.directory.has_page(SlruKind::CommitTs, page) {
            self.directory.zero_page(SlruKind::CommitTs, page, out);
        }
        let (segment, block) = slru_place(page);
        let patch = Value::Patch {
            offset: (xid % XIDS_PER_PAGE * ENTRY_BYTES) as u16, // within a page
            bytes: entry,
        };
        out.put(
            KeyKind::SlruBlock(SlruKind::CommitTs, segment, block),
            patch,
        );
    }

    /// The setting is on or off from here: without it there are none, with it at least the page of
    /// the next transaction.
    pub(super) fn track_commits(&mut self, on: bool, out: &mut Changes) {
        let checkpoint = &mut self.checkpoint;
        if !on {
            checkpoint.oldest_commit_ts_xid = NONE;
            checkpoint.newest_commit_ts_xid = NONE;
            self.directory.drop_slru(SlruKind::CommitTs, |_| true, out);
            return;
        }
        let next = checkpoint.next_xid as u32; // without its epoch
        if checkpoint.oldest_commit_ts_xid == NONE {
            checkpoint.oldest_commit_ts_xid = next;
            checkpoint.newest_commit_ts_xid = next;
        }
        let page = next / XIDS_PER_PAGE;
        if !self.directory.has_page(SlruKind::CommitTs, page) {
            self.directory.zero_page(SlruKind::CommitTs, page, out);
        }
    }
}

/// Whether all of `page` is older than all of `other`, as transactions count: modulo 2^32. A page
/// does not divide that, so that the first transactions, which are none, are left out of it.
const fn page_precedes(page: u32, other: u32) -> bool {
    const FIRST_NORMAL_XID: u32 = 3;
    let page = page
        .wrapping_mul(XIDS_PER_PAGE)
        .wrapping_add(FIRST_NORMAL_XID + 1);
    let other = other
        .wrapping_mul(XIDS_PER_PAGE)
        .wrapping_add(FIRST_NORMAL_XID + 1);
    let last = other.wrapping_add(XIDS_PER_PAGE - 1);
    is_ahead(other, page) && is_ahead(last, page)
}
