//! Relations that are cut, databases that are copied and dropped, segments that go.

use super::*;

const FSM: RelTag = RelTag {
    fork: Fork::Fsm,
    ..HEAP
};

#[test]
fn truncation_leaves_no_free_space_past_the_end() {
    // A page of the map speaks of 4069 blocks; two levels of pages stand before the first.
    for (blocks, len, zeroed) in [
        (0, 2, None),
        (1, 3, Some(2)),
        (4069, 3, None),
        (4070, 4, Some(3)),
    ] {
        let mut ingest = with(&[(HEAP, 9000), (FSM, 5)]);
        let main = words(&[blocks, HEAP.spc, HEAP.db, HEAP.rel, 7]);
        let out = feed(&mut ingest, 0, rmgr::SMGR, 0x20, &main).unwrap();
        assert_eq!(ingest.directory().forks[&FSM], len, "after {blocks}");
        let zeros = out.values.iter().filter(|(_, v)| *v == Value::Zeros);
        let zeros: Vec<Key> = zeros.map(|(key, _)| *key).collect();
        let wanted = zeroed.map(|block| Key::new(KeyKind::RelBlock(FSM, block)));
        assert_eq!(zeros, Vec::from_iter(wanted), "after {blocks}");
    }
}

#[test]
fn a_database_that_is_copied_as_files_has_all_forks_of_its_template() {
    let mut ingest = with(&[(HEAP, 2), (VM, 1)]);
    let main = words(&[77, 1663, 5, 1663]);
    let out = feed(&mut ingest, 0, rmgr::DBASE, 0x00, &main).unwrap();
    let moved = |fork: RelTag| RelTag { db: 77, ..fork };
    assert_eq!(ingest.directory().forks[&moved(HEAP)], 2);
    assert!(ingest.directory().databases.contains(&(1663, 77)));
    let list = KeyKind::Relations { spc: 1663, db: 77 };
    let item = |fork: u8| [&HEAP.rel.to_be_bytes()[..], &[fork]].concat();
    let items = Value::Image([item(0), item(2)].concat().into());
    assert!(out.values.contains(&(Key::new(list), items)));
    let map = |db| KeyKind::RelMap { spc: 1663, db };
    for (from, to) in [
        (map(5), map(77)),
        (
            KeyKind::RelBlock(HEAP, 0),
            KeyKind::RelBlock(moved(HEAP), 0),
        ),
        (
            KeyKind::RelBlock(HEAP, 1),
            KeyKind::RelBlock(moved(HEAP), 1),
        ),
        (KeyKind::RelBlock(VM, 0), KeyKind::RelBlock(moved(VM), 0)),
    ] {
        // As of the beginning of the record.
        let (key, at) = (Key::new(from), Lsn(0x100));
        let copy = (Key::new(to), Value::CopyOf { key, at });
        assert!(out.values.contains(&copy), "{copy:?}");
    }
    let drop = words(&[77, 1, 1663]);
    feed(&mut ingest, 0, rmgr::DBASE, 0x20, &drop).unwrap();
    assert_eq!(ingest.directory(), with(&[(HEAP, 2), (VM, 1)]).directory());
}

#[test]
fn a_template_that_does_not_fit_into_memory_is_refused() {
    let mut ingest = with(&[(HEAP, (2 << 20) + 1)]);
    let main = words(&[77, 1663, 5, 1663]);
    let error = feed(&mut ingest, 0, rmgr::DBASE, 0x00, &main).unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
}

#[test]
fn a_tablespace_has_the_databases_that_have_files_in_it() {
    const THERE: RelTag = RelTag {
        spc: 16_400,
        ..HEAP
    };
    let mut ingest = with(&[]);
    let create = [&words(&[16_400])[..], b"/there\0"].concat();
    let listed = |out: &Changes| {
        let mut values = out.values.iter();
        values.any(|(key, _)| *key == Key::new(KeyKind::Tablespaces))
    };
    let out = feed(&mut ingest, 0, rmgr::TBLSPC, 0x00, &create).unwrap();
    assert!(listed(&out));
    let file = words(&[16_400, 5, THERE.rel, 0]);
    feed(&mut ingest, 0, rmgr::SMGR, 0x10, &file).unwrap();
    let directory = ingest.directory();
    assert!(directory.databases.contains(&(16_400, 5)));
    assert!(directory.forks.contains_key(&THERE));
    let out = feed(&mut ingest, 0, rmgr::TBLSPC, 0x10, &words(&[16_400])).unwrap();
    assert!(listed(&out));
    assert_eq!(ingest.directory(), with(&[]).directory());
}

#[test]
fn cut_multixacts_take_whole_segments_with_them() {
    const OFFSETS: SlruKind = SlruKind::MultiXactOffsets;
    const MEMBERS: SlruKind = SlruKind::MultiXactMembers;
    let (per_offsets, per_members) = (2048 * 32, 1636 * 32);
    let left = |end_multi: u32, start_member: u32, end_member: u32| {
        let mut ingest = with(&[]);
        for segment in 0..4 {
            ingest.directory.slru.insert((OFFSETS, segment), 32);
            ingest.directory.slru.insert((MEMBERS, segment), 32);
        }
        let main = words(&[5, 1, end_multi, start_member, end_member]);
        feed(&mut ingest, 0, rmgr::MULTIXACT, 0x30, &main).unwrap();
        assert_eq!(ingest.checkpoint().oldest_multi, end_multi);
        assert_eq!(ingest.checkpoint().oldest_multi_db, 5);
        let of = |slru| {
            let all = ingest.directory.slru.keys().filter(|key| key.0 == slru);
            all.map(|key| key.1).collect::<Vec<u32>>()
        };
        (of(OFFSETS), of(MEMBERS))
    };
    // The multixact before the oldest says where that one's members end.
    let (offsets, members) = left(2 * per_offsets, 0, 2 * per_members);
    assert_eq!((offsets, members), (vec![1, 2, 3], vec![2, 3]));
    let (offsets, members) = left(2 * per_offsets + 1, per_members, 3 * per_members - 1);
    assert_eq!((offsets, members), (vec![2, 3], vec![0, 2, 3]));
    // Around the end of numbers.
    let (_, members) = left(1, 3 * per_members, per_members);
    assert_eq!(members, [1, 2]);
}
