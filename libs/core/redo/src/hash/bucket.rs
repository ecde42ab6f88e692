//! The pages of a bucket: tuples moved between them and taken away, and buckets that split.

use pg::PgMajor;

use super::page::{
    HAS_DEAD_TUPLES, clear_flags, expect_any, init_page, init_unused, set_flags, set_next, set_prev,
};
use super::{Change, bitmap, meta};
use crate::fault::Fault;
use crate::fields::{Fields, Offsets};
use crate::index_tuple::take_tuple;
use crate::page_compact::delete_items;
use crate::page_item::{Page, Place, add_item};

/// Tuples move to an earlier page of their bucket.
pub(super) struct Move {
    count: u16,
}

impl Move {
    pub(super) fn read(main: &mut Fields<'_>) -> Result<Self, Fault> {
        let count = main.u16()?;
        main.bool()?; // whether they move to the bucket's first page
        Ok(Self { count })
    }

    pub(super) fn redo(
        &self,
        id: u8,
        data: &mut Fields<'_>,
        page: &mut Page,
    ) -> Result<Change, Fault> {
        match id {
            // The bucket's first page is named so that recovery locks it, and stays as it is.
            0 => return Ok(Change::None),
            1 => move_in(self.count, data, page)?,
            2 => remove(data, page)?,
            _ => return Err(Fault::Unsupported),
        }
        Ok(Change::Some)
    }
}

/// Adds tuples, whose places stand before them in the record.
fn move_in(count: u16, data: &mut Fields<'_>, page: &mut Page) -> Result<(), Fault> {
    expect_any(page)?;
    for item in data.offsets(usize::from(count))?.iter() {
        add_item(page, &[take_tuple(data)?], item, Place::Insert)?;
    }
    Ok(())
}

/// Takes away the items whose numbers are all that is left of the payload.
fn remove(data: &mut Fields<'_>, page: &mut Page) -> Result<(), Fault> {
    let items = data.offsets(data.len_left() / 2)?;
    remove_items(items, page)
}

fn remove_items(items: Offsets<'_>, page: &mut Page) -> Result<(), Fault> {
    expect_any(page)?;
    let items: Vec<u16> = items.iter().collect();
    delete_items(page, &items)
}

/// A bucket gives its last page back, after its tuples have moved to another.
pub(super) struct Squeeze {
    prev: u32,
    next: u32,
    moved: u16,
    /// The page that the tuples move to stands right before the one that goes.
    writes_prev: bool,
}

impl Squeeze {
    pub(super) fn read(main: &mut Fields<'_>) -> Result<Self, Fault> {
        let (prev, next, moved) = (main.u32()?, main.u32()?, main.u16()?);
        main.bool()?; // whether the tuples move to the bucket's first page
        Ok(Self {
            prev,
            next,
            moved,
            writes_prev: main.bool()?,
        })
    }

    pub(super) fn redo(
        &self,
        version: PgMajor,
        id: u8,
        data: &mut Fields<'_>,
        page: &mut Page,
    ) -> Result<Change, Fault> {
        match id {
            0 => return Ok(Change::None),
            1 => return self.write_page(version, data, page),
            2 => init_unused(page)?,
            3 => set_next(page, self.next)?,
            4 => set_prev(page, self.prev)?,
            5 => bitmap::put(data.u32()?, page, false)?,
            6 => meta::set_first_free(page, data.u32()?)?,
            _ => return Err(Fault::Unsupported),
        }
        Ok(Change::Some)
    }

    fn write_page(
        &self,
        version: PgMajor,
        data: &mut Fields<'_>,
        page: &mut Page,
    ) -> Result<Change, Fault> {
        move_in(self.moved, data, page)?;
        if self.writes_prev {
            set_next(page, self.next)?;
        }
        // Until 17 the page that nothing moved to took the record's LSN all the same.
        if self.moved == 0 && !self.writes_prev && version >= PgMajor::V17 {
            return Ok(Change::None);
        }
        Ok(Change::Some)
    }
}

/// Tuples go that `VACUUM` removes, or that have moved to the other half of their bucket.
pub(super) struct Delete {
    clears_dead: bool,
}

impl Delete {
    pub(super) fn read(main: &mut Fields<'_>) -> Result<Self, Fault> {
        let clears_dead = main.bool()?;
        main.bool()?; // whether they are on the bucket's first page
        Ok(Self { clears_dead })
    }

    pub(super) fn redo(
        &self,
        id: u8,
        data: &mut Fields<'_>,
        page: &mut Page,
    ) -> Result<Change, Fault> {
        match id {
            0 => return Ok(Change::None),
            1 => remove(data, page)?,
            _ => return Err(Fault::Unsupported),
        }
        if self.clears_dead {
            clear_flags(page, HAS_DEAD_TUPLES)?;
        }
        Ok(Change::Some)
    }
}

/// Tuples that scans found to be dead go, where an insertion needs their room.
pub(super) struct VacuumOnePage<'a> {
    items: Offsets<'a>,
    count: u32,
}

impl<'a> VacuumOnePage<'a> {
    pub(super) fn read(version: PgMajor, main: &mut Fields<'a>) -> Result<Self, Fault> {
        main.skip(4)?; // the newest transaction whose rows go
        let count = if version >= PgMajor::V16 {
            let count = main.u16()?;
            main.bool()?; // whether it is of a catalog
            main.skip(1)?; // padding
            u32::from(count)
        } else {
            main.u32()?
        };
        let items = main.offsets(count as usize)?;
        Ok(Self { items, count })
    }

    pub(super) fn redo(&self, id: u8, page: &mut Page) -> Result<(), Fault> {
        match id {
            0 => {
                remove_items(self.items, page)?;
                clear_flags(page, HAS_DEAD_TUPLES)
            }
            1 => meta::count(page, -f64::from(self.count)),
            _ => Err(Fault::Unsupported),
        }
    }
}

/// A bucket begins to be split in two.
pub(super) struct Split {
    bucket: u32,
    old_flags: u16,
    new_flags: u16,
    meta: u8,
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

    pub(super) fn redo(&self, id: u8, data: &mut Fields<'_>, page: &mut Page) -> Result<(), Fault> {
        match id {
            0 => {
                set_flags(page, self.old_flags)?;
                // The first page of a bucket has no page before it, and remembers there the
                // highest bucket that there was.
                set_prev(page, self.bucket)
            }
            1 => init_page(page, self.bucket, self.bucket, self.new_flags),
            2 => meta::split(self.bucket, self.meta, data, page),
            _ => Err(Fault::Unsupported),
        }
    }
}
