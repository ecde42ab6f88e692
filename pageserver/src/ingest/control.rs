//! Control state: checkpoints, and the settings that decide what is in WAL.

use pg::control::CheckPoint;
use pg::rmgr::{ParameterChange, XlogRecord};

use super::{Ingest, Reason, is_ahead};

impl Ingest {
    pub(super) fn xlog(&mut self, xlog: XlogRecord) -> Result<(), Reason> {
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
            XlogRecord::ParameterChange(parameters) => check_parameters(&parameters)?,
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
        if is_ahead(before.oldest_multi, checkpoint.oldest_multi) {
            checkpoint.oldest_multi = before.oldest_multi;
            checkpoint.oldest_multi_db = before.oldest_multi_db;
        }
    }
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
