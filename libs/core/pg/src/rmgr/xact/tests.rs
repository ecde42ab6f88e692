//! Ends of transactions and prepared ones, made by hand with all their parts.

use bytes::Bytes;

use super::*;
use crate::wal::{Blocks, rmgr};

const FILE: RelFile = RelFile {
    spc: 1663,
    db: 5,
    rel: 16384,
};

fn parse(version: PgMajor, info: u8, main_data: &[u8]) -> Result<XactRecord, Malformed> {
    let record = Record {
        start: Lsn(0x100),
        end: Lsn(0x200),
        prev: Lsn(0x80),
        xid: 700,
        info,
        rmid: rmgr::XACT,
        origin: None,
        toplevel_xid: None,
        main_data,
        blocks: Blocks::new(),
    };
    read(version, &record, Fields::new(record.main_data))
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A dropped statistics entry and its bytes.
fn stats(version: PgMajor) -> (DroppedStats, Vec<u8>) {
    let high = u32::from(version >= PgMajor::V18);
    let mut bytes = words(&[2, 5, 16384]);
    if version >= PgMajor::V18 {
        bytes.extend(words(&[high]));
    }
    let stats = DroppedStats {
        kind: 2,
        db: 5,
        object: u64::from(high) << 32 | 16384,
    };
    (stats, bytes)
}

#[test]
fn the_end_of_a_transaction_is_read_with_all_its_parts() {
    for version in PgMajor::ALL {
        let since_15 = version >= PgMajor::V15;
        let mut all = 0xFF | xinfo_bits::FORCE_SYNC;
        let mut bytes = words(&[5, 1663, 2, 701, 702, 1, 1663, 5, 16384]);
        if since_15 {
            all |= xinfo_bits::DROPPED_STATS;
            bytes.extend(words(&[1]));
            bytes.extend(stats(version).1);
        }
        bytes.extend(words(&[1, 0, 0, 0, 0])); // an invalidation
        bytes.extend(words(&[690]));
        bytes.extend(b"name\0");
        bytes.extend(words(&[0x55, 0, 8, 0]));
        let bytes = [words(&[7, 0, all]), bytes].concat();
        let expected = Finish {
            outcome: Outcome::Commit,
            xid: 690,
            was_prepared: true,
            time: 7,
            xinfo: all,
            database: Some((5, 1663)),
            subxacts: vec![701, 702],
            dropped: vec![FILE],
            dropped_stats: since_15.then_some(stats(version).0).into_iter().collect(),
            gid: Some(Bytes::from_static(b"name")),
            origin: Some(XactOrigin {
                lsn: Lsn(0x55),
                time: 8,
            }),
        };
        let read = parse(version, 0xB0, &bytes);
        assert_eq!(read, Ok(XactRecord::Finish(expected)));
        for length in 0..bytes.len() {
            assert!(parse(version, 0xB0, &bytes[..length]).is_err());
        }
        assert!(parse(version, 0xB0, &[&bytes[..], &[0]].concat()).is_err());
    }
}

#[test]
fn bits_that_nobody_knows_or_that_do_not_go_with_the_opcode_are_refused() {
    let (old, new) = (PgMajor::V14, PgMajor::V18);
    for (version, op, xinfo) in [
        (new, 0x80, xinfo_bits::TWOPHASE),
        (new, 0xA0, xinfo_bits::INVALIDATIONS),
        (new, 0xB0, 0),
        (new, 0x80, xinfo_bits::GID),
        (new, 0x80, 1 << 9),
        (old, 0x80, xinfo_bits::DROPPED_STATS),
    ] {
        let refused = parse(version, op, &words(&[7, 0, xinfo, 0, 0, 0, 0]));
        let value = u64::from(xinfo);
        assert_eq!(
            refused,
            Err(Malformed::Field {
                what: "xinfo",
                value
            })
        );
    }
}

/// The payload of a transaction that was prepared with one of everything.
fn prepared(version: PgMajor) -> Vec<u8> {
    let since_15 = version >= PgMajor::V15;
    let align = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(8), 0xEE);
    let mut bytes = words(&[TWOPHASE_MAGIC, 0, 700, 5, 7, 0, 10, 1, 1, 1]);
    if since_15 {
        bytes.extend(words(&[1, 1]));
    }
    bytes.extend(words(&[1])); // invalidations
    bytes.extend([1, 0xEE, 5, 0]); // init file, padding, length of gid
    bytes.extend(words(&[0x55, 0, 8, 0]));
    bytes.extend(b"name\0");
    align(&mut bytes);
    bytes.extend(words(&[701]));
    align(&mut bytes);
    for _ in 0..2 {
        bytes.extend(words(&[1663, 5, 16384]));
        align(&mut bytes);
    }
    for _ in 0..2 * u8::from(since_15) {
        bytes.extend(stats(version).1);
        align(&mut bytes);
    }
    bytes.extend([0xAA; INVALIDATION_BYTES]);
    bytes.extend([3, 0, 0, 0, 1, 0xEE, 0, 0, 1, 2, 3]); // a lock
    align(&mut bytes);
    bytes.extend([0; 8]);
    let total = (bytes.len() + CRC_BYTES) as u32;
    bytes[4..8].copy_from_slice(&total.to_le_bytes());
    bytes
}

#[test]
fn a_prepared_transaction_is_read_with_all_its_parts() {
    for version in PgMajor::ALL {
        let bytes = prepared(version);
        let dropped = (version >= PgMajor::V15).then_some(stats(version).0);
        let dropped: Vec<_> = dropped.into_iter().collect();
        let expected = Prepare {
            xid: 700,
            db: 5,
            time: 7,
            owner: 10,
            gid: Bytes::from_static(b"name"),
            subxacts: vec![701],
            commit_drops: vec![FILE],
            abort_drops: vec![FILE],
            commit_stats: dropped.clone(),
            abort_stats: dropped,
            origin: XactOrigin {
                lsn: Lsn(0x55),
                time: 8,
            },
            state: Bytes::copy_from_slice(&bytes),
        };
        let read = parse(version, 0x10, &bytes);
        assert_eq!(read, Ok(XactRecord::Prepare(expected)));
        for length in 8..bytes.len() {
            let mut short = bytes[..length].to_vec();
            short[4..8].copy_from_slice(&((length + CRC_BYTES) as u32).to_le_bytes());
            assert!(parse(version, 0x10, &short).is_err(), "{version} {length}");
        }
    }
    let of_another = parse(PgMajor::V14, 0x10, &prepared(PgMajor::V15));
    assert!(of_another.is_err());
}
