//! A leaf of a posting tree: posting lists, of which a record changes some.

use super::data::CONTENT;
use super::page::{COMPRESSED, DATA, LEAF, SPECIAL, count, expect, flags, set_count, set_flags};
use super::posting::{ListWriter, Rows, rows, take_list, take_row};
use crate::fault::Fault;
use crate::fields::Fields;
use crate::index_tuple::TID_BYTES;
use crate::page_item::{Page, bounds, put, set_lower};

const DELETE: u8 = 1;
const INSERT: u8 = 2;
const REPLACE: u8 = 3;
const ADD_ROWS: u8 = 4;

/// Changes lists, each of which the record names by its number among those that there were.
pub(super) fn recompress(actions: &mut Fields<'_>, page: &mut Page) -> Result<(), Fault> {
    expect(page, DATA | LEAF, 0)?;
    if flags(page)? & COMPRESSED == 0 {
        compress(page)?;
    }
    let end = bounds(page)?.lower;
    let source = *page;
    let mut old = Fields::new(source.get(CONTENT..end).ok_or(Fault::PageHeader)?);
    let mut passed = 0_u16;
    let mut out = Out { page, at: CONTENT };
    for _ in 0..actions.u16()? {
        let (number, action) = (u16::from(actions.u8()?), actions.u8()?);
        if number < passed {
            return Err(Fault::RecordValue("number of a posting list"));
        }
        while passed < number {
            out.put(take_list(&mut old)?)?;
            passed += 1;
        }
        match action {
            INSERT => {
                out.put(take_list(actions)?)?;
                continue;
            }
            REPLACE => {
                out.put(take_list(actions)?)?;
                take_list(&mut old)?;
            }
            DELETE => {
                take_list(&mut old)?;
            }
            ADD_ROWS => {
                let len = usize::from(actions.u16()?) * TID_BYTES;
                let added = Fields::new(actions.take(len)?);
                out.put(&merge(added, rows(take_list(&mut old)?)?)?)?;
            }
            _ => return Err(Fault::RecordValue("change of a posting list")),
        }
        passed += 1;
    }
    actions.expect_end()?;
    out.put(old.rest())?;
    let end = out.at;
    set_lower(page, end);
    Ok(())
}

/// What is written to a page, from its start on. The bytes after the end stay.
struct Out<'a> {
    page: &'a mut Page,
    at: usize,
}

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.len() > SPECIAL - self.at {
            return Err(Fault::PageFull);
        }
        put(self.page, self.at, bytes)?;
        self.at += bytes.len();
        Ok(())
    }
}

/// The list with rows added; one that it has stays one.
fn merge(mut added: Fields<'_>, mut old: Rows<'_>) -> Result<Vec<u8>, Fault> {
    let mut list: Option<ListWriter> = None;
    let mut new = next_added(&mut added)?;
    loop {
        let row = match (new, old.peek()) {
            (None, None) => break,
            (Some(row), None) | (None, Some(row)) => row,
            (Some(new), Some(old)) => new.min(old),
        };
        if old.peek() == Some(row) {
            old.advance()?;
        }
        if new == Some(row) {
            new = next_added(&mut added)?;
        }
        match &mut list {
            Some(list) => list.push(row)?,
            None => list = Some(ListWriter::begin(row)),
        }
    }
    Ok(list.map(ListWriter::end).unwrap_or_default())
}

fn next_added(added: &mut Fields<'_>) -> Result<Option<u64>, Fault> {
    if added.is_at_end() {
        return Ok(None);
    }
    take_row(added).map(Some)
}

/// Makes one list of the plain rows that servers before 9.4 wrote, as clusters that were upgraded
/// may still have.
fn compress(page: &mut Page) -> Result<(), Fault> {
    let len = usize::from(count(page)?) * TID_BYTES;
    if len > SPECIAL - CONTENT {
        return Err(Fault::PageHeader);
    }
    let mut plain = Fields::new(&page[CONTENT..CONTENT + len]);
    let mut list = Vec::new();
    if let Some(first) = next_added(&mut plain)? {
        let mut writer = ListWriter::begin(first);
        while let Some(row) = next_added(&mut plain)? {
            writer.push(row)?;
        }
        list = writer.end();
    }
    Out { page, at: CONTENT }.put(&list)?;
    set_lower(page, CONTENT + list.len());
    set_flags(page, COMPRESSED)?;
    set_count(page, 0)
}
