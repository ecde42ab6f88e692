//! Several page servers that have attached the same timeline (D1, D2).

use ids::Lsn;

use super::{BRANCH, World, get, image, key, layers, set};
use crate::timeline::branch::BranchError;
use crate::timeline::read::ReadError;
use crate::timeline::write::WriteError;

#[tokio::test]
async fn the_older_of_two_attached_stops_serving_deleting_and_reporting() {
    let world = World::created().await;
    let old = world.attach().await;
    set(&old, 110, key(1), 1);
    old.flush().await.unwrap();
    set(&old, 120, key(1), 2);
    let new = world.attach().await;
    assert!(old.generation() < new.generation());

    let lost = old.flush().await;
    assert!(matches!(lost, Err(WriteError::Stale(_))), "{lost:?}");
    let read = old.read(key(1), Lsn(110)).await;
    assert!(matches!(read, Err(ReadError::Stale(_))));
    assert!(old.remote_consistent_lsn().is_err());
    assert!(old.last_lsn().is_err());
    assert!(old.ingest(Lsn(119), Lsn(120), Lsn(130), []).is_err());
    let named = layers(&new);
    let retired = old.retire(&named).await;
    assert!(matches!(retired, Err(WriteError::Stale(_))));
    let branched = old.branch(BRANCH, Lsn(110)).await;
    assert!(matches!(branched, Err(BranchError::Stale(_))));

    assert_eq!(new.remote_consistent_lsn(), Ok(Lsn(110)));
    assert_eq!(get(&new, key(1), 110).await, Some(image(1)));
    set(&new, 120, key(1), 7);
    assert_eq!(new.flush().await.unwrap(), Lsn(120));
    assert_eq!(get(&new, key(1), 120).await, Some(image(7)));
}

#[tokio::test]
async fn a_deletion_that_loses_its_put_deletes_nothing() {
    let world = World::created().await;
    let old = world.attach().await;
    set(&old, 110, key(1), 1);
    old.flush().await.unwrap();
    let new = world.attach().await;
    let named = layers(&old);
    assert!(matches!(
        old.retire(&named).await,
        Err(WriteError::Stale(_))
    ));
    assert!(world.layer(&named[0]).exists(), "D2");
    assert_eq!(get(&new, key(1), 110).await, Some(image(1)));
    new.retire(&named).await.unwrap();
    assert!(!world.layer(&named[0]).exists());
    assert_eq!(get(&new, key(1), 110).await, None);
}

#[tokio::test]
async fn an_older_attachment_that_misses_a_layer_finds_out_why() {
    let world = World::created().await;
    let old = world.attach().await;
    set(&old, 110, key(1), 1);
    old.flush().await.unwrap();
    let new = world.attach().await;
    new.retire(&layers(&new)).await.unwrap();
    let read = old.read(key(1), Lsn(110)).await;
    assert!(matches!(read, Err(ReadError::Stale(_))), "{read:?}");
}

#[tokio::test]
async fn of_attachments_at_the_same_time_each_has_a_generation_and_one_writes() {
    let world = World::created().await;
    let (a, b, c) = tokio::join!(world.attach(), world.attach(), world.attach());
    let mut all = [a, b, c];
    all.sort_by_key(|timeline| timeline.generation());
    assert!(all[0].generation() < all[1].generation());
    assert!(all[1].generation() < all[2].generation());
    let mut accepted = 0;
    for timeline in &all {
        set(timeline, 110, key(1), 1);
        accepted += usize::from(timeline.flush().await.is_ok());
    }
    assert_eq!(accepted, 1);
    assert!(all[2].serving().is_ok());
}
