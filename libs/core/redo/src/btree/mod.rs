//! B-tree indexes: `btree_redo`.

mod page;
mod remove;
mod split;
#[cfg(test)]
mod tests;

use pg::PgMajor;
use pg::page::set_lsn;
use pg::wal::{Block, Record};

use self::page::{LEAF, META, Opaque, ROOT};
use self::split::Split;
use crate::fault::Fault;
use crate::fields::{Fields, expect_no_data};
use crate::page_item::{HEADER_BYTES, Page, put, set_lower};

pub(crate) fn redo(
    version: PgMajor,
    record: &Record,
    block: &Block,
    page: &mut Page,
) -> Result<(), Fault> {
    match (record.op(), block.id) {
        (0x00 | 0x10 | 0x20, 0) => split::insert(record, block, page)?,
        (0x10 | 0x20, 1) | (0xA0, 1) => split::clear_incomplete_split(block, page)?,
        (0x20, 2) => meta(block, page)?,
        (op @ (0x30 | 0x40), id) => {
            let split = Split::read(record, op == 0x30)?;
            match id {
                0 => split.left(record, block, page)?,
                1 => split.right(record, block, page)?,
                2 => {
                    expect_no_data(block)?;
                    let prev = record.block(1).ok_or(Fault::NoSuchBlock)?.blkno;
                    Opaque {
                        prev,
                        ..Opaque::read(page)?
                    }
                    .write(page)?;
                }
                3 => split::clear_incomplete_split(block, page)?,
                _ => return Err(Fault::Unsupported),
            }
        }
        (0x50, 0) => split::insert_post(record, block, page)?,
        (0x60, 0) => remove::dedup(record, block, page)?,
        (0x70, 0) => remove::delete(version, record, block, page)?,
        (0xC0, 0) => {
            remove::vacuum(record, block, page)?;
            Opaque {
                cycle: 0,
                ..Opaque::read(page)?
            }
            .write(page)?;
        }
        (0x80 | 0x90, 0..=3) => remove::unlink(record, block, page)?,
        (0x90, 4) | (0xA0, 2) => meta(block, page)?,
        (0xE0, 0) => {
            Fields::new(record.main_data).expect_end()?;
            meta(block, page)?;
        }
        (0xA0, 0) => new_root(record, block, page)?,
        (0xB0, 0) => remove::MarkHalfDead::read(record)?.leaf(block, page)?,
        (0xB0, 1) => remove::MarkHalfDead::read(record)?.parent(block, page)?,
        _ => return Err(Fault::Unsupported),
    }
    set_lsn(page, record.end);
    Ok(())
}

fn new_root(record: &Record, block: &Block, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    main.skip(4)?; // the root's own number
    let level = main.u32()?;
    main.expect_end()?;
    let flags = if level == 0 { ROOT | LEAF } else { ROOT };
    Opaque {
        prev: 0,
        next: 0,
        level,
        flags,
        cycle: 0,
    }
    .init(page)?;
    split::restore_items(page, block.data)
}

const MAGIC: u32 = 0x0005_3162;
const META_BYTES: usize = 48;

/// The first page of an index, which every change of it rewrites.
fn meta(block: &Block, page: &mut Page) -> Result<(), Fault> {
    let mut data = Fields::new(block.data);
    Opaque {
        prev: 0,
        next: 0,
        level: 0,
        flags: META,
        cycle: 0,
    }
    .init(page)?;
    put(page, HEADER_BYTES, &MAGIC.to_le_bytes())?;
    // Version, root and its level, fast root and its level, deleted pages: the same order.
    put(page, HEADER_BYTES + 4, data.take(24)?)?;
    // The number of rows at the last cleanup is no longer kept.
    put(page, HEADER_BYTES + 32, &(-1.0_f64).to_le_bytes())?;
    put(page, HEADER_BYTES + 40, &[u8::from(data.bool()?)])?;
    data.skip(3)?; // padding
    data.expect_end()?;
    set_lower(page, HEADER_BYTES + META_BYTES);
    Ok(())
}
