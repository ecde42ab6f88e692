//! What piles up, and what is there twice: images whose manifest nobody heard the end of, and old
//! manifests.

use std::collections::BTreeSet;

use super::*;
use crate::compact::{CompactConfig, Images, compact};
use crate::layer::map::LayerKind;

const SMALL: CompactConfig = CompactConfig {
    deltas: 1,
    deltas_max: 1,
    image_bytes: 20_000,
};

fn images(timeline: &Timeline) -> Vec<LayerDescription> {
    let mut images = layers(timeline);
    images.retain(|layer| layer.kind == LayerKind::Image);
    images
}

#[tokio::test]
async fn images_are_there_once_though_nobody_heard_of_their_put() {
    let world = World::created().await;
    let faulty = world.faulty(Fault::Lost, Operation::Put, "manifest");
    let timeline = world.try_attach(faulty.home.clone(), 0).await.unwrap();
    for n in 0..30 {
        set(&timeline, 110 + u64::from(n), key(n), n as u8);
    }
    timeline.flush().await.unwrap();
    faulty.switch(true);
    assert!(compact(&timeline, SMALL).await.is_err());
    faulty.switch(false);
    compact(&timeline, SMALL).await.unwrap();
    let there = images(&timeline);
    for pair in there.windows(2) {
        assert!(pair[0].last_key < pair[1].first_key, "{pair:?}");
    }
    let folder = world.directory.path().join(world.home.layers());
    let objects = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(objects, layers(&timeline).len(), "nothing is left over");

    set(&timeline, 200, key(3), 99);
    timeline.flush().await.unwrap();
    compact(&timeline, SMALL).await.unwrap();
    assert_eq!(get(&timeline, key(3), 200).await, Some(image(99)));
    assert_eq!(get(&timeline, key(4), 200).await, Some(image(4)));
}

#[tokio::test]
async fn old_manifests_go_and_the_newest_never() {
    let world = World::created().await;
    let timeline = world.attach().await;
    for n in 1..=200 {
        set(&timeline, 110 + n, key(1), n as u8);
        timeline.flush().await.unwrap();
    }
    let numbers = world.numbers(MAIN).await;
    assert_eq!(numbers[0], 202);
    assert!(numbers.len() < 128 + 32, "{} manifests stay", numbers.len());
    let timeline = world.attach().await;
    assert_eq!(get(&timeline, key(1), 310).await, Some(image(200)));
}

#[tokio::test]
async fn images_that_later_ones_supersede_go_and_every_lsn_reads_as_before() {
    let world = World::created().await;
    let timeline = world.attach().await;
    let at = |n: u8| 100 + 10 * u64::from(n);
    for n in 1..=9 {
        set(&timeline, at(n), key(n.into()), n);
        timeline.flush().await.unwrap();
        compact(&timeline, SMALL).await.unwrap();
        if n == 2 {
            timeline.branch(BRANCH, Lsn(at(2))).await.unwrap();
        }
    }
    let lsns = |timeline| -> Vec<u64> {
        let mut lsns: Vec<u64> = images(timeline).iter().map(|i| i.first_lsn.0).collect();
        lsns.dedup();
        lsns
    };
    // D6: what the branch reads stays.
    assert_eq!(lsns(&timeline), [at(2), at(6), at(7), at(8), at(9)]);
    let timeline = world.attach().await;
    for lsn in 1..=9 {
        for n in 1..=9 {
            let expected = (n <= lsn).then(|| image(n));
            assert_eq!(
                get(&timeline, key(n.into()), at(lsn)).await,
                expected,
                "{n} at {lsn}"
            );
        }
    }
    let branch = world.attach_branch(&timeline).await;
    assert_eq!(get(&branch, key(2), at(2)).await, Some(image(2)));
    let folder = world.directory.path().join(world.home.layers());
    assert_eq!(
        std::fs::read_dir(folder).unwrap().count(),
        layers(&timeline).len()
    );
}

#[tokio::test]
async fn images_that_a_timeline_began_with_stay_as_no_delta_holds_what_they_do() {
    let world = World::created().await;
    let timeline = world.attach().await;
    let start = Lsn(110);
    let mut begun_with = Images::new(&timeline, start, 20_000);
    let added = begun_with.put_value(key(0), image(77)).await;
    let begun_with = begun_with.finish_or_delete(added).await.unwrap();
    timeline
        .begin_with(begun_with, Lsn(100), start)
        .await
        .unwrap();
    timeline.ingest(Lsn(0), Lsn(100), start, []).unwrap();
    for n in 1..=9 {
        set(&timeline, 110 + 10 * u64::from(n), key(n.into()), n);
        timeline.flush().await.unwrap();
        compact(&timeline, SMALL).await.unwrap();
    }
    let timeline = world.attach().await;
    for lsn in (110..=200).step_by(10) {
        assert_eq!(get(&timeline, key(0), lsn).await, Some(image(77)), "{lsn}");
    }
    let lsns: BTreeSet<u64> = images(&timeline).iter().map(|i| i.first_lsn.0).collect();
    assert_eq!(lsns, [110, 170, 180, 190, 200].into());
}
