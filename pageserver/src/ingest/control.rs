//! Control state: checkpoints, and the settings that decide what is in WAL.

use bytes::Bytes;
use ids::KeyKind;
use pg::control::CheckPoint;
use pg::rmgr::{ParameterChange, XlogRecord};

use super::{Changes, Ingest, Reason, is_ahead};
use crate::value::Value;

impl Ingest {
    pub(super) fn xlog(&mut self, xlog: XlogRecord, out: &mut Changes) -> Result<(), Reason> {
        match xlog {
            XlogRecord::CheckPoint {
                shutdown,
                checkpoint,
            } => {
                let before = self.checkpoint;
                let (found, seen) = (checkpoint.next_xid, before.next_xid);
                if shutdown && found < seen {
                    return Err(Reason::NextXid { found, seen });
                }
                self.checkpoint = checkpoint;
                if !shutdown {
                    // Taken before the record was written: others may have begun since.
                    self.checkpoint.next_xid = found.max(seen);
                    self.checkpoint.next_oid = before.next_oid;
                    self.keep_oldest(&before);
                }
                self.advance_multi(before.next_multi, before.next_multi_offset);
            }
            XlogRecord::ParameterChange(parameters) => self.set_parameters(&parameters, out)?,
            XlogRecord::EndOfRecovery { tli, .. } if tli != self.checkpoint.tli => {
                return Err(Reason::OtherTimeline(tli));
            }
            XlogRecord::NextOid(next) => self.checkpoint.next_oid = next,
            XlogRecord::FullPageWrites(on) => self.checkpoint.full_page_writes = on,
            XlogRecord::Noop
            | XlogRecord::Switch
            | XlogRecord::BackupEnd(_)
            | XlogRecord::CheckPointRedo { .. }
            | XlogRecord::RestorePoint { .. }
            // What got lost was never whole: the decoder has not given it.
            | XlogRecord::OverwriteContrecord { .. }
            | XlogRecord::EndOfRecovery { .. }
            | XlogRecord::Images => {}
        }
        Ok(())
    }

    /// Of an online checkpoint: what was cut off since it was taken stays cut off.
    fn keep_oldest(&mut self, before: &CheckPoint) {
        let checkpoint = &mut self.checkpoint;
        if is_ahead(before.oldest_xid, checkpoint.oldest_xid) {
            checkpoint.oldest_xid = before.oldest_xid;
            checkpoint.oldest_xid_db = before.oldest_xid_db;
        }
        for (now, before) in [
            (
                &mut checkpoint.oldest_commit_ts_xid,
                before.oldest_commit_ts_xid,
            ),
            (
                &mut checkpoint.newest_commit_ts_xid,
                before.newest_commit_ts_xid,
            ),
        ] {
            // 0 is none.
            if before != 0 && (*now == 0 || is_ahead(before, *now)) {
                *now = before;
            }
        }
        if is_ahead(before.oldest_multi, checkpoint.oldest_multi) {
            checkpoint.oldest_multi = before.oldest_multi;
            checkpoint.oldest_multi_db = before.oldest_multi_db;
        }
    }

    /// Settings of the server decide what is in its WAL, and a compute is started with them.
    fn set_parameters(
        &mut self,
        parameters: &ParameterChange,
        out: &mut Changes,
    ) -> Result<(), Reason> {
        if parameters.wal_level == 0 {
            return Err(Reason::MinimalWal);
        }
        let tracked = self.control.track_commit_timestamp();
        self.control.set_parameters(parameters);
        let file = Bytes::copy_from_slice(self.control.as_bytes());
        out.put(KeyKind::ControlFile, Value::Image(file));
        if parameters.track_commit_timestamp != tracked {
            self.track_commits(parameters.track_commit_timestamp, out);
        }
        Ok(())
    }
}
