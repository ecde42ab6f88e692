//! One bucket, and page servers that come, go and contend over it.

mod cache;
mod contention;
mod damage;
mod fence;
mod images;
mod pins;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ids::{Key, KeyKind, Lsn, TenantId, TimelineId};
use keyring::Keyring;
use store::fault::{Fault, Operation};
use store::names::Cell;
use store::{Bucket, BucketConfig, documents};
use tempfile::TempDir;

use super::Timeline;
use super::attach::{AttachError, Attachment, create};
use super::branch::BranchError;
use super::home::Home;
use super::read::ReadError;
use super::wait::WaitError;
use super::write::IngestError;
use crate::layer::cache::LayerCache;
use crate::layer::map::LayerDescription;
use crate::value::Value;

pub(crate) const TENANT: TenantId = TenantId([1; 16]);
pub(crate) const MAIN: TimelineId = TimelineId([2; 16]);
pub(crate) const BRANCH: TimelineId = TimelineId([3; 16]);

pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) home: Home,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = Home {
            bucket: Bucket::open(&BucketConfig::directory(directory.path())).unwrap(),
            keyring: Arc::new(Keyring::fixed([7; 32])),
            cell: Cell::new("c1").unwrap(),
            tenant: TENANT,
            timeline: MAIN,
            cache: LayerCache::in_memory(),
        };
        Self { directory, home }
    }

    pub(crate) async fn created() -> Self {
        let world = Self::new();
        create(&world.home, 15, None, Lsn(100)).await.unwrap();
        world
    }

    pub(crate) fn home(&self, timeline: TimelineId) -> Home {
        Home {
            timeline,
            ..self.home.clone()
        }
    }

    pub(crate) async fn attach(&self) -> Arc<Timeline> {
        self.try_attach(self.home.clone(), 0).await.unwrap()
    }

    pub(crate) async fn try_attach(
        &self,
        home: Home,
        known: u64,
    ) -> Result<Arc<Timeline>, AttachError> {
        let parent = None;
        Timeline::attach(Attachment {
            home,
            parent,
            known,
        })
        .await
    }

    /// A branch that was attached with its parent.
    pub(crate) async fn attach_branch(&self, parent: &Arc<Timeline>) -> Arc<Timeline> {
        let attachment = Attachment {
            home: self.home(BRANCH),
            parent: Some(Arc::clone(parent)),
            known: 0,
        };
        Timeline::attach(attachment).await.unwrap()
    }

    async fn numbers(&self, timeline: TimelineId) -> Vec<u64> {
        let series = self.home(timeline).manifests();
        documents::numbers(&self.home.bucket, &series)
            .await
            .unwrap()
    }

    fn manifest(&self, number: u64) -> PathBuf {
        let name = self.home.manifests().name(number);
        self.directory.path().join(name)
    }

    pub(crate) fn layer(&self, layer: &LayerDescription) -> PathBuf {
        let name = format!("{}{}", self.home.layers(), layer.name);
        self.directory.path().join(name)
    }

    /// The place of `timeline` in a bucket where `fault` is what happens to operations on names
    /// with `part`, while the switch is on.
    fn faulty(&self, fault: Fault, operation: Operation, part: &'static str) -> Faulty {
        let on = Arc::new(AtomicBool::new(false));
        let switch = Arc::clone(&on);
        let bucket = self.home.bucket.with_faults(Arc::new(move |asked, name| {
            let hit = asked == operation && name.contains(part) && switch.load(Ordering::SeqCst);
            if hit { fault } else { Fault::None }
        }));
        let home = Home {
            bucket,
            ..self.home.clone()
        };
        Faulty { home, on }
    }
}

struct Faulty {
    home: Home,
    on: Arc<AtomicBool>,
}

impl Faulty {
    fn switch(&self, on: bool) {
        self.on.store(on, Ordering::SeqCst);
    }
}

pub(crate) fn key(n: u16) -> Key {
    Key::new(KeyKind::ReplOrigin(n))
}

pub(crate) fn image(n: u8) -> Value {
    Value::Image(Bytes::from(vec![n; 3000]))
}

/// Takes in that `key` is `n` from `lsn` on.
pub(crate) fn set(timeline: &Timeline, lsn: u64, key: Key, n: u8) {
    let prev = timeline.last_record().unwrap().start;
    timeline
        .ingest(prev, Lsn(lsn - 1), Lsn(lsn), [(key, image(n))])
        .unwrap();
}

pub(crate) async fn get(timeline: &Timeline, key: Key, lsn: u64) -> Option<Value> {
    let mut values = timeline.read(key, Lsn(lsn)).await.unwrap();
    values.pop().map(|(_, value)| value)
}

pub(crate) fn layers(timeline: &Timeline) -> Vec<LayerDescription> {
    timeline.state().manifest.layers.clone()
}

#[tokio::test]
async fn attaching_is_putting_the_next_manifest() {
    let world = World::created().await;
    assert_eq!(world.numbers(MAIN).await, [1]);
    let timeline = world.attach().await;
    assert_eq!(world.numbers(MAIN).await, [2, 1]);
    assert_eq!(timeline.generation().0, 2);

    // D1: without the put there is nothing that could serve.
    let faulty = world.faulty(Fault::Lost, Operation::Put, "manifest");
    faulty.switch(true);
    let refused = world.try_attach(faulty.home.clone(), 0).await;
    assert!(matches!(refused, Err(AttachError::Put(_))));
    let absent = world.try_attach(world.home(BRANCH), 0).await;
    assert!(matches!(absent, Err(AttachError::Absent(BRANCH))));
}

#[tokio::test]
async fn a_record_that_does_not_follow_the_last_one_is_refused() {
    let world = World::created().await;
    let timeline = world.attach().await;
    timeline.ingest(Lsn(0), Lsn(104), Lsn(110), []).unwrap();
    for prev in [0, 103] {
        let gap = timeline.ingest(Lsn(prev), Lsn(110), Lsn(120), []);
        assert!(matches!(gap, Err(IngestError::Gap { last: Lsn(104), .. })));
    }
    timeline.ingest(Lsn(104), Lsn(112), Lsn(120), []).unwrap();
    let again = timeline.ingest(Lsn(112), Lsn(112), Lsn(120), []);
    assert!(matches!(again, Err(IngestError::NotNext { .. })));
    timeline.flush().await.unwrap();
    let last = world.attach().await.last_record().unwrap();
    assert_eq!((last.start, last.end), (Lsn(112), Lsn(120)));
}

#[tokio::test]
async fn who_waits_for_an_lsn_is_woken_by_it_or_by_what_makes_it_impossible() {
    let world = World::created().await;
    let timeline = world.attach().await;
    let limit = Duration::from_secs(60);
    let (waited, ()) = tokio::join!(timeline.wait_for(Lsn(110), limit), async {
        set(&timeline, 105, key(1), 1);
        tokio::task::yield_now().await;
        set(&timeline, 111, key(1), 2);
    });
    assert_eq!(waited, Ok(()));
    assert_eq!(timeline.wait_for(Lsn(100), Duration::ZERO).await, Ok(()));
    let late = timeline.wait_for(Lsn(112), Duration::from_millis(5)).await;
    let last = Lsn(111);
    assert!(matches!(late, Err(WaitError::Timeout { last: l, .. }) if l == last));
    let newer = world.attach().await;
    let (waited, flushed) = tokio::join!(timeline.wait_for(Lsn(200), limit), timeline.flush());
    assert!(matches!(waited, Err(WaitError::Stale(_))) && flushed.is_err());
    drop(newer);
}

#[tokio::test]
async fn to_create_again_is_the_same_and_to_create_something_else_is_refused() {
    let world = World::created().await;
    create(&world.home, 15, None, Lsn(100)).await.unwrap();
    assert_eq!(world.numbers(MAIN).await, [1]);
    let other = create(&world.home, 16, None, Lsn(100)).await;
    assert!(matches!(other, Err(AttachError::Exists(MAIN))));
}

#[tokio::test]
async fn a_page_server_with_an_empty_disk_reads_what_was_flushed() {
    let world = World::created().await;
    let timeline = world.attach().await;
    set(&timeline, 110, key(1), 1);
    set(&timeline, 120, key(1), 2);
    assert_eq!(timeline.flush().await.unwrap(), Lsn(120));
    set(&timeline, 130, key(2), 3);
    assert_eq!(timeline.flush().await.unwrap(), Lsn(130));
    set(&timeline, 140, key(1), 9);
    assert_eq!(get(&timeline, key(1), 140).await, Some(image(9)));
    drop(timeline);

    let timeline = world.attach().await;
    assert_eq!(timeline.remote_consistent_lsn(), Ok(Lsn(130)));
    for (k, lsn, n) in [
        (1, 110, 1),
        (1, 119, 1),
        (1, 120, 2),
        (1, 130, 2),
        (2, 130, 3),
    ] {
        assert_eq!(get(&timeline, key(k), lsn).await, Some(image(n)), "{lsn}");
    }
    assert_eq!(get(&timeline, key(2), 129).await, None);
    // What was not flushed comes from the safekeepers again; until then it is not made up.
    let ahead = timeline.read(key(1), Lsn(140)).await;
    assert!(matches!(
        ahead,
        Err(ReadError::Ahead { last: Lsn(130), .. })
    ));
    assert!(timeline.ingest(Lsn(129), Lsn(120), Lsn(130), []).is_err());
    set(&timeline, 140, key(1), 9);
    assert_eq!(get(&timeline, key(1), 140).await, Some(image(9)));
}

#[tokio::test]
async fn only_an_accepted_manifest_moves_the_remote_consistent_lsn() {
    let cases = [
        (Fault::Lost, Operation::Put, "layers/"),
        (Fault::Lost, Operation::Put, "manifest"),
        // The put arrives, and whether something higher is there is not known.
        (Fault::Lost, Operation::List, "timelines"),
    ];
    for (fault, operation, part) in cases {
        let world = World::created().await;
        let faulty = world.faulty(fault, operation, part);
        let timeline = world.try_attach(faulty.home.clone(), 0).await.unwrap();
        set(&timeline, 110, key(1), 1);
        faulty.switch(true);
        assert!(timeline.flush().await.is_err(), "{operation:?} {part}");
        assert_eq!(timeline.remote_consistent_lsn(), Ok(Lsn(100)), "D2");
        set(&timeline, 120, key(1), 2);
        assert_eq!(get(&timeline, key(1), 110).await, Some(image(1)));
        faulty.switch(false);
        // The manifest that nobody had heard the end of is put again, and meets itself.
        assert_eq!(timeline.flush().await.unwrap(), Lsn(120));
        assert_eq!(get(&timeline, key(1), 119).await, Some(image(1)));
        let timeline = world.attach().await;
        assert_eq!(get(&timeline, key(1), 119).await, Some(image(1)));
        assert_eq!(get(&timeline, key(1), 120).await, Some(image(2)));
    }
}

#[tokio::test]
async fn a_branch_exists_once_its_pin_is_accepted_and_sees_its_parent_as_of_then() {
    let world = World::created().await;
    let faulty = world.faulty(Fault::Lost, Operation::Put, "manifest");
    let parent = world.try_attach(faulty.home.clone(), 0).await.unwrap();
    set(&parent, 110, key(1), 1);
    set(&parent, 120, key(1), 2);
    parent.flush().await.unwrap();
    set(&parent, 130, key(1), 3);
    faulty.switch(true);
    assert!(parent.branch(BRANCH, Lsn(115)).await.is_err());
    assert!(world.numbers(BRANCH).await.is_empty(), "D6");
    faulty.switch(false);
    parent.branch(BRANCH, Lsn(115)).await.unwrap();
    parent.branch(BRANCH, Lsn(115)).await.unwrap();
    let pins = parent.state().manifest.pins.clone();
    assert_eq!(pins.len(), 1);
    assert_eq!(pins[0].lsn, Lsn(115));
    for (lsn, reason) in [(99_999, "ahead"), (0, "before")] {
        let refused = parent.branch(TimelineId([4; 16]), Lsn(lsn)).await;
        assert!(
            matches!(refused, Err(BranchError::OutOfReach { .. })),
            "{reason}"
        );
    }
    let other = parent.branch(BRANCH, Lsn(120)).await;
    assert!(matches!(other, Err(BranchError::OtherPoint { .. })));

    let orphan = world.try_attach(world.home(BRANCH), 0).await;
    assert!(matches!(orphan, Err(AttachError::OtherParent { .. })));
    // After a restart of everything.
    let parent = world.attach().await;
    let branch = Timeline::attach(Attachment {
        home: world.home(BRANCH),
        parent: Some(Arc::clone(&parent)),
        known: 0,
    });
    let branch = branch.await.unwrap();
    assert_eq!(get(&branch, key(1), 109).await, None);
    set(&branch, 140, key(2), 9);
    branch.flush().await.unwrap();
    assert_eq!(get(&branch, key(1), 140).await, Some(image(1)));
    assert_eq!(get(&branch, key(2), 140).await, Some(image(9)));
    assert_eq!(get(&parent, key(1), 120).await, Some(image(2)));
    assert_eq!(get(&parent, key(2), 120).await, None);
}

#[tokio::test]
async fn a_branch_point_that_is_only_in_memory_is_flushed_first() {
    let world = World::created().await;
    let parent = world.attach().await;
    set(&parent, 110, key(1), 1);
    parent.branch(BRANCH, Lsn(105)).await.unwrap();
    assert!(parent.remote_consistent_lsn().unwrap() >= Lsn(105));
}

#[tokio::test]
async fn a_content_is_rebuilt_from_what_several_layers_hold() {
    let world = World::created().await;
    let timeline = world.attach().await;
    let page = key(1);
    let patch = |n: u8| Value::Patch {
        offset: 10,
        bytes: Bytes::from(vec![n; 4]),
    };
    for (lsn, value) in [(110, Value::Zeros), (120, patch(5)), (130, patch(6))] {
        let prev = timeline.last_record().unwrap().start;
        let taken = timeline.ingest(prev, Lsn(lsn - 1), Lsn(lsn), [(page, value)]);
        taken.unwrap();
        timeline.flush().await.unwrap();
    }
    let timeline = world.attach().await;
    for (lsn, expected) in [(110, 0), (120, 5), (130, 6)] {
        let content = timeline.content(page, Lsn(lsn)).await.unwrap().unwrap();
        assert_eq!(content.len(), 8192);
        assert_eq!(
            content[9..15],
            [0, expected, expected, expected, expected, 0]
        );
    }
    assert_eq!(timeline.content(key(2), Lsn(130)).await.unwrap(), None);
}
