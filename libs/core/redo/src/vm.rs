//! The visibility map: two bits for each table page.
//!
//! 14 to 16, and the first minor releases of 17 and 18, clear bits of the map without naming its
//! page in the record. [`vm_clears`] says which, so that whoever stores pages can keep up.

use ids::{Fork, RelTag};
use pg::page::BLOCK;
use pg::wal::{Block, Record, rmgr};

use crate::page_item::{HEADER_BYTES, Page};

/// Every tuple of the page is visible to everyone.
pub const ALL_VISIBLE: u8 = 1;
/// Every tuple of the page is frozen.
pub const ALL_FROZEN: u8 = 2;
const ALL: u8 = ALL_VISIBLE | ALL_FROZEN;

const MAP_BYTES: u32 = (BLOCK - HEADER_BYTES) as u32;
/// The table pages that one page of the map covers.
pub const PAGES_PER_MAP_PAGE: u32 = MAP_BYTES * 4;

/// The page of the map that covers a table page.
#[must_use]
pub const fn map_block(heap_block: u32) -> u32 {
    heap_block / PAGES_PER_MAP_PAGE
}

const fn place(heap_block: u32) -> (usize, u32) {
    let within = heap_block % PAGES_PER_MAP_PAGE;
    (HEADER_BYTES + (within / 4) as usize, (within % 4) * 2)
}

/// The bits of a table page.
#[must_use]
pub fn bits(page: &Page, heap_block: u32) -> u8 {
    let (byte, shift) = place(heap_block);
    (page[byte] >> shift) & ALL
}

/// Sets bits of a table page; answers whether anything changed.
pub fn set(page: &mut Page, heap_block: u32, flags: u8) -> bool {
    let (byte, shift) = place(heap_block);
    let changed = bits(page, heap_block) != flags;
    page[byte] |= (flags & ALL) << shift;
    changed
}

/// Clears bits of a table page; answers whether anything changed. The page's LSN stays.
pub fn clear(page: &mut Page, heap_block: u32, flags: u8) -> bool {
    let (byte, shift) = place(heap_block);
    let mask = (flags & ALL) << shift;
    let changed = page[byte] & mask != 0;
    page[byte] &= !mask;
    changed
}

/// Forgets the table pages from `heap_blocks` on, in the map page `map_block(heap_blocks)`.
pub fn truncate(page: &mut Page, heap_blocks: u32) {
    let (byte, shift) = place(heap_blocks);
    page[byte] &= (1_u8 << shift) - 1;
    page[byte + 1..].fill(0);
}

/// The length of the map, in pages, of a table truncated to `heap_blocks`.
#[must_use]
pub const fn truncated_len(heap_blocks: u32) -> u32 {
    heap_blocks.div_ceil(PAGES_PER_MAP_PAGE)
}

/// The bits of the map that a record clears without naming the map's page: table, table page,
/// bits. The table is named by its main fork.
#[must_use]
pub fn vm_clears(record: &Record) -> Vec<(RelTag, u32, u8)> {
    let mut clears = all_clears(record);
    clears.retain(|(rel, heap_block, _)| {
        !record.blocks.iter().any(|block| {
            let vm = RelTag {
                fork: Fork::Vm,
                ..*rel
            };
            block.rel == vm && block.blkno == map_block(*heap_block)
        })
    });
    clears
}

/// Every clear of a record, whether its map page is named or not.
fn all_clears(record: &Record) -> Vec<(RelTag, u32, u8)> {
    let byte = |at: usize| record.main_data.get(at).copied().unwrap_or(0);
    let heap = |id: u8| {
        record
            .block(id)
            .filter(|block| block.rel.fork == Fork::Main)
    };
    let target =
        |block: Option<&Block>, flags: u8| block.map(|block| (block.rel, block.blkno, flags));
    let mut clears = Vec::new();
    match (record.rmid, record.op() & 0x70) {
        (rmgr::HEAP, 0x00) if byte(2) & 1 != 0 => clears.extend(target(heap(0), ALL)),
        (rmgr::HEAP, 0x10) if byte(7) & 1 != 0 => clears.extend(target(heap(0), ALL)),
        (rmgr::HEAP, 0x20 | 0x40) => {
            if byte(7) & 1 != 0 {
                clears.extend(target(heap(1).or(heap(0)), ALL));
            }
            if byte(7) & 2 != 0 {
                clears.extend(target(heap(0), ALL));
            }
        }
        (rmgr::HEAP, 0x60) if byte(7) & 1 != 0 => clears.extend(target(heap(0), ALL_FROZEN)),
        (rmgr::HEAP2, 0x50) if byte(0) & 1 != 0 => clears.extend(target(heap(0), ALL)),
        (rmgr::HEAP2, 0x60) if byte(7) & 1 != 0 => clears.extend(target(heap(0), ALL_FROZEN)),
        _ => {}
    }
    clears
}

/// Redoes the clears of a record on a map page that it names.
pub(crate) fn redo_clears(record: &Record, block: &Block, page: &mut Page) {
    for (rel, heap_block, flags) in all_clears(record) {
        let vm = RelTag {
            fork: Fork::Vm,
            ..rel
        };
        if block.rel == vm && block.blkno == map_block(heap_block) {
            clear(page, heap_block, flags);
        }
    }
    pg::page::set_lsn(page, record.end);
}
