//! Tuples that go.

use pg::PgMajor;
use pg::wal::Record;

use super::Origin;
use super::page::{
    Moved, State, Target, bury_all, chain, drop_placeholders_from, forget_redirections,
};
use crate::fault::Fault;
use crate::fields::Fields;
use crate::page_compact::delete_items;
use crate::page_item::{Page, pointer, set_pointer};

/// Tuples of a leaf: some die in their place, some leave a placeholder, some move to the place of
/// a dead head, and chains close over the gaps.
pub(super) fn leaf(record: &Record, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let (dead, placeholders) = (usize::from(main.u16()?), usize::from(main.u16()?));
    let (moves, chains) = (usize::from(main.u16()?), usize::from(main.u16()?));
    Origin::take(&mut main)?;
    let mut items =
        |count| -> Result<Vec<u16>, Fault> { Ok(main.offsets(count)?.iter().collect()) };
    let (dead, placeholders) = (items(dead)?, items(placeholders)?);
    let (from, to) = (items(moves)?, items(moves)?);
    let (chained, next) = (items(chains)?, items(chains)?);
    main.expect_end()?;
    let nowhere = Moved {
        to: Target::NONE,
        xid: 0,
    };
    bury_all(page, &dead, (State::Dead, State::Dead), nowhere)?;
    let states = (State::Placeholder, State::Placeholder);
    bury_all(page, &placeholders, states, nowhere)?;
    for (from, to) in from.iter().zip(&to) {
        let (old, new) = (pointer(page, *from)?, pointer(page, *to)?);
        set_pointer(page, *from, new)?;
        set_pointer(page, *to, old)?;
    }
    bury_all(page, &from, states, nowhere)?;
    for (item, next) in chained.iter().zip(&next) {
        chain(page, *item, *next)?;
    }
    Ok(())
}

/// Tuples of a root that is a leaf: nothing leads to them.
pub(super) fn root(record: &Record, page: &mut Page) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let count = usize::from(main.u16()?);
    main.skip(2)?; // padding
    Origin::take(&mut main)?;
    let doomed: Vec<u16> = main.offsets(count)?.iter().collect();
    main.expect_end()?;
    delete_items(page, &doomed)
}

/// Redirections that no scan can need, and placeholders at the end of the page.
pub(super) fn redirections(
    version: PgMajor,
    record: &Record,
    page: &mut Page,
) -> Result<(), Fault> {
    let mut main = Fields::new(record.main_data);
    let count = usize::from(main.u16()?);
    let first_placeholder = main.u16()?;
    main.skip(4)?; // the conflict horizon
    if version >= PgMajor::V16 {
        main.bool()?; // whether it is of a catalog
        main.skip(1)?; // padding
    }
    let forgotten = main.offsets(count)?;
    main.expect_end()?;
    forget_redirections(page, forgotten.iter())?;
    if first_placeholder != 0 {
        drop_placeholders_from(page, first_placeholder)?;
    }
    Ok(())
}
