//! Makes the content of a key out of what was collected.
//!
//! A value that cannot apply is an error that names it: pages are never made up.

use bytes::{Bytes, BytesMut};
use ids::Lsn;
use pg::PgMajor;
use pg::wal::{DecodeError, rmgr};
use redo::{Fault, RedoError, Settings, vm};

use crate::value::{Value, XidStatus};

/// The size of a page.
pub(crate) const PAGE_BYTES: usize = 8192;
const XIDS_PER_CLOG_PAGE: u32 = PAGE_BYTES as u32 * 4;

/// Why a content cannot be rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RebuildError {
    /// A change without anything that it changes.
    #[error("the change at {0} has no page below it")]
    NoBase(Lsn),
    /// A change that reaches outside of its page, or a page that is not one.
    #[error("the change at {0} does not fit its page")]
    OutsidePage(Lsn),
    /// A stored record that does not decode.
    #[error("the record that ends at {lsn} cannot be decoded")]
    Decode {
        lsn: Lsn,
        #[source]
        source: DecodeError,
    },
    /// A record of an extension, which nobody else can redo.
    #[error(
        "the record that ends at {lsn} is of custom resource manager {rmid}, which cannot be \
         redone: the page is not known from there on until an image of it comes"
    )]
    Custom { lsn: Lsn, rmid: u8 },
    /// A record that does not apply to its page.
    #[error("the record that ends at {lsn} cannot be redone")]
    Redo {
        lsn: Lsn,
        #[source]
        source: RedoError,
    },
}

/// The content after all of `oldest_first`; `None` where the key names nothing.
pub(crate) fn rebuild(
    version: PgMajor,
    oldest_first: &[(Lsn, Value)],
) -> Result<Option<Bytes>, RebuildError> {
    let mut content: Option<BytesMut> = None;
    for (lsn, value) in oldest_first {
        match value {
            Value::Image(bytes) => content = Some(BytesMut::from(&bytes[..])),
            Value::Zeros => content = Some(BytesMut::zeroed(PAGE_BYTES)),
            Value::Gone => content = None,
            Value::Record {
                will_init,
                logs_hints,
                block,
                start,
                record,
            } => {
                if *will_init {
                    content = Some(BytesMut::zeroed(PAGE_BYTES));
                }
                let page = content.as_mut().ok_or(RebuildError::NoBase(*lsn))?;
                let settings = Settings {
                    version,
                    logs_hints: *logs_hints,
                };
                redo_record(settings, page, (*start, *lsn), record, *block)?;
            }
            // A read resolves both.
            Value::CopyOf { .. } | Value::Below => return Err(RebuildError::NoBase(*lsn)),
            Value::ListAdd(item) => {
                let list = content.get_or_insert_default();
                change_list(list, item, true).ok_or(RebuildError::OutsidePage(*lsn))?;
            }
            Value::ListRemove(item) => {
                let list = content.as_mut().ok_or(RebuildError::NoBase(*lsn))?;
                change_list(list, item, false).ok_or(RebuildError::OutsidePage(*lsn))?;
            }
            _ => {
                let page = content.as_mut().ok_or(RebuildError::NoBase(*lsn))?;
                change_page(page, value).ok_or(RebuildError::OutsidePage(*lsn))?;
            }
        }
    }
    Ok(content.map(BytesMut::freeze))
}

/// Applies a stored record, which spans `start..end`, to the page of its block.
fn redo_record(
    settings: Settings,
    page: &mut [u8],
    (start, end): (Lsn, Lsn),
    record: &Bytes,
    block: u8,
) -> Result<(), RebuildError> {
    let page: &mut [u8; PAGE_BYTES] = page
        .try_into()
        .map_err(|_| RebuildError::OutsidePage(end))?;
    let record = pg::wal::decode(settings.version, start, end, record)
        .map_err(|source| RebuildError::Decode { lsn: end, source })?;
    let applied = redo::apply(settings, &record, usize::from(block), page);
    applied.map_err(|source| match source.fault {
        Fault::Unsupported if record.rmid >= rmgr::CUSTOM_MIN => {
            let rmid = record.rmid;
            RebuildError::Custom { lsn: end, rmid }
        }
        _ => RebuildError::Redo { lsn: end, source },
    })
}

fn change_page(page: &mut [u8], value: &Value) -> Option<()> {
    let page: &mut [u8; PAGE_BYTES] = page.try_into().ok()?;
    match value {
        Value::Patch { offset, bytes } => {
            let at = usize::from(*offset);
            page.get_mut(at..at.checked_add(bytes.len())?)?
                .copy_from_slice(bytes);
        }
        Value::ClogSet { status, xids } => {
            xids.iter().for_each(|xid| set_clog(page, *xid, *status))
        }
        // Recovery does not stamp the LSN of a map's page that no block names.
        Value::VmClear { heap_block, flags } => {
            vm::clear(page, *heap_block, *flags);
        }
        Value::VmTruncate { heap_blocks } => vm::truncate(page, *heap_blocks),
        _ => return None,
    }
    Some(())
}

fn set_clog(page: &mut [u8], xid: u32, status: XidStatus) {
    let index = xid % XIDS_PER_CLOG_PAGE;
    let (byte, shift) = ((index / 4) as usize, (index % 4) * 2);
    page[byte] = page[byte] & !(0b11 << shift) | (status as u8) << shift;
}

/// Adds or removes an item of a sorted list; `None` where the list does not consist of such items.
fn change_list(list: &mut BytesMut, item: &[u8], add: bool) -> Option<()> {
    if item.is_empty() || !list.len().is_multiple_of(item.len()) {
        return None;
    }
    let mut items: Vec<&[u8]> = list.chunks(item.len()).collect();
    match (items.binary_search(&item), add) {
        (Err(at), true) => items.insert(at, item),
        (Ok(at), false) => drop(items.remove(at)),
        _ => return Some(()),
    }
    *list = BytesMut::from(&items.concat()[..]);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(values: Vec<Value>) -> Result<Option<Bytes>, RebuildError> {
        let values: Vec<_> = values
            .into_iter()
            .zip(1..)
            .map(|(value, lsn)| (Lsn(lsn), value))
            .collect();
        rebuild(PgMajor::V15, &values)
    }

    fn all_visible() -> Value {
        let mut page = vec![0xFF; PAGE_BYTES];
        page[..24].fill(0);
        page[14..16].copy_from_slice(&8192_u16.to_le_bytes()); // pd_upper
        Value::Image(page.into())
    }

    #[test]
    fn a_lock_clears_all_frozen_only_and_leaves_the_neighbours() {
        let page = after(vec![
            all_visible(),
            Value::VmClear {
                heap_block: 5,
                flags: 0b10,
            },
        ]);
        let page = page.unwrap().unwrap();
        assert_eq!((page[24], page[25], page[26]), (0xFF, 0b1111_0111, 0xFF));
    }

    #[test]
    fn truncation_keeps_the_bits_before_the_cut() {
        let page = after(vec![all_visible(), Value::VmTruncate { heap_blocks: 6 }]);
        let page = page.unwrap().unwrap();
        assert_eq!((page[24], page[25], page[26]), (0xFF, 0x0F, 0));
        assert!(page[26..].iter().all(|b| *b == 0));
    }

    #[test]
    fn the_vm_of_the_second_page_counts_from_its_own_start() {
        let heap_block = vm::PAGES_PER_MAP_PAGE + 1;
        let page = after(vec![
            all_visible(),
            Value::VmClear {
                heap_block,
                flags: 3,
            },
        ]);
        assert_eq!(page.unwrap().unwrap()[24], 0b1111_0011);
    }

    #[test]
    fn transaction_ends_are_two_bits_each() {
        let set = |status, xids| Value::ClogSet { status, xids };
        let page = after(vec![
            Value::Zeros,
            set(XidStatus::Committed, vec![0, 3, XIDS_PER_CLOG_PAGE + 4]),
            set(XidStatus::Aborted, vec![1]),
        ]);
        let page = page.unwrap().unwrap();
        assert_eq!((page[0], page[1], page[2]), (0b0100_1001, 0b01, 0));
    }

    #[test]
    fn lists_stay_sorted_and_gone_is_gone() {
        let add = |item: &'static [u8]| Value::ListAdd(Bytes::from_static(item));
        let list = after(vec![
            add(b"bb"),
            add(b"aa"),
            add(b"cc"),
            add(b"aa"),
            Value::ListRemove(Bytes::from_static(b"bb")),
        ]);
        assert_eq!(list, Ok(Some(Bytes::from_static(b"aacc"))));
        assert_eq!(after(vec![add(b"aa"), Value::Gone]), Ok(None));
    }

    #[test]
    fn a_record_that_does_not_decode_is_an_error_that_names_it() {
        let record = |will_init| Value::Record {
            will_init,
            logs_hints: false,
            block: 0,
            start: Lsn(0),
            record: Bytes::from_static(b"no record"),
        };
        assert_eq!(
            after(vec![record(false)]),
            Err(RebuildError::NoBase(Lsn(1)))
        );
        let damaged = after(vec![Value::Zeros, record(true)]);
        assert!(matches!(
            damaged,
            Err(RebuildError::Decode { lsn: Lsn(2), .. })
        ));
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_not_a_page() {
        let patch = |offset| Value::Patch {
            offset,
            bytes: Bytes::from_static(&[1; 4]),
        };
        assert_eq!(after(vec![patch(0)]), Err(RebuildError::NoBase(Lsn(1))));
        assert!(after(vec![Value::Zeros, patch(8188)]).is_ok());
        assert_eq!(
            after(vec![Value::Zeros, patch(8189)]),
            Err(RebuildError::OutsidePage(Lsn(2)))
        );
        let short = Value::Image(Bytes::from_static(b"short"));
        assert_eq!(
            after(vec![short, patch(0)]),
            Err(RebuildError::OutsidePage(Lsn(2)))
        );
    }
}
