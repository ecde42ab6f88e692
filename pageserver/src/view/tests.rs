use api::timeline::TimeRelation;

use super::*;
use crate::timeline::tests::{BRANCH, World};
use crate::value::Value;

const MAIN: RelTag = RelTag {
    spc: 1663,
    db: 5,
    rel: 16384,
    fork: Fork::Main,
};

fn put(timeline: &Timeline, lsn: u64, values: Vec<(KeyKind, Value)>) {
    let prev = timeline.last_record().unwrap().start;
    let values = values
        .into_iter()
        .map(|(kind, value)| (Key::new(kind), value));
    timeline
        .ingest(prev, Lsn(lsn - 1), Lsn(lsn), values)
        .unwrap();
}

fn number(n: u32) -> Value {
    Value::Image(Bytes::copy_from_slice(&n.to_le_bytes()))
}

fn page(n: u8) -> Value {
    Value::Image(vec![n; BLOCK].into())
}

fn item(words: &[u32], last: &[u8]) -> Value {
    let words = words.iter().flat_map(|word| word.to_be_bytes());
    Value::ListAdd(words.chain(last.iter().copied()).collect())
}

#[tokio::test]
async fn pages_are_zeros_where_there_is_none_and_an_error_where_there_is_no_relation() {
    let world = World::created().await;
    let timeline = world.attach().await;
    let values = vec![
        (KeyKind::RelSize(MAIN), number(2)),
        (KeyKind::RelBlock(MAIN, 0), page(1)),
        (KeyKind::RelBlock(MAIN, 2), page(3)),
    ];
    put(&timeline, 110, values);
    put(&timeline, 120, vec![(KeyKind::RelSize(MAIN), Value::Gone)]);
    let first = async |block| timeline.page(MAIN, block, Lsn(110)).await.unwrap()[0];
    assert_eq!(first(0).await, 1);
    assert_eq!(first(1).await, 0, "inside, and never written");
    assert_eq!(first(2).await, 0, "past the end, and cut off");
    for lsn in [109, 120] {
        assert!(!timeline.relation_exists(MAIN, Lsn(lsn)).await.unwrap());
        let absent = timeline.page(MAIN, 0, Lsn(lsn)).await.unwrap_err();
        assert!(matches!(absent, ViewError::Absent { .. }), "{absent}");
    }
    let ahead = timeline.page(MAIN, 0, Lsn(121)).await.unwrap_err();
    assert_eq!(ahead.grade(), api::Grade::Retry);
}

#[tokio::test]
async fn lists_are_read_in_their_order_and_held_to_their_form() {
    let world = World::created().await;
    let timeline = world.attach().await;
    let (spc, db) = (1663, 5);
    let fsm = RelTag {
        fork: Fork::Fsm,
        ..MAIN
    };
    let slru = SlruKind::MultiXactMembers;
    let values = vec![
        (KeyKind::Databases, item(&[1663, 5], &[])),
        (KeyKind::Databases, item(&[1663, 1], &[])),
        (KeyKind::Relations { spc, db }, item(&[16384], &[1])),
        (KeyKind::Relations { spc, db }, item(&[16384], &[0])),
        (KeyKind::RelSize(MAIN), number(3)),
        (KeyKind::RelSize(fsm), number(9)),
        (KeyKind::SlruSegments(slru), item(&[7], &[])),
        (KeyKind::SlruSize(slru, 7), number(2)),
        (KeyKind::SlruBlock(slru, 7, 1), page(4)),
        (KeyKind::TwoPhaseFiles, item(&[0, 800], &[])),
        (
            KeyKind::TwoPhase(800),
            Value::Image(Bytes::from_static(b"state")),
        ),
    ];
    put(&timeline, 110, values);
    let at = Lsn(110);
    assert_eq!(
        timeline.databases(at).await.unwrap(),
        [(1663, 1), (1663, 5)]
    );
    assert_eq!(timeline.relations(spc, db, at).await.unwrap(), [MAIN, fsm]);
    assert_eq!(timeline.database_bytes(5, at).await.unwrap(), 12 * 8192);
    let absent = timeline.database_bytes(6, at).await;
    assert!(matches!(absent, Err(ViewError::Absent { .. })));
    assert_eq!(timeline.slru_segments(slru, at).await.unwrap(), [7]);
    let segment = timeline.slru_segment(slru, 7, at).await.unwrap();
    assert_eq!((segment.len(), segment[0], segment[8192]), (2 * 8192, 0, 4));
    assert!(timeline.slru_segment(slru, 8, at).await.is_err());
    assert_eq!(timeline.prepared(at).await.unwrap(), [800]);
    assert_eq!(timeline.prepared_state(800, at).await.unwrap(), "state");
    for (kind, value) in [
        (KeyKind::Databases, Value::Image(vec![0; 9].into())),
        (KeyKind::RelSize(MAIN), Value::Image(vec![0; 3].into())),
        (KeyKind::Relations { spc, db }, item(&[1], &[9])),
    ] {
        let at = timeline.last_lsn().unwrap() + 2;
        put(&timeline, at.0, vec![(kind, value)]);
        let error = match kind {
            KeyKind::Databases => timeline.databases(at).await.unwrap_err(),
            KeyKind::RelSize(rel) => timeline.page(rel, 0, at).await.unwrap_err(),
            _ => timeline.relations(spc, db, at).await.unwrap_err(),
        };
        assert!(matches!(error, ViewError::Malformed { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_time_is_found_by_the_commits_around_it_over_branches_too() {
    let world = World::created().await;
    let timeline = world.attach().await;
    let unix = |seconds: u64| 946_684_800.0 + seconds as f64;
    let commit = |seconds: u64| {
        let micros = seconds as i64 * 1_000_000;
        let time = Value::Image(Bytes::copy_from_slice(&micros.to_le_bytes()));
        vec![(KeyKind::CommitTime, time)]
    };
    put(&timeline, 104, vec![(KeyKind::RelSize(MAIN), number(0))]);
    timeline.flush().await.unwrap();
    let none = timeline.lsn_at(unix(1000)).await.unwrap();
    assert_eq!(none.relation, TimeRelation::NoData);
    for n in 0..40 {
        put(&timeline, 110 + 10 * n, commit(1000 + n));
        put(&timeline, 115 + 10 * n, vec![]);
        if n % 7 == 0 {
            timeline.flush().await.unwrap();
        }
    }
    timeline.branch(BRANCH, Lsn(305)).await.unwrap();
    let branch = world.attach_branch(&timeline).await;
    put(&branch, 900, commit(2000));
    for (of, time, lsn, relation) in [
        (&timeline, unix(999), 104, TimeRelation::Past),
        (&timeline, f64::MIN, 104, TimeRelation::Past),
        (&timeline, unix(1000), 110, TimeRelation::Present),
        (&timeline, unix(1017) + 0.5, 280, TimeRelation::Present),
        (&timeline, unix(1038), 490, TimeRelation::Present),
        (&timeline, unix(1039), 500, TimeRelation::Future),
        (&timeline, f64::MAX, 500, TimeRelation::Future),
        (&branch, unix(1005), 160, TimeRelation::Present),
        (&branch, unix(1999), 300, TimeRelation::Present),
        (&branch, unix(2000), 900, TimeRelation::Future),
    ] {
        let found = of.lsn_at(time).await.unwrap();
        assert_eq!((found.lsn, found.relation), (Lsn(lsn), relation), "{time}");
    }
}
