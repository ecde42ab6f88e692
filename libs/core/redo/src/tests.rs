//! What holds for every record before any resource manager sees it.

use ids::Lsn;
use pg::page::BLOCK;
use pg::wal::block_flags::WILL_INIT;
use pg::wal::{Block, Compression, Image};

use super::*;
use crate::test_record::{self, END, record};

/// A piece of a generic record: at byte 100, one byte, 7.
const PIECE: [u8; 5] = [100, 0, 1, 0, 7];

fn block(flags: u8, image: Option<Image<'static>>) -> Block<'static> {
    Block {
        flags,
        image,
        ..test_record::block(0, 3, &PIECE)
    }
}

fn image(apply: bool) -> Option<Image<'static>> {
    Some(Image {
        hole_offset: 24,
        hole_length: 8192 - 24,
        compression: Compression::None,
        apply,
        bytes: &[8; 24],
    })
}

/// Redoes on a page that has this LSN; answers whether it wrote its byte.
fn writes(record: &Record, at: Lsn) -> Result<bool, Fault> {
    let settings = Settings {
        version: PgMajor::V17,
        logs_hints: false,
    };
    let mut page = [0; BLOCK];
    set_lsn(&mut page, at);
    apply(settings, record, 0, &mut page).map_err(|error| error.fault)?;
    let lsn = lsn(&page);
    assert_eq!(lsn, if page[100] == 7 { END } else { at });
    Ok(page[100] == 7)
}

#[test]
fn a_page_that_holds_the_record_is_left_alone_unless_it_is_made_anew() {
    for (flags, at, written) in [
        (0, END.0 - 1, true),
        (0, END.0, false),
        (0, END.0 + 1, false),
        (WILL_INIT, END.0 - 1, true),
        (WILL_INIT, END.0, true),
        (WILL_INIT, END.0 + 1, true),
    ] {
        let generic = record((rmgr::GENERIC, 0), &[], vec![block(flags, None)]);
        assert_eq!(writes(&generic, Lsn(at)), Ok(written), "{flags} {at}");
    }
}

#[test]
fn no_older_page_is_needed_where_the_record_has_all_of_it() {
    for (flags, image, anew) in [
        (0, None, false),
        (0, image(false), false),
        (0, image(true), true),
        (WILL_INIT, None, true),
        (WILL_INIT, image(true), true),
    ] {
        let generic = record((rmgr::GENERIC, 0), &[], vec![block(flags, image)]);
        assert_eq!(will_init(&generic, 0), anew);
        assert!(!will_init(&generic, 1), "it has no such block");
    }
}

/// A sequence is made anew or not at all, of what the record has of its own.
#[test]
fn a_page_of_a_sequence_is_always_made_anew() {
    for (id, flags, data, made) in [
        (0, WILL_INIT, &[][..], true),
        (0, WILL_INIT, &[7], false),
        (0, 0, &[], false),
        (1, WILL_INIT, &[], false),
    ] {
        let block = Block {
            id,
            data,
            ..block(flags, None)
        };
        let record = record((rmgr::SEQ, 0), &[0; 20], vec![block]);
        let settings = Settings {
            version: PgMajor::V17,
            logs_hints: false,
        };
        let tried = apply(settings, &record, 0, &mut [0; BLOCK]);
        assert_eq!(tried.is_ok(), made);
    }
}

/// A hint image is there only for the check where its page needs none; any other must be there.
#[test]
fn an_image_that_is_all_of_a_record_must_be_there() {
    for (op, wrote) in [
        (0xA0, Ok(false)),
        (0xB0, Err(Fault::Image)),
        (0x00, Err(Fault::Unsupported)),
    ] {
        for image in [None, image(false)] {
            let xlog = record((rmgr::XLOG, op), &[], vec![block(0, image)]);
            assert_eq!(writes(&xlog, Lsn(1)), wrote, "{op:#x}");
        }
    }
}
