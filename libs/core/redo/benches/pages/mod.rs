//! The pages of a cluster in memory, found by a hash of their names.

use std::hint::black_box;

use bench::Workload;
use ids::{Fork, RelTag};
use pg::page::BLOCK;
use pg::rmgr::{Outcome, Payload, XactRecord};
use pg::wal::Record;
use redo::{Page, Settings, vm};
use rustc_hash::FxHashMap;

/// Pages, and the states of transactions.
#[derive(Clone)]
pub(crate) struct Pages {
    places: FxHashMap<(RelTag, u32), usize>,
    pages: Vec<Page>,
    /// Two bits each, as in `pg_xact`.
    transactions: Vec<u8>,
}

impl Pages {
    /// Those that the WAL begins from.
    pub(crate) fn of(workload: &Workload) -> Self {
        let mut pages = Self {
            places: FxHashMap::default(),
            pages: Vec::new(),
            transactions: vec![0; 1 << 20],
        };
        workload
            .pages(|rel, block, page| {
                let place = pages.place(rel, block);
                pages.pages[place] = *page;
            })
            .expect("the files of `make bench`");
        pages
    }

    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    /// Makes the pages that are in `other`, zeroed, in the same places.
    pub(crate) fn reach(&mut self, other: &Self) {
        self.places.clone_from(&other.places);
        self.pages.resize(other.pages.len(), [0; BLOCK]);
    }

    pub(crate) fn find(&self, rel: RelTag, block: u32) -> Option<usize> {
        self.places.get(&(rel, block)).copied()
    }

    pub(crate) fn page(&mut self, place: usize) -> &mut Page {
        &mut self.pages[place]
    }

    pub(crate) fn peek(&self, place: usize) -> &Page {
        &self.pages[place]
    }

    fn place(&mut self, rel: RelTag, block: u32) -> usize {
        *self.places.entry((rel, block)).or_insert_with(|| {
            self.pages.push([0; BLOCK]);
            self.pages.len() - 1
        })
    }

    /// Does what records say: to pages, to the visibility map, to their transactions.
    pub(crate) fn redo(&mut self, settings: Settings, records: &[Record]) {
        let mut places = Vec::with_capacity(2 * records.len());
        for block in records.iter().flat_map(|record| &record.blocks) {
            places.push(self.place(block.rel, block.blkno));
        }
        self.touch(&places);
        let mut places = places.into_iter();
        for record in records {
            self.redo_record(settings, record, places.by_ref().take(record.blocks.len()));
        }
    }

    /// Reads what redo is likely to change: the headers, then the last pointers and last items.
    fn touch(&self, places: &[usize]) {
        let pages = || places.iter().map(|place| &self.pages[*place]);
        black_box(pages().fold(0, |all, page| all ^ page[0]));
        let ends = pages().map(|page| {
            let word = |at: usize| usize::from(u16::from_le_bytes([page[at], page[at + 1]]));
            let (lower, upper) = (word(12), word(14));
            page[lower.saturating_sub(4) % BLOCK] ^ page[upper.saturating_sub(64) % BLOCK]
        });
        black_box(ends.fold(0, |all, end| all ^ end));
    }

    fn redo_record(
        &mut self,
        settings: Settings,
        record: &Record,
        places: impl Iterator<Item = usize>,
    ) {
        for (index, place) in places.enumerate() {
            redo::apply(settings, record, index, &mut self.pages[place])
                .expect("redo of what a server wrote");
        }
        for (rel, heap_block, flags) in redo::vm_clears(record) {
            let fork = Fork::Vm;
            if let Some(place) = self.find(RelTag { fork, ..rel }, vm::map_block(heap_block)) {
                vm::clear(&mut self.pages[place], heap_block, flags);
            }
        }
        let payload =
            Payload::read(settings.version, record).expect("a payload that a server wrote");
        if let Payload::Xact(XactRecord::Finish(finish)) = payload {
            let state = match finish.outcome {
                Outcome::Commit => 1,
                Outcome::Abort => 2,
            };
            for xid in finish.subxacts.iter().chain([&finish.xid]) {
                let byte = (xid / 4) as usize;
                if byte >= self.transactions.len() {
                    self.transactions.resize(byte + 1, 0);
                }
                self.transactions[byte] |= state << (xid % 4 * 2);
            }
        }
    }
}
