use std::fs;

use bytes::Bytes;
use ids::{Fork, Key, KeyKind, Lsn, RelTag};

use super::*;
use crate::layer::map::LayerKind;
use crate::timeline::tests::{BRANCH, World, get, image, key, layers, set};

const SMALL: CompactConfig = CompactConfig {
    deltas: 4,
    deltas_max: 8,
    image_bytes: 20_000,
};
const LIVE: RelTag = RelTag {
    spc: 1663,
    db: 5,
    rel: 16384,
    fork: Fork::Main,
};
const GONE: RelTag = RelTag { rel: 16385, ..LIVE };

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

fn patch(n: u8) -> Value {
    let bytes = Bytes::from(vec![n; 2]);
    Value::Patch { offset: 7, bytes }
}

/// Several layers: keys that change, and blocks some of which are cut off and dropped.
async fn fill(timeline: &Timeline) {
    for n in 0..30 {
        set(timeline, 110 + u64::from(n), key(n), n as u8);
    }
    timeline.flush().await.unwrap();
    let mut values = vec![
        (KeyKind::RelSize(LIVE), number(6)),
        (KeyKind::RelSize(GONE), number(1)),
        (KeyKind::RelBlock(GONE, 0), page(9)),
    ];
    values.extend((0..5).map(|n| (KeyKind::RelBlock(LIVE, n), page(n as u8))));
    put(timeline, 200, values);
    timeline.flush().await.unwrap();
    let values = vec![
        (KeyKind::RelSize(LIVE), number(4)),
        (KeyKind::RelBlock(LIVE, 1), patch(77)),
        (KeyKind::RelBlock(LIVE, 2), Value::Zeros),
    ];
    put(timeline, 210, values);
    timeline.flush().await.unwrap();
    put(timeline, 220, vec![(KeyKind::RelSize(GONE), Value::Gone)]);
    set(timeline, 230, key(3), 99);
    timeline.flush().await.unwrap();
}

async fn contents(timeline: &Timeline, lsn: u64) -> Vec<Option<Bytes>> {
    let mut found = Vec::new();
    for n in 0..31 {
        found.push(timeline.content(key(n), Lsn(lsn)).await.unwrap());
    }
    for n in 0..4 {
        let key = Key::new(KeyKind::RelBlock(LIVE, n));
        found.push(timeline.content(key, Lsn(lsn)).await.unwrap());
    }
    found
}

fn images(timeline: &Timeline) -> Vec<LayerDescription> {
    let mut images = layers(timeline);
    images.retain(|layer| layer.kind == LayerKind::Image);
    images
}

#[tokio::test]
async fn images_hold_what_the_deltas_made_and_reads_at_the_end_stop_at_them() {
    let world = World::created().await;
    let timeline = world.attach().await;
    fill(&timeline).await;
    let mut before = Vec::new();
    for lsn in [109, 125, 205, 215, 230] {
        before.push((lsn, contents(&timeline, lsn).await));
    }
    assert_eq!(
        compact_if_due(&timeline, SMALL).await.unwrap(),
        Some(Lsn(230))
    );
    let written = images(&timeline);
    assert!(written.len() > 2, "bounded: {}", written.len());
    assert_eq!(written[0].first_key, Key::MIN);
    assert_eq!(written[written.len() - 1].last_key, Key::MAX);
    for pair in written.windows(2) {
        assert_eq!(pair[0].last_key.next(), pair[1].first_key);
    }
    let timeline = world.attach().await;
    for (lsn, before) in &before {
        assert_eq!(contents(&timeline, *lsn).await, *before, "at {lsn}");
    }
    // Without the deltas the end is read all the same; the history is not, and says why.
    for layer in layers(&timeline)
        .iter()
        .filter(|l| l.kind == LayerKind::Delta)
    {
        fs::remove_file(world.layer(layer)).unwrap();
    }
    let timeline = world.attach().await;
    assert_eq!(contents(&timeline, 230).await, before[4].1);
    assert!(timeline.content(key(3), Lsn(229)).await.is_err());
    // Cut off, and dropped.
    for kind in [KeyKind::RelBlock(LIVE, 4), KeyKind::RelBlock(GONE, 0)] {
        assert_eq!(
            timeline.content(Key::new(kind), Lsn(230)).await.unwrap(),
            None
        );
    }
    let gone = timeline.relation_blocks(GONE, Lsn(230)).await.unwrap();
    assert_eq!(gone, None);
}

#[tokio::test]
async fn a_second_compaction_begins_at_the_first_ones_images() {
    let world = World::created().await;
    let timeline = world.attach().await;
    fill(&timeline).await;
    compact(&timeline, SMALL).await.unwrap();
    let first = images(&timeline);
    assert_eq!(compact_if_due(&timeline, SMALL).await.unwrap(), None);
    for layer in layers(&timeline)
        .iter()
        .filter(|l| l.kind == LayerKind::Delta)
    {
        fs::remove_file(world.layer(layer)).unwrap();
    }
    let timeline = world.attach().await;
    let mut compacted = Vec::new();
    for n in 0..20 {
        set(&timeline, 240 + n, key(n as u16), 1);
        timeline.flush().await.unwrap();
        compacted.extend(compact_if_due(&timeline, SMALL).await.unwrap());
    }
    // Small beside the images: only their number makes them due.
    assert_eq!(compacted, [Lsn(247), Lsn(255)]);
    assert!(images(&timeline).len() > first.len());
    let timeline = world.attach().await;
    assert_eq!(get(&timeline, key(0), 259).await, Some(image(1)));
    assert_eq!(get(&timeline, key(25), 259).await, Some(image(25)));
    assert_eq!(get(&timeline, key(25), 250).await, Some(image(25)));
}

#[tokio::test]
async fn a_branch_is_compacted_with_what_it_has_from_its_parent() {
    let world = World::created().await;
    let parent = world.attach().await;
    fill(&parent).await;
    parent.branch(BRANCH, Lsn(215)).await.unwrap();
    let branch = world.attach_branch(&parent).await;
    set(&branch, 300, key(1), 44);
    branch.flush().await.unwrap();
    let before = contents(&branch, 300).await;
    compact(&branch, SMALL).await.unwrap();
    for layer in layers(&parent) {
        fs::remove_file(world.layer(&layer)).unwrap();
    }
    let parent = world.attach().await;
    let branch = world.attach_branch(&parent).await;
    assert_eq!(contents(&branch, 300).await, before);
    let gone = branch.relation_blocks(GONE, Lsn(300)).await.unwrap();
    assert_eq!(gone, Some(1), "as of the branch point");
    assert_eq!(get(&branch, key(3), 300).await, Some(image(3)));
}

#[tokio::test]
async fn a_timeline_without_a_key_has_an_image_of_nothing() {
    let world = World::created().await;
    let timeline = world.attach().await;
    timeline.ingest(Lsn(0), Lsn(104), Lsn(110), []).unwrap();
    timeline.flush().await.unwrap();
    assert_eq!(compact(&timeline, SMALL).await.unwrap(), Lsn(110));
    assert!(images(&timeline).is_empty());
    set(&timeline, 120, key(1), 1);
    timeline.flush().await.unwrap();
    compact(&timeline, SMALL).await.unwrap();
    assert_eq!(get(&timeline, key(1), 120).await, Some(image(1)));
    assert_eq!(get(&timeline, key(2), 120).await, None);
}

#[tokio::test]
async fn a_page_that_cannot_be_made_costs_no_other_page_and_keeps_its_history() {
    let world = World::created().await;
    let timeline = world.attach().await;
    let block = |n| KeyKind::RelBlock(LIVE, n);
    let begin = vec![
        (KeyKind::RelSize(LIVE), number(2)),
        (block(0), page(7)),
        (block(1), page(1)),
    ];
    put(&timeline, 110, begin);
    let broken = Value::Record {
        will_init: false,
        logs_hints: false,
        block: 0,
        start: Lsn(119),
        record: Bytes::from_static(b"no record"),
    };
    put(&timeline, 120, vec![(block(0), broken)]);
    for n in 0..8 {
        put(&timeline, 130 + u64::from(n), vec![(block(1), page(n))]);
        timeline.flush().await.unwrap();
        compact(&timeline, SMALL).await.unwrap();
    }
    let timeline = world.attach().await;
    let read = async |n, lsn| timeline.content(Key::new(block(n)), Lsn(lsn)).await;
    for lsn in [120, 133, 137] {
        let error = read(0, lsn).await.unwrap_err();
        assert!(matches!(error, ReadError::Rebuild { .. }), "{error}");
    }
    assert_eq!(read(0, 119).await.unwrap(), Some(vec![7; BLOCK].into()));
    assert_eq!(read(1, 137).await.unwrap(), Some(vec![7; BLOCK].into()));
    let lsns = |timeline: &Timeline| {
        let lsns = images(timeline).into_iter().map(|image| image.first_lsn);
        lsns.collect::<std::collections::BTreeSet<Lsn>>()
    };
    assert!(images(&timeline).iter().any(|image| image.has_gaps));
    assert_eq!(lsns(&timeline).len(), 8, "all of them may be needed");

    // An image heals it, and what is older than some later images goes again.
    put(&timeline, 150, vec![(block(0), page(8))]);
    for n in 0..6 {
        put(&timeline, 151 + u64::from(n), vec![(block(1), page(n))]);
        timeline.flush().await.unwrap();
        compact(&timeline, SMALL).await.unwrap();
    }
    let healed = timeline.content(Key::new(block(0)), Lsn(156)).await;
    assert_eq!(healed.unwrap(), Some(vec![8; BLOCK].into()));
    assert_eq!(lsns(&timeline).len(), 8 + 4, "those above the last gap");
    let text = service::metrics::render().unwrap();
    assert!(
        text.contains("redoubt_pageserver_unreadable_total{"),
        "{text}"
    );
}

#[tokio::test]
async fn a_copy_is_what_the_other_key_was_and_images_hold_it_themselves() {
    let world = World::created().await;
    let timeline = world.attach().await;
    let block = |n| KeyKind::RelBlock(LIVE, n);
    put(
        &timeline,
        110,
        vec![(block(0), page(7)), (KeyKind::RelSize(LIVE), number(3))],
    );
    let copy = |n, at| Value::CopyOf {
        key: Key::new(block(n)),
        at: Lsn(at),
    };
    put(&timeline, 120, vec![(block(1), copy(0, 115))]);
    put(
        &timeline,
        130,
        vec![(block(0), page(8)), (block(1), patch(9))],
    );
    // Of a copy, and of what was never there.
    put(
        &timeline,
        140,
        vec![(block(2), copy(1, 139)), (KeyKind::Databases, copy(5, 139))],
    );
    let mut patched = vec![7; BLOCK];
    patched[7..9].fill(9);
    for compacted in [false, true] {
        let read = async |key, lsn| {
            let content = timeline.content(Key::new(key), Lsn(lsn)).await.unwrap();
            content.map(|content| content.to_vec())
        };
        assert_eq!(read(block(1), 125).await, Some(vec![7; BLOCK]));
        assert_eq!(read(block(1), 130).await, Some(patched.clone()));
        assert_eq!(read(block(2), 140).await, Some(patched.clone()));
        assert_eq!(read(KeyKind::Databases, 140).await, None);
        if !compacted {
            timeline.flush().await.unwrap();
            compact(&timeline, SMALL).await.unwrap();
        }
    }
}
