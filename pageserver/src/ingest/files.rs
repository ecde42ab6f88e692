//! Files of relations that are made and cut.

use ids::{Fork, KeyKind, RelTag};
use pg::rmgr::{RelFile, StorageRecord, truncate_flags};
use redo::vm;

use super::{Changes, Ingest, Reason};
use crate::value::Value;

/// Heap blocks that a page of the free space map speaks of, or pages that one above does.
const FSM_SLOTS: u32 = 4069;

impl Ingest {
    pub(super) fn storage(
        &mut self,
        storage: StorageRecord,
        out: &mut Changes,
    ) -> Result<(), Reason> {
        match storage {
            StorageRecord::Create(fork) => self.directory.create_fork(fork, out)?,
            StorageRecord::Truncate {
                file,
                blocks,
                flags,
            } => {
                self.directory.check_database(file.spc, file.db)?;
                self.truncate(file, blocks, flags, out);
            }
        }
        Ok(())
    }

    fn truncate(&mut self, file: RelFile, blocks: u32, flags: u32, out: &mut Changes) {
        if flags & truncate_flags::MAIN != 0 {
            self.directory.cut(file.fork(Fork::Main), blocks, out);
        }
        if flags & truncate_flags::VM != 0 {
            let map = file.fork(Fork::Vm);
            self.directory.cut(map, vm::truncated_len(blocks), out);
            let heap_blocks = blocks;
            self.change_tail(
                (map, vm::map_block(blocks)),
                !blocks.is_multiple_of(vm::PAGES_PER_MAP_PAGE),
                Value::VmTruncate { heap_blocks },
                out,
            );
        }
        if flags & truncate_flags::FSM != 0 {
            // A page of zeros knows of no free space, so none is promised past the end.
            let (map, tail) = (file.fork(Fork::Fsm), fsm_block(blocks));
            let goes_on = !blocks.is_multiple_of(FSM_SLOTS);
            self.directory.cut(map, tail + u32::from(goes_on), out);
            self.change_tail((map, tail), goes_on, Value::Zeros, out);
        }
    }

    /// Changes the last page of a map that was cut, where the cut goes through it.
    fn change_tail(
        &self,
        (map, tail): (RelTag, u32),
        goes_on: bool,
        change: Value,
        out: &mut Changes,
    ) {
        if goes_on && self.directory.has_block(map, tail) {
            out.put(KeyKind::RelBlock(map, tail), change);
        }
    }
}

/// The page of the free space map that speaks of a heap block: those above it, two levels of
/// them, stand before it.
const fn fsm_block(heap_block: u32) -> u32 {
    let leaf = heap_block / FSM_SLOTS;
    leaf + leaf / FSM_SLOTS + leaf / FSM_SLOTS / FSM_SLOTS + 2
}
