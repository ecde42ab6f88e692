//! Opened blocks in memory, the least recently used going first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ids::{FileId, TenantId};

use super::Entries;

/// An opened block of a layer.
pub(crate) struct Block {
    pub(crate) entries: Entries,
    /// Its length in the layer.
    pub(crate) bytes: usize,
}

/// What an entry takes beside its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 64;

impl Block {
    fn memory(&self) -> usize {
        self.bytes + self.entries.len() * ENTRY_OVERHEAD_BYTES
    }
}

type Place = (FileId, usize);

struct Held {
    tenant: TenantId,
    block: Arc<Block>,
    used: u64,
}

/// Blocks up to a number of bytes.
pub(super) struct Blocks {
    bound: usize,
    bytes: usize,
    held: HashMap<Place, Held>,
    by_use: BTreeMap<u64, Place>,
    uses: u64,
}

impl Blocks {
    pub(super) fn new(bound: usize) -> Self {
        Self {
            bound,
            bytes: 0,
            held: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&mut self, file: FileId, n: usize) -> Option<Arc<Block>> {
        let held = self.held.get_mut(&(file, n))?;
        self.by_use.remove(&held.used);
        self.uses += 1;
        held.used = self.uses;
        self.by_use.insert(held.used, (file, n));
        Some(Arc::clone(&held.block))
    }

    pub(super) fn put(&mut self, tenant: TenantId, file: FileId, n: usize, block: Arc<Block>) {
        self.remove((file, n));
        let memory = block.memory();
        if memory > self.bound {
            return;
        }
        while self.bytes + memory > self.bound {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            self.remove(oldest);
        }
        self.uses += 1;
        let used = self.uses;
        self.bytes += memory;
        self.by_use.insert(used, (file, n));
        let held = Held {
            tenant,
            block,
            used,
        };
        self.held.insert((file, n), held);
    }

    pub(super) fn forget(&mut self, tenant: TenantId) {
        let gone: Vec<Place> = self
            .held
            .iter()
            .filter(|(_, held)| held.tenant == tenant)
            .map(|(place, _)| *place)
            .collect();
        for place in gone {
            self.remove(place);
        }
    }

    fn remove(&mut self, place: Place) {
        if let Some(held) = self.held.remove(&place) {
            self.by_use.remove(&held.used);
            self.bytes -= held.block.memory();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId([1; 16]);
    const A: TenantId = TenantId([1; 16]);
    const B: TenantId = TenantId([2; 16]);

    fn block(bytes: usize) -> Arc<Block> {
        let entries = Vec::new();
        Arc::new(Block { entries, bytes })
    }

    #[test]
    fn what_was_used_last_stays() {
        let mut blocks = Blocks::new(250);
        blocks.put(A, FILE, 0, block(100));
        blocks.put(A, FILE, 1, block(100));
        assert!(blocks.get(FILE, 0).is_some());
        blocks.put(A, FILE, 2, block(100));
        assert!(blocks.get(FILE, 1).is_none());
        assert!(blocks.get(FILE, 0).is_some() && blocks.get(FILE, 2).is_some());
        blocks.put(A, FILE, 3, block(300));
        assert!(blocks.get(FILE, 3).is_none() && blocks.bytes() == 200);
        blocks.put(A, FILE, 0, block(50));
        assert_eq!(blocks.bytes(), 150);
    }

    #[test]
    fn a_tenant_is_forgotten_and_no_other() {
        let mut blocks = Blocks::new(1000);
        blocks.put(A, FILE, 0, block(100));
        blocks.put(B, FILE, 1, block(100));
        blocks.forget(A);
        assert!(blocks.get(FILE, 0).is_none() && blocks.get(FILE, 1).is_some());
        assert_eq!(blocks.bytes(), 100);
    }
}
