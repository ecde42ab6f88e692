//! What the workload must reach, or the comparison proves too little.

use std::ops::RangeInclusive;

use pg::PgMajor;
use pg::PgMajor::{V14, V18};
use pg::wal::rmgr;
use stock::Release;

/// Every block of these records must be compared, or restored, this often.
const OFTEN: u64 = 20;
const ALL: RangeInclusive<PgMajor> = V14..=V18;

/// Resource manager, op with its init bit, blocks by their role, the versions that write it so.
const WANTED: &[(u8, u8, &[u8], RangeInclusive<PgMajor>)] = &[
    (rmgr::HEAP2, 0x10, &[0], ALL),
    (rmgr::HEAP2, 0x20, &[0], ALL),
    (rmgr::HEAP2, 0x30, &[0], ALL),
    (rmgr::HEAP2, 0x40, &[0, 1], ALL),
    (rmgr::HEAP2, 0x50, &[0], ALL),
    (rmgr::HEAP2, 0x60, &[0], ALL),
    (rmgr::HEAP2, 0xD0, &[0], ALL),
    (rmgr::HEAP, 0x00, &[0], ALL),
    (rmgr::HEAP, 0x80, &[0], ALL),
    (rmgr::HEAP, 0x10, &[0], ALL),
    (rmgr::HEAP, 0x20, &[0, 1], ALL),
    (rmgr::HEAP, 0xA0, &[0, 1], ALL),
    (rmgr::HEAP, 0x40, &[0], ALL),
    (rmgr::HEAP, 0x50, &[0], ALL),
    (rmgr::HEAP, 0x60, &[0], ALL),
    (rmgr::HEAP, 0x70, &[0], ALL),
    (rmgr::BTREE, 0x00, &[0], ALL),
    (rmgr::BTREE, 0x10, &[0, 1], ALL),
    (rmgr::BTREE, 0x20, &[0, 1, 2], ALL),
    (rmgr::BTREE, 0x30, &[0, 1, 2, 3], ALL),
    (rmgr::BTREE, 0x40, &[0, 1, 2, 3], ALL),
    (rmgr::BTREE, 0x50, &[0], ALL),
    (rmgr::BTREE, 0x60, &[0], ALL),
    (rmgr::BTREE, 0x70, &[0], ALL),
    (rmgr::BTREE, 0x80, &[0, 1, 2, 3], ALL),
    // Block 1 is a page on the left, which a level that is skipped has not.
    (rmgr::BTREE, 0x90, &[0, 2, 3, 4], ALL),
    (rmgr::BTREE, 0xA0, &[0, 1, 2], ALL),
    (rmgr::BTREE, 0xB0, &[0, 1], ALL),
    (rmgr::BTREE, 0xC0, &[0], ALL),
    (rmgr::BTREE, 0xE0, &[0], ALL),
    (rmgr::SEQ, 0x00, &[0], ALL),
    (rmgr::GENERIC, 0x00, &[0], ALL),
    (rmgr::HASH, 0x00, &[0], ALL),
    (rmgr::HASH, 0x10, &[0, 1], ALL),
    (rmgr::HASH, 0x20, &[0, 1], ALL),
    // Block 3, a new bitmap, comes after 32,768 overflow pages: a unit test makes it.
    (rmgr::HASH, 0x30, &[0, 1, 2, 4], ALL),
    (rmgr::HASH, 0x40, &[0, 1, 2], ALL),
    (rmgr::HASH, 0x50, &[0], ALL),
    (rmgr::HASH, 0x60, &[0, 1], ALL),
    (rmgr::HASH, 0x70, &[0, 1, 2], ALL),
    // Block 4 is the page after one that goes, which always was the last one: a unit test has it.
    (rmgr::HASH, 0x80, &[0, 1, 2, 3, 5, 6], ALL),
    (rmgr::HASH, 0x90, &[0, 1], ALL),
    (rmgr::HASH, 0xA0, &[0], ALL),
    (rmgr::HASH, 0xB0, &[0], ALL),
    (rmgr::HASH, 0xC0, &[0, 1], ALL),
    (rmgr::GIN, 0x10, &[0], ALL),
    (rmgr::GIN, 0x20, &[0, 1], ALL),
    (rmgr::GIN, 0x21, &[0, 1], ALL),
    (rmgr::GIN, 0x22, &[0], ALL),
    (rmgr::GIN, 0x23, &[0], ALL),
    (rmgr::GIN, 0x30, &[0, 1, 2, 3], ALL),
    (rmgr::GIN, 0x40, &[0], ALL),
    (rmgr::GIN, 0x50, &[0, 1, 2], ALL),
    (rmgr::GIN, 0x60, &[0, 1], ALL),
    (rmgr::GIN, 0x61, &[0, 1], ALL),
    (rmgr::GIN, 0x70, &[0], ALL),
    (rmgr::GIN, 0x80, &[0, 1, 16], ALL),
    (rmgr::GIN, 0x90, &[0], ALL),
    (rmgr::GIST, 0x00, &[0, 1], ALL),
    (rmgr::GIST, 0x10, &[0], ALL),
    (rmgr::GIST, 0x30, &[0, 1, 2, 3], ALL),
    (rmgr::GIST, 0x60, &[0, 1], ALL),
    (rmgr::SPGIST, 0x10, &[0, 1], ALL),
    (rmgr::SPGIST, 0x20, &[0, 1, 2], ALL),
    (rmgr::SPGIST, 0x30, &[0, 1, 2], ALL),
    (rmgr::SPGIST, 0x40, &[0, 1], ALL),
    (rmgr::SPGIST, 0x50, &[0, 1, 2, 3], ALL),
    (rmgr::SPGIST, 0x60, &[0], ALL),
    (rmgr::SPGIST, 0x70, &[0], ALL),
    (rmgr::SPGIST, 0x80, &[0], ALL),
    (rmgr::BRIN, 0x00, &[0], ALL),
    (rmgr::BRIN, 0x10, &[0, 1], ALL),
    (rmgr::BRIN, 0x20, &[0, 1, 2], ALL),
    (rmgr::BRIN, 0x30, &[0], ALL),
    (rmgr::BRIN, 0x40, &[0, 1], ALL),
    (rmgr::BRIN, 0x50, &[0, 1], ALL),
    (rmgr::BRIN, 0x90, &[0, 1], ALL),
    (rmgr::BRIN, 0xA0, &[0, 1, 2], ALL),
];

/// Pages of the visibility map, which heap records name where they clear a bit of it.
const WANTED_OF_MAP: &[(u8, u8, &[u8])] = &[
    (rmgr::HEAP2, 0x50, &[1]),
    (rmgr::HEAP, 0x00, &[1]),
    (rmgr::HEAP, 0x80, &[1]),
    (rmgr::HEAP, 0x10, &[1]),
    // That of the new tuple's page, and that of the old one's where it is another page.
    (rmgr::HEAP, 0x20, &[2, 3]),
    (rmgr::HEAP, 0xA0, &[2]),
    (rmgr::HEAP, 0x40, &[3]),
    (rmgr::HEAP, 0x60, &[1]),
];

/// Whether they do: since the middle of 2026.
fn names_map(release: &Release) -> bool {
    let minor = release.minor.unwrap_or(0);
    match release.major {
        PgMajor::V17 => minor >= 11,
        V18 => minor >= 5,
        _ => false,
    }
}

/// What was not reached often enough; `reached`: how often a block of an op was.
pub(crate) fn missing(
    release: &Release,
    reached: impl Fn(u8, u8, u8) -> Option<u64>,
) -> Vec<String> {
    let rows = WANTED.iter().filter(|row| row.3.contains(&release.major));
    let rows = rows.map(|(rmid, op, roles, _)| (rmid, op, roles));
    let of_map = WANTED_OF_MAP.iter().filter(|_| names_map(release));
    let of_map = of_map.map(|(rmid, op, roles)| (rmid, op, roles));
    rows.chain(of_map)
        .flat_map(|(rmid, op, roles)| roles.iter().map(move |role| (*rmid, *op, *role)))
        .map(|(rmid, op, role)| (rmid, op, role, reached(rmid, op, role).unwrap_or(0)))
        .filter(|(.., times)| *times < OFTEN)
        .map(|(rmid, op, role, times)| {
            format!("{} {op:#04x} block {role}: {times} times", rmgr::name(rmid))
        })
        .collect()
}
