//! A chain that becomes several, under a new inner tuple.

use pg::wal::Record;

use super::page::{Kind, Moved, State, add, bury_all, make, point, take_inner, take_leaf};
use super::{Origin, target};
use crate::fault::Fault;
use crate::fields::{Fields, Offsets};
use crate::page_item::Page;

pub(super) struct PickSplit<'a> {
    /// The root was a leaf, and becomes the inner tuple's page.
    is_root: bool,
    new_source: bool,
    new_destination: bool,
    inner_item: u16,
    new_inner: bool,
    nulls: bool,
    inner_is_parent: bool,
    parent: u16,
    node: u16,
    origin: Origin,
    deleted: Offsets<'a>,
    inserted: Offsets<'a>,
    /// For every tuple that is inserted: zero for the source, else for the destination.
    selected: &'a [u8],
    inner: &'a [u8],
    tuples: Fields<'a>,
}

impl<'a> PickSplit<'a> {
    pub(super) fn read(record: &'a Record) -> Result<Self, Fault> {
        let mut main = Fields::new(record.main_data);
        let is_root = main.bool()?;
        main.skip(1)?; // padding
        let (deletes, inserts) = (usize::from(main.u16()?), usize::from(main.u16()?));
        let (new_source, new_destination) = (main.bool()?, main.bool()?);
        let inner_item = main.u16()?;
        let (new_inner, nulls, inner_is_parent) = (main.bool()?, main.bool()?, main.bool()?);
        main.skip(1)?; // padding
        let (parent, node) = (main.u16()?, main.u16()?);
        main.skip(2)?; // padding
        Ok(Self {
            is_root,
            new_source,
            new_destination,
            inner_item,
            new_inner,
            nulls,
            inner_is_parent,
            parent,
            node,
            origin: Origin::take(&mut main)?,
            deleted: main.offsets(deletes)?,
            inserted: main.offsets(inserts)?,
            selected: main.take(inserts)?,
            inner: take_inner(&mut main)?,
            tuples: main,
        })
    }

    pub(super) fn redo(&self, record: &Record, id: u8, page: &mut Page) -> Result<(), Fault> {
        let to = target(record, 2, self.inner_item)?;
        match id {
            0 if self.is_root => Err(Fault::NoSuchBlock),
            0 => {
                if self.new_source {
                    make(page, Kind::Leaf, self.nulls)?;
                } else {
                    let xid = self.origin.xid;
                    let states = (self.origin.state(), State::Placeholder);
                    let deleted: Vec<u16> = self.deleted.iter().collect();
                    bury_all(page, &deleted, states, Moved { to, xid })?;
                }
                self.insert(page, false)
            }
            1 => {
                if self.new_destination {
                    make(page, Kind::Leaf, self.nulls)?;
                }
                self.insert(page, true)
            }
            2 => {
                if self.new_inner {
                    make(page, Kind::Inner, self.nulls)?;
                }
                add(page, self.inner, self.inner_item)?;
                if self.inner_is_parent {
                    point(page, self.parent, self.node, to)?;
                }
                Ok(())
            }
            _ => point(page, self.parent, self.node, to),
        }
    }

    /// Inserts the tuples that go to the source or to the destination.
    fn insert(&self, page: &mut Page, into_destination: bool) -> Result<(), Fault> {
        let mut tuples = self.tuples;
        for (item, selected) in self.inserted.iter().zip(self.selected) {
            let tuple = take_leaf(&mut tuples)?;
            if (*selected != 0) == into_destination {
                add(page, tuple, item)?;
            }
        }
        tuples.expect_end()
    }
}
