//! The pages of a bucket: tuples moved between them and taken away, and buckets that split.

use pg::wal::Block;

use super::page::{expect_any, init_page, set_flags, set_next, set_prev};
use crate::fault::Fault;
use crate::fields::Fields;
use crate::index_tuple::take_tuple;
use crate::page_compact::delete_items;
use crate::page_item::{Page, Place, add_item};

/// Adds tuples, whose places stand before them in the record.
pub(super) fn move_in(count: u16, block: &Block, page: &mut Page) -> Result<(), Fault> {
    expect_any(page)?;
    let mut data = Fields::new(block.data);
    for item in data.offsets(usize::from(count))?.iter() {
        add_item(page, &[take_tuple(&mut data)?], item, Place::Insert)?;
    }
    data.expect_end()
}

/// Takes away the items whose numbers are all that is left of the payload.
pub(super) fn remove(payload: &mut Fields<'_>, page: &mut Page) -> Result<(), Fault> {
    expect_any(page)?;
    let rest = payload.rest();
    let mut items = Fields::new(rest);
    let items: Vec<u16> = items.offsets(rest.len() / 2)?.iter().collect();
    delete_items(page, &items)
}

/// A bucket gives its last page back, after its tuples have moved to another.
pub(super) struct Squeeze {
    pub(super) prev: u32,
    pub(super) next: u32,
    moved: u16,
    /// The page that the tuples move to stands right before the one that goes.
    writes_prev: bool,
}

impl Squeeze {
    pub(super) fn read(main: &mut Fields<'_>) -> Result<Self, Fault> {
        let (prev, next, moved) = (main.u32()?, main.u32()?, main.u16()?);
        main.skip(1)?; // whether the tuples move to the bucket's first page
        Ok(Self {
            prev,
            next,
            moved,
            writes_prev: main.u8()? != 0,
        })
    }

    pub(super) fn write_page(&self, block: &Block, page: &mut Page) -> Result<(), Fault> {
        move_in(self.moved, block, page)?;
        if self.writes_prev {
            set_next(page, self.next)?;
        }
        Ok(())
    }
}

/// A bucket begins to be split in two.
pub(super) struct Split {
    pub(super) bucket: u32,
    old_flags: u16,
    new_flags: u16,
    pub(super) meta: u8,
}

impl Split {
    pub(super) fn read(main: &mut Fields<'_>) -> Result<Self, Fault> {
        Ok(Self {
            bucket: main.u32()?,
            old_flags: main.u16()?,
            new_flags: main.u16()?,
            meta: main.u8()?,
        })
    }

    /// The first page of a bucket has no page before it, and remembers there the highest bucket
    /// that there was.
    pub(super) fn old_bucket(&self, page: &mut Page) -> Result<(), Fault> {
        set_flags(page, self.old_flags)?;
        set_prev(page, self.bucket)
    }

    pub(super) fn new_bucket(&self, page: &mut Page) -> Result<(), Fault> {
        init_page(page, self.bucket, self.bucket, self.new_flags)
    }
}
