//! The visibility map: two bits for each table page.
//!
//! 14 to 16, and the first minor releases of 17 and 18, clear bits of the map without naming its
//! page in the record. [`vm_clears`] says which, so that whoever stores pages can keep up.

#[cfg(test)]
mod tests;

use ids::{Fork, RelTag};
use pg::page::{BLOCK, is_new, set_lsn};
use pg::wal::{Block, Record};

use crate::fault::Fault;
use crate::heap::Change;
use crate::page_item::{HEADER_BYTES, Page, init};

/// Every tuple of the page is visible to everyone.
pub const ALL_VISIBLE: u8 = 1;
/// Every tuple of the page is frozen.
pub const ALL_FROZEN: u8 = 2;
pub(crate) const ALL: u8 = ALL_VISIBLE | ALL_FROZEN;

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

/// Sets bits of a table page; answers whether they were others before. A page of zeros gets a
/// header.
pub fn set(page: &mut Page, heap_block: u32, flags: u8) -> bool {
    init_if_new(page);
    let (byte, shift) = place(heap_block);
    let changed = bits(page, heap_block) != flags;
    page[byte] |= (flags & ALL) << shift;
    changed
}

/// Clears bits of a table page; answers whether any was set. The page's LSN stays. A page of
/// zeros gets a header, as it does when PostgreSQL reads one (`vm_readbuf`).
pub fn clear(page: &mut Page, heap_block: u32, flags: u8) -> bool {
    init_if_new(page);
    let (byte, shift) = place(heap_block);
    let mask = (flags & ALL) << shift;
    let changed = page[byte] & mask != 0;
    page[byte] &= !mask;
    changed
}

/// Forgets the table pages from `heap_blocks` on, in the map page `map_block(heap_blocks)`, which
/// must be there (`visibilitymap_prepare_truncate`, the same in 14 to 18). The page's LSN stays.
pub fn truncate(page: &mut Page, heap_blocks: u32) {
    init_if_new(page);
    let (byte, shift) = place(heap_blocks);
    page[byte] &= (1_u8 << shift) - 1;
    page[byte + 1..].fill(0);
}

fn init_if_new(page: &mut Page) {
    if is_new(page) {
        init(page, 0);
    }
}

/// The length of the map, in pages, of a table truncated to `heap_blocks`.
#[must_use]
pub const fn truncated_len(heap_blocks: u32) -> u32 {
    heap_blocks.div_ceil(PAGES_PER_MAP_PAGE)
}

/// The bits of the map that a record clears without naming the map's page: table, table page,
/// bits. The table is named by its main fork. At most two: an update may do it to both its pages,
/// and they may share a page of the map.
pub fn vm_clears(record: &Record) -> impl Iterator<Item = (RelTag, u32, u8)> {
    all_clears(record).filter(|(rel, heap_block, _)| {
        !record
            .blocks
            .iter()
            .any(|block| is_map_of(block, *rel, *heap_block))
    })
}

/// Redoes the clears of a record on a map page that it names.
///
/// 17.11 and 18.6 name it where a bit changed, and once where it covers both pages of an update.
pub(crate) fn redo_clears(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let mut has_any = false;
    for (rel, heap_block, flags) in all_clears(record) {
        if is_map_of(block, rel, heap_block) {
            clear(page, heap_block, flags);
            has_any = true;
        }
    }
    if !has_any {
        return Err(Fault::RecordValue("map page"));
    }
    set_lsn(page, record.end);
    Ok(())
}

fn is_map_of(block: &Block, rel: RelTag, heap_block: u32) -> bool {
    let map = RelTag {
        fork: Fork::Vm,
        ..rel
    };
    block.rel == map && block.blkno == map_block(heap_block)
}

/// Every clear of a record, whether its map page is named or not.
fn all_clears(record: &Record) -> impl Iterator<Item = (RelTag, u32, u8)> {
    let heap = |id: u8| {
        let block = record.block(id);
        block.filter(|block| block.rel.fork == Fork::Main)
    };
    let no_clear = [(None, 0), (None, 0)];
    let clears = match Change::of(record) {
        None => no_clear,
        Some((change, dialect)) => {
            let flags = record.main_data.get(change.flags_at(dialect));
            let flags = flags.copied().unwrap_or(0);
            let first = flags & 1 != 0;
            match change {
                Change::Insert | Change::Delete | Change::MultiInsert if first => {
                    [(heap(0), ALL), (None, 0)]
                }
                Change::Lock | Change::LockUpdated if first => [(heap(0), ALL_FROZEN), (None, 0)],
                Change::Update | Change::HotUpdate => {
                    let old = heap(1).or(heap(0)).filter(|_| first);
                    [(old, ALL), (heap(0).filter(|_| flags & 2 != 0), ALL)]
                }
                _ => no_clear,
            }
        }
    };
    clears
        .into_iter()
        .filter_map(|(block, flags)| block.map(|block| (block.rel, block.blkno, flags)))
}
