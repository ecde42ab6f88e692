//! Records of the resource managers that change pages (`heapam_xlog.h`, `nbtxlog.h`,
//! `gistxlog.h`, `rewriteheap.h`).
//!
//! What they do to a page is a matter of redo. Those that change none are for hot standby and
//! logical decoding: read to their end here, for nobody else looks at them.

use super::fields::Fields;
use crate::PgMajor;
use crate::wal::{Malformed, Record, rmgr};

const REL_FILE_BYTES: usize = 12;
const ITEM_POINTER_BYTES: usize = 6;

/// Checks that a record has blocks, or is one of those that have none, and reads these.
pub(super) fn check(
    version: PgMajor,
    record: &Record,
    mut fields: Fields<'_>,
) -> Result<(), Malformed> {
    match (record.rmid, record.op()) {
        (rmgr::HEAP, 0x30) => skip_truncate(&mut fields)?,
        (rmgr::HEAP2, 0x00) => skip_rewrite(&mut fields)?,
        (rmgr::HEAP2, 0x70) => {
            // Top-level xid, cmin, cmax, combo command id, and the tuple.
            fields.skip(4 * 4 + REL_FILE_BYTES + ITEM_POINTER_BYTES, "command id")?;
        }
        (rmgr::BTREE, 0xD0) | (rmgr::GIST, 0x20) => skip_reuse(version, &mut fields)?,
        (rmgr::GIST, 0x70) => fields.skip(4, "dummy")?,
        _ if record.blocks.is_empty() => {
            return Err(Malformed::Field {
                what: "number of blocks",
                value: 0,
            });
        }
        _ => return Ok(()),
    }
    fields.finish("payload")?;
    super::no_blocks(record)
}

/// The relations that logical decoding sees truncated.
fn skip_truncate(fields: &mut Fields<'_>) -> Result<(), Malformed> {
    const CASCADE_AND_RESTART_SEQUENCES: u8 = 0x03;
    let _db = fields.u32("database")?;
    let count = fields.count("number of relations")?;
    let flags = fields.u8("flags")?;
    if flags & !CASCADE_AND_RESTART_SEQUENCES != 0 {
        return Err(Malformed::Field {
            what: "flags",
            value: u64::from(flags),
        });
    }
    fields.skip(3, "padding")?;
    fields.xids(count, "relations").map(|_| ())
}

/// Where the tuples of a rewritten catalog went: the content of a file of logical decoding.
fn skip_rewrite(fields: &mut Fields<'_>) -> Result<(), Malformed> {
    const MAPPING_BYTES: usize = 2 * (REL_FILE_BYTES + ITEM_POINTER_BYTES);
    // The xid, the database, the relation, and the offset in the file.
    fields.skip(3 * 4 + 4 + 8, "place of mappings")?;
    let count = fields.count("number of mappings")?;
    fields.skip(4 + 8, "start of rewrite")?;
    let skip = |fields: &mut Fields<'_>| fields.skip(MAPPING_BYTES, "mapping");
    fields
        .array(count, MAPPING_BYTES, "mappings", skip)
        .map(|_| ())
}

/// The page of an index whose old content no snapshot can need any more.
fn skip_reuse(version: PgMajor, fields: &mut Fields<'_>) -> Result<(), Malformed> {
    let (_file, _block) = (fields.rel_file("relation")?, fields.u32("block")?);
    let _horizon = fields.u64("horizon")?;
    if version >= PgMajor::V16 {
        let _is_catalog = fields.bool("whether of a catalog")?;
    }
    Ok(())
}
