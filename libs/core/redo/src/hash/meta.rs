//! The first page of an index: how many buckets there are, and where their pages lie.

use pg::wal::Record;

use super::bitmap;
use super::page::{META, NONE, OVERFLOW, SPECIAL, expect, init_page, set_next};
use crate::fault::Fault;
use crate::fields::Fields;
use crate::page_item::{HEADER_BYTES, Page, put, set_lower, u32_at};

const MAGIC: u32 = 0x0644_0640;
const VERSION: u32 = 4;
/// Bytes of a bitmap page, and the logarithm of the bits in them.
const BITMAP_BYTES: u16 = 4096;
const BITMAP_SHIFT: u16 = 15;

// Where the fields lie.
const TUPLES: usize = HEADER_BYTES + 8;
const FILL_FACTOR: usize = HEADER_BYTES + 16;
const MAX_BUCKET: usize = HEADER_BYTES + 24;
const HIGH_MASK: usize = HEADER_BYTES + 28;
const LOW_MASK: usize = HEADER_BYTES + 32;
const OVERFLOW_POINT: usize = HEADER_BYTES + 36;
const FIRST_FREE: usize = HEADER_BYTES + 40;
const BITMAPS: usize = HEADER_BYTES + 44;
const HASH_FUNCTION: usize = HEADER_BYTES + 48;
/// Overflow pages before each point where buckets were added.
const SPARES: usize = HEADER_BYTES + 52;
const SPARES_MAX: u32 = 98;
/// The blocks of the bitmaps.
const BITMAP_BLOCKS: usize = SPARES + 4 * SPARES_MAX as usize;
const BITMAPS_MAX: u32 = 1024;
const END: usize = (BITMAP_BLOCKS + 4 * BITMAPS_MAX as usize).next_multiple_of(8);

const BUCKETS_MAX: u32 = 1 << 30;
/// Buckets double at once up to this power of two, and in four steps after it.
const ONE_STEP_POWERS: u32 = 10;

pub(super) fn init(main: &mut Fields<'_>, page: &mut Page) -> Result<(), Fault> {
    let tuples = f64::from_bits(main.u64()?);
    let (function, fill_factor) = (main.u32()?, main.u16()?);
    let buckets = bucket_count(tuples / f64::from(fill_factor))?;
    let step = step_of(buckets);
    // One less than a power of two, and the last bucket is at or below it.
    let high_mask = (buckets + 1).next_power_of_two() - 1;
    init_page(page, NONE, NONE, META)?;
    put_u32(page, HEADER_BYTES, MAGIC)?;
    put_u32(page, HEADER_BYTES + 4, VERSION)?;
    let sizes = [
        fill_factor,
        (SPECIAL - HEADER_BYTES) as u16,
        BITMAP_BYTES,
        BITMAP_SHIFT,
    ];
    for (at, size) in (FILL_FACTOR..).step_by(2).zip(sizes) {
        put(page, at, &size.to_le_bytes())?;
    }
    put_u32(page, MAX_BUCKET, buckets - 1)?;
    put_u32(page, HIGH_MASK, high_mask)?;
    put_u32(page, LOW_MASK, high_mask >> 1)?;
    put_u32(page, OVERFLOW_POINT, step)?;
    put_u32(page, HASH_FUNCTION, function)?;
    put_u32(page, slot(SPARES, step, SPARES_MAX)?, 1)?;
    set_lower(page, END);
    Ok(())
}

/// How many buckets an index begins with that would fill this many.
fn bucket_count(wanted: f64) -> Result<u32, Fault> {
    if wanted.is_nan() {
        return Err(Fault::RecordValue("number of rows"));
    }
    if wanted <= 2.0 {
        return Ok(2);
    }
    if wanted >= f64::from(BUCKETS_MAX) {
        return Ok(BUCKETS_MAX);
    }
    Ok(buckets_after(step_of(wanted as u32)))
}

/// The step at which this many buckets were reached.
fn step_of(buckets: u32) -> u32 {
    let power = buckets.next_power_of_two().ilog2();
    if power < ONE_STEP_POWERS {
        return power;
    }
    let quarter = ((buckets - 1) >> (power - 3)) & 3;
    ONE_STEP_POWERS + (power - ONE_STEP_POWERS) * 4 + quarter
}

/// The buckets that there are after a step.
const fn buckets_after(step: u32) -> u32 {
    let Some(steps) = step.checked_sub(ONE_STEP_POWERS) else {
        return 1 << step;
    };
    let before = 1 << (ONE_STEP_POWERS + steps / 4 - 1);
    before + before / 4 * (steps % 4 + 1)
}

/// The first bitmap comes right after the buckets.
pub(super) fn add_first_bitmap(page: &mut Page) -> Result<(), Fault> {
    expect(page, META)?;
    let block = u32_at(page, MAX_BUCKET)?.wrapping_add(2);
    add_bitmap(page, block)
}

fn add_bitmap(page: &mut Page, block: u32) -> Result<(), Fault> {
    let count = u32_at(page, BITMAPS)?;
    put_u32(page, slot(BITMAP_BLOCKS, count, BITMAPS_MAX)?, block)?;
    put_u32(page, BITMAPS, count + 1)
}

/// Counts rows that came, or went where it is negative.
pub(super) fn count(page: &mut Page, rows: f64) -> Result<(), Fault> {
    expect(page, META)?;
    let old = u64::from(u32_at(page, TUPLES)?) | u64::from(u32_at(page, TUPLES + 4)?) << 32;
    set_count(page, (f64::from_bits(old) + rows).to_bits())
}

pub(super) fn set_count(page: &mut Page, rows: u64) -> Result<(), Fault> {
    expect(page, META)?;
    put(page, TUPLES, &rows.to_le_bytes())
}

pub(super) fn set_first_free(page: &mut Page, bit: u32) -> Result<(), Fault> {
    expect(page, META)?;
    put_u32(page, FIRST_FREE, bit)
}

const MASKS: u8 = 1;
const STEP: u8 = 2;

/// There is a bucket more; `changes` says what else changes with it.
pub(super) fn split(
    bucket: u32,
    changes: u8,
    data: &mut Fields<'_>,
    page: &mut Page,
) -> Result<(), Fault> {
    expect(page, META)?;
    if changes & !(MASKS | STEP) != 0 {
        return Err(Fault::RecordValue("split flags"));
    }
    put_u32(page, MAX_BUCKET, bucket)?;
    if changes & MASKS != 0 {
        put_u32(page, LOW_MASK, data.u32()?)?;
        put_u32(page, HIGH_MASK, data.u32()?)?;
    }
    if changes & STEP != 0 {
        let (step, spares) = (data.u32()?, data.u32()?);
        put_u32(page, slot(SPARES, step, SPARES_MAX)?, spares)?;
        put_u32(page, OVERFLOW_POINT, step)?;
    }
    Ok(())
}

/// A bucket gets one page more.
pub(super) struct Overflow {
    bitmap_bytes: u16,
    /// Its bit was clear, in a bitmap: a page that was given back.
    is_reused: bool,
    block: u32,
    prev: u32,
    new_bitmap: Option<u32>,
}

impl Overflow {
    pub(super) fn read(record: &Record, main: &mut Fields<'_>) -> Result<Self, Fault> {
        let block = |id| record.block(id).map(|block| block.blkno);
        Ok(Self {
            bitmap_bytes: main.u16()?,
            is_reused: main.bool()?,
            block: block(0).ok_or(Fault::NoSuchBlock)?,
            prev: block(1).ok_or(Fault::NoSuchBlock)?,
            new_bitmap: block(3),
        })
    }

    pub(super) fn redo(&self, id: u8, data: &mut Fields<'_>, page: &mut Page) -> Result<(), Fault> {
        match id {
            0 => init_page(page, self.prev, data.u32()?, OVERFLOW),
            1 => set_next(page, self.block),
            2 => bitmap::put(data.u32()?, page, true),
            3 => bitmap::init(self.bitmap_bytes, page),
            4 => self.meta(data.u32()?, page),
            _ => Err(Fault::Unsupported),
        }
    }

    fn meta(&self, first_free: u32, page: &mut Page) -> Result<(), Fault> {
        set_first_free(page, first_free)?;
        if self.is_reused {
            return Ok(());
        }
        if let Some(bitmap) = self.new_bitmap {
            add_bitmap(page, bitmap)?;
        }
        let spares = slot(SPARES, u32_at(page, OVERFLOW_POINT)?, SPARES_MAX)?;
        let pages = 1 + u32::from(self.new_bitmap.is_some());
        put_u32(page, spares, u32_at(page, spares)?.wrapping_add(pages))
    }
}

fn put_u32(page: &mut Page, at: usize, value: u32) -> Result<(), Fault> {
    put(page, at, &value.to_le_bytes())
}

/// Where element `index` of an array of `len` lies.
fn slot(array: usize, index: u32, len: u32) -> Result<usize, Fault> {
    if index >= len {
        return Err(Fault::RecordValue("index into the metapage"));
    }
    Ok(array + 4 * index as usize)
}

#[cfg(test)]
mod tests {
    use super::{bucket_count, buckets_after, step_of};

    #[test]
    fn buckets_double_at_once_and_then_in_quarters() {
        for (wanted, buckets, step) in [
            (f64::NEG_INFINITY, 2, 1),
            (2.0, 2, 1),
            (2.5, 2, 1),
            (3.0, 4, 2),
            (512.0, 512, 9),
            (513.0, 640, 10),
            (641.0, 768, 11),
            (1024.9, 1024, 13),
            (1025.0, 1280, 14),
            (8e8, 805_306_368, 91),
            (1e9, 1 << 30, 93),
            (f64::INFINITY, 1 << 30, 93),
        ] {
            assert_eq!(bucket_count(wanted), Ok(buckets), "{wanted}");
            assert_eq!(step_of(buckets), step, "{wanted}");
            assert!(buckets_after(step) == buckets, "{wanted}");
        }
        assert!(bucket_count(f64::NAN).is_err());
    }
}
