//! Free space maps, made of the pages that a backup sends (docs/design/2026-11-24-free-space-map.md).
//!
//! A map is a tree of pages in three levels, each page a tree of bytes: a byte says how much room
//! there is, in steps of 32 bytes, and one above others the most that any of them says
//! (`src/backend/storage/freespace/README`). Whoever looks something up there looks at the page too,
//! so nothing depends on a map being right but speed and the length of tables.

use pg::page::{self, BLOCK, Page};

/// A table of so few pages gets no map: at most they are what it grows by in vain.
const BLOCKS_WITHOUT: usize = 4;
/// The bytes of a page that stand for others, the last ones being for pages below.
const NODES_AT: usize = 28;
const UPPER_NODES: usize = BLOCK / 2 - 1;
const SLOTS: usize = BLOCK - NODES_AT - UPPER_NODES;
const STEP: usize = BLOCK / 256;
const ALL_FREE: u8 = 255;
/// With as many line pointers a table's page is full, however much room there is.
const TUPLES_MAX: usize = 291;

/// How much room there is on each page of a fork.
#[derive(Default)]
pub(super) struct FreeSpace {
    rooms: Vec<u8>,
}

impl FreeSpace {
    /// Takes the next page.
    pub(super) fn add(&mut self, page: &[u8]) {
        let page = page.first_chunk::<BLOCK>();
        self.rooms.push(page.map_or(0, room));
    }

    /// The pages of the map, in their order. None where nothing is to be gained.
    pub(super) fn pages(&self) -> Vec<Page> {
        let rest = self.rooms.split_last().map_or(&[][..], |(_, rest)| rest);
        // Without a map the last page is tried anyhow.
        if self.rooms.len() <= BLOCKS_WITHOUT || rest.iter().all(|room| *room == 0) {
            return Vec::new();
        }
        let (leaves, leaf_rooms) = level(&self.rooms);
        let (middle, middle_rooms) = level(&leaf_rooms);
        let (root, _) = level(&middle_rooms);
        let mut pages = root;
        for (middle, below) in middle.into_iter().zip(leaves.chunks(SLOTS)) {
            pages.push(middle);
            pages.extend_from_slice(below);
        }
        pages
    }
}

/// The pages that stand for what is below, and what each says at its top.
fn level(below: &[u8]) -> (Vec<Page>, Vec<u8>) {
    let pages: Vec<Page> = below.chunks(SLOTS).map(tree).collect();
    let tops = pages.iter().map(|page| page[NODES_AT]).collect();
    (pages, tops)
}

fn tree(rooms: &[u8]) -> Page {
    let mut page = *page::zeroed();
    // Without special space a page always fits.
    let _fits = page::init(&mut page, 0);
    let nodes = &mut page[NODES_AT..];
    nodes[UPPER_NODES..UPPER_NODES + rooms.len()].copy_from_slice(rooms);
    for node in (0..UPPER_NODES).rev() {
        let child = |at: usize| nodes.get(at).copied().unwrap_or(0);
        nodes[node] = child(2 * node + 1).max(child(2 * node + 2));
    }
    page
}

/// What the map says of a page of a table or an index.
fn room(page: &Page) -> u8 {
    if page::is_new(page) {
        return ALL_FREE;
    }
    let word = |at: usize| page.get(at..).and_then(|rest| rest.first_chunk());
    let word = |at: usize| word(at).map_or(0, |bytes| u16::from_le_bytes(*bytes));
    // Whoever takes a page of an index from the map makes sure that nobody comes to it any more.
    let reusable = |yes: bool| if yes { ALL_FREE } else { 0 };
    match (
        BLOCK - usize::from(page::special(page)).min(BLOCK),
        word(BLOCK - 2),
    ) {
        (0, _) => of_table(page),
        (16, 0xFF80) => 0, // hash, which has a map of its own
        (16, 0xFF81) => reusable(word(BLOCK - 4) & 2 != 0), // GiST
        (16, 0..=0xFF7F) => reusable(word(BLOCK - 4) & 4 != 0), // btree
        (8, 0xFF82) => reusable(word(BLOCK - 8) & 2 != 0 || page::lower(page) == 24), // SP-GiST
        (8, 0xF093) if word(BLOCK - 4) & 1 == 0 => step(between(page)), // BRIN
        (8, 0..=0x0FFF) => reusable(word(BLOCK - 2) & 4 != 0), // GIN
        _ => 0,
    }
}

fn of_table(page: &Page) -> u8 {
    let pointers = usize::from(page::lower(page)).saturating_sub(24) / 4;
    if pointers >= TUPLES_MAX && page::flags(page) & page::HAS_FREE_LINES == 0 {
        return 0;
    }
    step(between(page))
}

/// The room between line pointers and tuples, less a line pointer.
fn between(page: &Page) -> usize {
    let (lower, upper) = (page::lower(page), page::upper(page));
    usize::from(upper.saturating_sub(lower)).saturating_sub(4)
}

/// 255 says that the largest tuple has room.
fn step(room: usize) -> u8 {
    if room >= BLOCK - 32 {
        return ALL_FREE;
    }
    u8::try_from(room / STEP).unwrap_or(ALL_FREE).min(254)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table_page(lower: u16, upper: u16) -> Page {
        let mut page = *page::zeroed();
        assert!(page::init(&mut page, 0));
        page::set_lower(&mut page, lower);
        page::set_upper(&mut page, upper);
        page
    }

    #[test]
    fn room_is_what_a_server_would_note() {
        assert_eq!(room(&page::zeroed()), 255);
        assert_eq!(room(&table_page(24, 8192)), 255);
        assert_eq!(room(&table_page(28, 8192 - 28)), 254);
        assert_eq!(room(&table_page(100, 100 + 4 + 64)), 2);
        assert_eq!(room(&table_page(100, 102)), 0);
        let crowded = 24 + 4 * 291;
        assert_eq!(room(&table_page(crowded, 8000)), 0);
        let mut deleted = *page::zeroed();
        assert!(page::init(&mut deleted, 16));
        assert_eq!(room(&deleted), 0);
        deleted[BLOCK - 4] = 4;
        assert_eq!(room(&deleted), 255);
    }

    #[test]
    fn the_tree_leads_to_the_page_with_room() {
        let rooms = vec![0; SLOTS + 10];
        let mut map = FreeSpace { rooms };
        assert!(map.pages().is_empty());
        map.rooms[SLOTS + 3] = 77;
        let pages = map.pages();
        assert_eq!(pages.len(), 4, "root, one below, two leaves");
        let top = |page: usize| pages[page][NODES_AT];
        assert_eq!((top(0), top(1), top(2), top(3)), (77, 77, 0, 77));
        assert_eq!(pages[3][NODES_AT + UPPER_NODES + 3], 77);
        // The second leaf is the second slot of the page above it.
        assert_eq!(pages[1][NODES_AT + UPPER_NODES + 1], 77);
        map.rooms.truncate(4);
        assert!(map.pages().is_empty());
    }
}
