//! Redo is total: every kind of record has its own, and no record and no page makes it panic.

use ids::{Fork, Lsn, RelTag};
use pg::PgMajor;
use pg::wal::block_flags::WILL_INIT;
use pg::wal::{Block, Record, op_name, rmgr};
use proptest::prelude::*;
use redo::{Fault, Settings};

prop_compose! {
    /// Small numbers are frequent, as they are what names items that exist.
    fn payload()(bytes in prop::collection::vec(prop_oneof![0_u8..6, any::<u8>()], 0..160)) -> Vec<u8> {
        bytes
    }
}

/// What records are made of.
#[derive(Debug)]
struct Parts {
    rmid: u8,
    op: u8,
    main_data: Vec<u8>,
    /// Data, number, whether it is in the visibility map, whether it is made anew.
    blocks: Vec<(Vec<u8>, u32, bool, bool)>,
}

prop_compose! {
    fn parts()(
        rmid in prop_oneof![9_u8..18, Just(20), Just(0), Just(rmgr::NEON)],
        op in 0_u8..16,
        main_data in payload(),
        blocks in prop::collection::vec((payload(), 0_u32..40_000, any::<bool>(), any::<bool>()), 1..8),
    ) -> Parts {
        Parts { rmid, op, main_data, blocks }
    }
}

fn record<'a>(parts: &'a Parts) -> Record<'a> {
    let block = |(id, (data, blkno, in_map, is_new)): (u8, &'a (Vec<u8>, u32, bool, bool))| {
        let fork = if *in_map { Fork::Vm } else { Fork::Main };
        let rel = RelTag {
            spc: 1663,
            db: 5,
            rel: 9,
            fork,
        };
        Block {
            id,
            rel,
            blkno: *blkno,
            flags: if *is_new { WILL_INIT } else { 0 },
            image: None,
            data,
        }
    };
    Record {
        start: Lsn(8),
        end: Lsn(u64::MAX),
        prev: Lsn(0),
        xid: 700,
        info: parts.op << 4,
        rmid: parts.rmid,
        origin: None,
        toplevel_xid: None,
        main_data: &parts.main_data,
        blocks: (0..).zip(&parts.blocks).map(block).collect(),
    }
}

prop_compose! {
    /// A page whose header and line pointers are nearly sane.
    fn page()(
        pointers in prop::collection::vec((0_u32..8300, 0_u32..4, 0_u32..200), 0..20),
        upper in 100_u16..8200,
        special in prop_oneof![Just(8176_u16), Just(8184), Just(8192), any::<u16>()],
        fill in any::<u8>(),
        (low, high) in (0_u16..256, prop_oneof![Just(0xff80_u16), 0_u16..256, Just(131)]),
    ) -> Box<[u8; 8192]> {
        let mut page = Box::new([fill; 8192]);
        page[..8].fill(0);
        page[12..14].copy_from_slice(&(24 + 4 * pointers.len() as u16).to_le_bytes());
        page[14..16].copy_from_slice(&upper.to_le_bytes());
        page[16..18].copy_from_slice(&special.to_le_bytes());
        // The end of a hash page (flags, then what all have), or of a GIN page (count, then flags).
        page[8188..8190].copy_from_slice(&low.to_le_bytes());
        page[8190..].copy_from_slice(&high.to_le_bytes());
        for (at, (start, state, len)) in pointers.into_iter().enumerate() {
            let raw = (start & 0x7fff) | state << 15 | len << 17;
            page[24 + 4 * at..28 + 4 * at].copy_from_slice(&raw.to_le_bytes());
        }
        page
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_record_and_no_page_makes_redo_panic(parts in parts(), page in page()) {
        let record = record(&parts);
        let _ = redo::vm_clears(&record).count();
        for version in PgMajor::ALL {
            for index in 0..=record.blocks.len() {
                let mut page = page.clone();
                let logs_hints = index % 2 == 0;
                let settings = Settings { version, logs_hints };
                let _ = redo::apply(settings, &record, index, &mut page);
            }
        }
    }
}

/// Records of these kinds change no page: what they say is for a standby, or for old files.
fn changes_no_page(rmid: u8, op: u8) -> bool {
    matches!(
        (rmid, op),
        (rmgr::HEAP2, 0x00 | 0x70) // REWRITE, NEW_CID
            | (rmgr::HEAP, 0x30) // TRUNCATE
            | (rmgr::BTREE, 0xD0) // REUSE_PAGE
            | (rmgr::GIST, 0x20 | 0x70) // PAGE_REUSE, ASSIGN_LSN
    )
}

/// Ingest stores a record of any kind that has a name, and relies on this.
#[test]
fn every_kind_that_changes_pages_has_its_redo() {
    let (mut kinds, unsupported) = (0, Err(Fault::Unsupported));
    for (version, op) in PgMajor::ALL
        .into_iter()
        .flat_map(|v| (0..16).map(move |op| (v, op << 4)))
    {
        for rmid in (rmgr::HEAP2..=rmgr::BRIN).chain([rmgr::GENERIC]) {
            let has_name = op_name(version, rmid, op).is_some();
            let tried = (0..4).map(|id| try_on_zeros(version, (rmid, op), id));
            let has_redo = tried.into_iter().any(|tried| tried != unsupported);
            let wanted = has_name && !changes_no_page(rmid, op);
            assert!(has_redo || !wanted, "{version:?} rmgr {rmid} op {op:#x}");
            kinds += usize::from(wanted);
        }
    }
    assert!(kinds > 300, "only {kinds} kinds were tried");
}

fn try_on_zeros(version: PgMajor, (rmid, op): (u8, u8), id: u8) -> Result<(), Fault> {
    let parts = Parts {
        rmid,
        op: op >> 4,
        main_data: vec![0; 160],
        blocks: vec![(Vec::new(), 1, false, true)],
    };
    let mut record = record(&parts);
    record.blocks[0].id = id;
    let settings = Settings {
        version,
        logs_hints: false,
    };
    redo::apply(settings, &record, 0, &mut pg::page::zeroed()).map_err(|error| error.fault)
}
