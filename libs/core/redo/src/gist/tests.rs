//! What the workload's server, which writes no images of pages, does not make.

use ids::Lsn;
use pg::wal::{Blocks, Compression, Image};

use super::*;
use crate::test_record::{self, block};

const END: Lsn = Lsn(0x1_0000_0040);

/// A page that waits for its downlink.
fn waiting() -> Page {
    let mut page = [0; pg::page::BLOCK];
    let waiting = Opaque {
        split_lsn: 7,
        right: 3,
        flags: LEAF | FOLLOW_RIGHT,
    };
    waiting.init(&mut page).unwrap();
    page
}

/// A record with the image of this page in the block with this id.
fn record(op: u8, id: u8, page: &Page) -> Record<'_> {
    let image = Image {
        hole_offset: 0,
        hole_length: 0,
        compression: Compression::None,
        apply: true,
        bytes: page,
    };
    let block = Block {
        image: Some(image),
        ..block(id, 2, &[])
    };
    Record {
        end: END,
        ..test_record::record((pg::wal::rmgr::GIST, op), &[], vec![block])
    }
}

#[test]
fn an_image_of_a_left_half_does_not_yet_say_that_its_downlink_is_there() {
    for (op, id, notes) in [
        (PAGE_UPDATE, 1, true),
        (PAGE_SPLIT, 0, true),
        (PAGE_UPDATE, 0, false),
    ] {
        let mut page = waiting();
        let image = page;
        let record = record(op, id, &image);
        let settings = crate::Settings {
            version: PgMajor::V15,
            logs_hints: false,
        };
        crate::apply(settings, &record, 0, &mut page).unwrap();
        let opaque = Opaque::read(&page).unwrap();
        let expected = if notes {
            (END.0, LEAF)
        } else {
            (7, LEAF | FOLLOW_RIGHT)
        };
        assert_eq!((opaque.split_lsn, opaque.flags), expected, "{op:#x} {id}");
    }
}

/// The server does not, so that its own check of recovery would fail here.
#[test]
fn recovery_notes_that_dead_items_went_except_in_15() {
    for (version, main, flags) in [
        (
            PgMajor::V14,
            &[9, 0, 0, 0, 1, 0, 1, 0][..],
            LEAF | TUPLES_DELETED,
        ),
        (PgMajor::V15, &[9, 0, 0, 0, 1, 0, 1, 0], LEAF),
        (
            PgMajor::V16,
            &[9, 0, 0, 0, 1, 0, 1, 0, 1, 0],
            LEAF | TUPLES_DELETED,
        ),
    ] {
        let mut page = waiting();
        let of = waiting();
        let mut record = record(DELETE, 0, &of);
        record.main_data = main;
        let block = Block {
            image: None,
            ..record.blocks[0].clone()
        };
        record.blocks = Blocks::from_iter([block]);
        let leaf = Opaque {
            split_lsn: 7,
            right: 3,
            flags: LEAF | HAS_GARBAGE,
        };
        leaf.init(&mut page).unwrap();
        add_item(&mut page, &[&[0; 16]], 1, Place::Insert).unwrap();
        redo(version, &record, &record.blocks[0], &mut page).unwrap();
        assert_eq!(Opaque::read(&page).unwrap().flags, flags, "{version}");
        assert_eq!(item_count(&page), Ok(0), "{version}");
    }
}

/// A page that is deleted keeps a transaction where its first line pointers were.
#[test]
fn a_page_without_room_for_a_transaction_is_not_deleted() {
    let delete = PageDelete {
        xid: 7,
        downlink: 1,
    };
    for (upper, deleted) in [(24, false), (31, false), (32, true), (33, true)] {
        let mut page = waiting();
        page[14..16].copy_from_slice(&u16::to_le_bytes(upper));
        assert_eq!(delete.mark(&mut page).is_ok(), deleted, "{upper}");
    }
}
