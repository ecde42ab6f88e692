//! Tuples that are added, moved, extended and split.

use pg::wal::Record;

use super::page::{
    Kind, Moved, State, add, bury, bury_all, chain, make, point, replace, take_inner, take_leaf,
};
use super::{Origin, target};
use crate::fault::Fault;
use crate::fields::{Fields, Offsets};
use crate::page_item::Page;

/// A leaf tuple that is added, alone or to a chain.
pub(super) struct AddLeaf<'a> {
    new_page: bool,
    nulls: bool,
    item: u16,
    head: u16,
    parent: u16,
    node: u16,
    tuple: &'a [u8],
}

impl<'a> AddLeaf<'a> {
    pub(super) fn read(record: &'a Record) -> Result<Self, Fault> {
        let mut main = Fields::new(record.main_data);
        let add = Self {
            new_page: main.bool()?,
            nulls: main.bool()?,
            item: main.u16()?,
            head: main.u16()?,
            parent: main.u16()?,
            node: main.u16()?,
            tuple: take_leaf(&mut main)?,
        };
        main.expect_end()?;
        Ok(add)
    }

    pub(super) fn redo(&self, record: &Record, id: u8, page: &mut Page) -> Result<(), Fault> {
        if id == 1 {
            return point(page, self.parent, self.node, target(record, 0, self.item)?);
        }
        if self.new_page {
            make(page, Kind::Leaf, self.nulls)?;
        }
        if self.item == self.head {
            // The chain had come to nothing but its dead head.
            return replace(page, self.tuple, self.item);
        }
        add(page, self.tuple, self.item)?;
        if self.head != 0 {
            chain(page, self.head, self.item)?;
        }
        Ok(())
    }
}

/// A chain that moves to another page, where there is room for one tuple more.
pub(super) struct MoveLeafs<'a> {
    new_page: bool,
    nulls: bool,
    parent: u16,
    node: u16,
    origin: Origin,
    deleted: Offsets<'a>,
    inserted: Offsets<'a>,
    tuples: Fields<'a>,
}

impl<'a> MoveLeafs<'a> {
    pub(super) fn read(record: &'a Record) -> Result<Self, Fault> {
        let mut main = Fields::new(record.main_data);
        let moves = usize::from(main.u16()?);
        let new_page = main.bool()?;
        let replaces_dead = main.bool()?;
        let nulls = main.bool()?;
        main.skip(1)?; // padding
        let (parent, node) = (main.u16()?, main.u16()?);
        main.skip(2)?; // padding
        let origin = Origin::take(&mut main)?;
        // A dead head stays behind, and the new tuple comes alone.
        let inserts = if replaces_dead { 1 } else { moves + 1 };
        Ok(Self {
            new_page,
            nulls,
            parent,
            node,
            origin,
            deleted: main.offsets(moves)?,
            inserted: main.offsets(inserts)?,
            tuples: main,
        })
    }

    pub(super) fn redo(&self, record: &Record, id: u8, page: &mut Page) -> Result<(), Fault> {
        let head = self.inserted.iter().next_back();
        let head = head.ok_or(Fault::RecordValue("list of moved tuples"))?;
        let to = target(record, 1, head)?;
        match id {
            0 => {
                let xid = self.origin.xid;
                let states = (self.origin.state(), State::Placeholder);
                let deleted: Vec<u16> = self.deleted.iter().collect();
                bury_all(page, &deleted, states, Moved { to, xid })
            }
            1 => self.insert(page),
            _ => point(page, self.parent, self.node, to),
        }
    }

    fn insert(&self, page: &mut Page) -> Result<(), Fault> {
        if self.new_page {
            make(page, Kind::Leaf, self.nulls)?;
        }
        let mut tuples = self.tuples;
        for item in self.inserted.iter() {
            add(page, take_leaf(&mut tuples)?, item)?;
        }
        tuples.expect_end()
    }
}

/// An inner tuple that gets one node more, in its place or elsewhere.
pub(super) struct AddNode<'a> {
    item: u16,
    new_item: u16,
    new_page: bool,
    /// The block that has the parent too, if its node changes.
    parent_block: u8,
    parent: u16,
    node: u16,
    origin: Origin,
    tuple: &'a [u8],
}

impl<'a> AddNode<'a> {
    pub(super) fn read(record: &'a Record) -> Result<Self, Fault> {
        let mut main = Fields::new(record.main_data);
        let (item, new_item) = (main.u16()?, main.u16()?);
        let (new_page, parent_block) = (main.bool()?, main.u8()?);
        let (parent, node) = (main.u16()?, main.u16()?);
        main.skip(2)?; // padding
        let origin = Origin::take(&mut main)?;
        let tuple = take_inner(&mut main)?;
        main.expect_end()?;
        Ok(Self {
            item,
            new_item,
            new_page,
            parent_block,
            parent,
            node,
            origin,
            tuple,
        })
    }

    pub(super) fn redo(&self, record: &Record, id: u8, page: &mut Page) -> Result<(), Fault> {
        if record.block(1).is_none() {
            return replace(page, self.tuple, self.item);
        }
        let to = target(record, 1, self.new_item)?;
        match id {
            0 => {
                let xid = self.origin.xid;
                bury(page, self.item, self.origin.state(), Moved { to, xid })?;
            }
            1 => {
                if self.new_page {
                    make(page, Kind::Inner, false)?;
                }
                add(page, self.tuple, self.new_item)?;
            }
            _ => {}
        }
        if self.parent_block == id {
            point(page, self.parent, self.node, to)?;
        }
        Ok(())
    }
}

/// An inner tuple whose prefix is split: what is common stays, the rest becomes its child.
pub(super) struct SplitTuple<'a> {
    prefix_item: u16,
    postfix_item: u16,
    new_page: bool,
    same_page: bool,
    prefix: &'a [u8],
    postfix: &'a [u8],
}

impl<'a> SplitTuple<'a> {
    pub(super) fn read(record: &'a Record) -> Result<Self, Fault> {
        let mut main = Fields::new(record.main_data);
        let split = Self {
            prefix_item: main.u16()?,
            postfix_item: main.u16()?,
            new_page: main.bool()?,
            same_page: main.bool()?,
            prefix: take_inner(&mut main)?,
            postfix: take_inner(&mut main)?,
        };
        main.expect_end()?;
        Ok(split)
    }

    pub(super) fn redo(&self, id: u8, page: &mut Page) -> Result<(), Fault> {
        match id {
            0 => {
                replace(page, self.prefix, self.prefix_item)?;
                if self.same_page {
                    add(page, self.postfix, self.postfix_item)?;
                }
                Ok(())
            }
            _ if self.same_page => Err(Fault::NoSuchBlock),
            _ => {
                if self.new_page {
                    make(page, Kind::Inner, false)?;
                }
                add(page, self.postfix, self.postfix_item)
            }
        }
    }
}
