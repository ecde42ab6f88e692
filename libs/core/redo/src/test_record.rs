//! Records for tests: what all of them have is the same.

use ids::{Fork, Lsn, RelTag};
use pg::wal::{Block, Record};

pub(crate) const XID: u32 = 700;
pub(crate) const END: Lsn = Lsn(64);
/// The main fork that the blocks are in.
pub(crate) const TABLE: RelTag = RelTag {
    spc: 1663,
    db: 5,
    rel: 9,
    fork: Fork::Main,
};

/// A block with this payload, and without an image.
pub(crate) fn block(id: u8, blkno: u32, data: &[u8]) -> Block<'_> {
    Block {
        id,
        rel: TABLE,
        blkno,
        flags: 0,
        image: None,
        data,
    }
}

/// A record of a resource manager and op, with its own payload and its blocks.
pub(crate) fn record<'a>(
    (rmid, op): (u8, u8),
    main_data: &'a [u8],
    blocks: Vec<Block<'a>>,
) -> Record<'a> {
    Record {
        start: Lsn(8),
        end: END,
        prev: Lsn(0),
        xid: XID,
        info: op,
        rmid,
        origin: None,
        toplevel_xid: None,
        main_data,
        blocks: blocks.into(),
    }
}
