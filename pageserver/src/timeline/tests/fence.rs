//! The end of a lease takes everything with it that was readable (K5, K6).

use std::time::Duration;

use api::Grade;
use api::keys::RevokeReason;
use ids::Lsn;
use keyring::KeyError;

use super::{TENANT, World, get, image, key, set};
use crate::timeline::attach::AttachError;
use crate::timeline::home::ManifestReadError;
use crate::timeline::read::ReadError;
use crate::timeline::wait::WaitError;
use crate::timeline::write::{IngestError, WriteError};
use crate::timeline::{Closed, Timeline};

const DISABLED: RevokeReason = RevokeReason::Disabled;

fn is_empty(world: &World, timeline: &Timeline) -> bool {
    timeline.memory_bytes() == 0
        && super::super::lock(&timeline.open_layers).is_empty()
        && world.home.cache.block_bytes() == 0
}

#[tokio::test]
async fn a_fence_drops_what_was_readable_and_the_timeline_is_attached_anew() {
    let world = World::created().await;
    let timeline = world.attach().await;
    set(&timeline, 110, key(1), 1);
    timeline.flush().await.unwrap();
    assert_eq!(get(&timeline, key(1), 110).await, Some(image(1)));
    set(&timeline, 120, key(2), 2);
    assert!(!is_empty(&world, &timeline) && world.home.cache.block_bytes() > 0);
    let waits = timeline.wait_for(Lsn(200), Duration::from_secs(60));
    let fence = world.home.keyring.fence(TENANT, DISABLED);
    let (waited, closed, ()) = tokio::join!(waits, timeline.closed(), fence);
    let reason = DISABLED;
    let revoked = KeyError::Revoked {
        tenant: TENANT,
        reason,
    };
    assert_eq!(waited, Err(WaitError::Key(revoked.clone())));
    assert_eq!(closed, Closed::Fenced(revoked.clone()));
    assert!(is_empty(&world, &timeline), "K6");

    for (k, lsn) in [(1, 110), (2, 120)] {
        let read = timeline.read(key(k), Lsn(lsn)).await.unwrap_err();
        assert_eq!(read.grade(), Grade::KeyUnavailable);
        assert!(
            matches!(&read, ReadError::Key(e) if *e == revoked),
            "K5: {read}"
        );
    }
    let flushed = timeline.flush().await;
    assert!(matches!(flushed, Err(WriteError::Key(_))));
    assert!(timeline.remote_consistent_lsn().is_err());
    let attached = world.try_attach(world.home.clone(), 0).await;
    assert!(matches!(
        attached,
        Err(AttachError::Key(_) | AttachError::Read(ManifestReadError::Key(_)))
    ));

    world.home.keyring.lift(TENANT);
    // For good: what it held is gone, and what it would say of its end is not true any more.
    assert!(timeline.read(key(1), Lsn(110)).await.is_err());
    let taken = timeline.ingest(Lsn(119), Lsn(120), Lsn(130), []);
    assert!(matches!(taken, Err(IngestError::Key(_))));
    let healed = world.attach().await;
    assert_eq!(healed.last_lsn(), Ok(Lsn(110)));
    set(&healed, 120, key(2), 2);
    assert_eq!(healed.flush().await.unwrap(), Lsn(120));
    assert_eq!(get(&healed, key(1), 120).await, Some(image(1)));
    assert_eq!(get(&healed, key(2), 120).await, Some(image(2)));
}

#[tokio::test]
async fn a_read_that_was_begun_before_a_fence_leaves_nothing_behind() {
    let world = World::created().await;
    let timeline = world.attach().await;
    set(&timeline, 110, key(1), 1);
    timeline.flush().await.unwrap();
    let fence = async {
        tokio::task::yield_now().await;
        world.home.keyring.fence(TENANT, DISABLED).await;
    };
    let (read, ()) = tokio::join!(timeline.read(key(1), Lsn(110)), fence);
    timeline.closed().await;
    if let Err(error) = read {
        assert!(matches!(error, ReadError::Key(_)), "{error}");
    }
    assert!(is_empty(&world, &timeline), "K6");
}
