//! Blanks what a server changes without WAL (`bufmask.c` and the masks of the access methods).

use ids::Fork;
use pg::wal::Block;
use redo::Page;

fn word(page: &Page, at: usize) -> usize {
    usize::from(u16::from_le_bytes([page[at], page[at + 1]]))
}

fn clear(page: &mut Page, at: usize, bits: u16) {
    let value = word(page, at) as u16 & !bits;
    page[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// A map page keeps its whole content: the server's own mask would blank all of it.
pub(crate) fn mask(page: &mut Page, rmid: u8, block: &Block) {
    let is_map = block.rel.fork == Fork::Vm;
    page[..10].fill(0); // LSN and checksum
    if rmid != 15 && rmid != 20 {
        page[20..24].fill(0); // the oldest transaction to prune
        clear(page, 10, 3);
    }
    if is_map {
        return;
    }
    let (lower, upper, special) = (word(page, 12), word(page, 14), word(page, 16));
    if lower < 24 || lower > upper || upper > special || special > 8192 {
        return;
    }
    // A map of ranges lies where other pages have their hole.
    if rmid == 17 && special + 8 <= 8192 && word(page, special + 6) == 0xF092 {
        return;
    }
    page[lower..upper].fill(0);
    match rmid {
        9 | 10 => mask_heap(page, (lower - 24) / 4, block.blkno),
        11 => mask_btree(page, (lower - 24) / 4, special),
        12 => mask_hash(page, (lower - 24) / 4, special),
        13 => mask_gin(page, special),
        14 => mask_gist(page, (lower - 24) / 4, special),
        17 if special + 8 <= 8192 => clear(page, special + 4, 1), // it is being evacuated
        _ => {}
    }
}

fn mask_heap(page: &mut Page, items: usize, blkno: u32) {
    for item in 0..items {
        let at = 24 + 4 * item;
        let raw = u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
        let (start, state, len) = (
            (raw & 0x7fff) as usize,
            (raw >> 15) & 3,
            (raw >> 17) as usize,
        );
        if start + len > 8192 || len == 0 {
            continue;
        }
        if state == 1 {
            let is_frozen = word(page, start + 20) & 0x300 == 0x300;
            clear(page, start + 20, if is_frozen { 0x0c00 } else { 0xfff0 });
            page[start + 8..start + 12].fill(0); // the command id
        }
        let padded = (start + len).next_multiple_of(8).min(8192);
        page[start + len..padded].fill(0);
        // A speculative insert's ctid holds a token, where redo points it to the tuple itself.
        if state == 1 && word(page, start + 16) == 0xfffe {
            page[start + 12..start + 14].copy_from_slice(&((blkno >> 16) as u16).to_le_bytes());
            page[start + 14..start + 16].copy_from_slice(&(blkno as u16).to_le_bytes());
            page[start + 16..start + 18].copy_from_slice(&(item as u16 + 1).to_le_bytes());
        }
    }
}

fn mask_btree(page: &mut Page, items: usize, special: usize) {
    if special + 16 > 8192 {
        return;
    }
    if word(page, special + 12) & 1 != 0 {
        mask_item_states(page, items); // a leaf
    }
    clear(page, special + 12, 0x60); // split end, garbage
    page[special + 14..special + 16].fill(0); // the vacuum cycle
}

/// A page that is taken off the pending list stays as it was on the server, but not in recovery.
/// Other deleted pages keep their content, which the server's own mask would blank.
fn mask_gin(page: &mut Page, special: usize) {
    if special + 8 <= 8192 && word(page, special + 6) == 4 {
        page[12..special + 6].fill(0);
    }
}

/// Unused pages keep their content, which the server's own mask would blank.
fn mask_hash(page: &mut Page, items: usize, special: usize) {
    if special + 16 > 8192 {
        return;
    }
    if word(page, special + 12) & 3 != 0 {
        mask_item_states(page, items); // of a bucket
    }
    clear(page, special + 12, 0x80); // dead tuples
}

fn mask_item_states(page: &mut Page, items: usize) {
    for item in 0..items {
        let at = 24 + 4 * item;
        let raw = u32::from_le_bytes(page[at..at + 4].try_into().unwrap()) & !(3 << 15);
        page[at..at + 4].copy_from_slice(&raw.to_le_bytes());
    }
}

fn mask_gist(page: &mut Page, items: usize, special: usize) {
    if special + 16 > 8192 {
        return;
    }
    if word(page, special + 12) & 1 != 0 {
        mask_item_states(page, items); // of a leaf
    }
    page[special..special + 8].fill(0); // the LSN of the last split
    // Follow right, garbage; and "tuples deleted", which recovery sets where scans found items dead,
    // and the server does not: the other oracle compares it.
    clear(page, special + 12, 0x1c);
}
