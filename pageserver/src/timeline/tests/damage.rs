//! Whoever can write to the bucket can make reads fail, and not make them wrong.

use std::fs;

use ids::Lsn;
use sealed::object::OpenError;
use store::{GetError, SealedGetError};

use super::{MAIN, World, key, layers, set};
use crate::layer::map::LayerDescription;
use crate::layer::sealed_file::SealedLayerError;
use crate::timeline::attach::AttachError;
use crate::timeline::home::ManifestReadError;
use crate::timeline::read::ReadError;
use crate::value::Value;

/// Two layers flushed; what `damage` does to the first is met by a fresh attachment.
async fn read_after(
    damage: impl FnOnce(&World, &[LayerDescription]),
) -> (Result<Vec<(Lsn, Value)>, ReadError>, String) {
    let world = World::created().await;
    let timeline = world.attach().await;
    set(&timeline, 110, key(1), 1);
    timeline.flush().await.unwrap();
    set(&timeline, 120, key(2), 2);
    timeline.flush().await.unwrap();
    let named = layers(&timeline);
    damage(&world, &named);
    let timeline = world.attach().await;
    assert_eq!(timeline.last_lsn(), Ok(Lsn(120)));
    let name = format!("{}{}", world.home.layers(), named[0].name);
    (timeline.read(key(1), Lsn(120)).await, name)
}

#[tokio::test]
async fn a_missing_layer_is_named() {
    let (read, name) = read_after(|world, named| {
        fs::remove_file(world.layer(&named[0])).unwrap();
    })
    .await;
    let error = read.unwrap_err();
    assert!(error.to_string().contains(&name), "{error}");
    let ReadError::Layer { source, .. } = error else {
        panic!("{error}");
    };
    let SealedLayerError::Sealed { source, .. } = source else {
        panic!("{source}");
    };
    assert!(matches!(source, SealedGetError::Get(GetError::NotFound(_))));
}

#[tokio::test]
async fn a_flipped_byte_anywhere_in_a_layer_is_named() {
    // In the magic, a wrapped key, the commitment, the content.
    for at in [0, 150, 505, 600, 3000] {
        let (read, name) = read_after(|world, named| {
            let mut bytes = fs::read(world.layer(&named[0])).unwrap();
            bytes[at] ^= 1;
            fs::write(world.layer(&named[0]), bytes).unwrap();
        })
        .await;
        let error = read.expect_err("a flipped byte is an error");
        assert!(matches!(error, ReadError::Layer { .. }), "{at}: {error}");
        assert!(error.to_string().contains(&name), "{at}: {error}");
    }
}

#[tokio::test]
async fn a_layer_swapped_with_another_is_named() {
    let (read, name) = read_after(|world, named| {
        fs::copy(world.layer(&named[1]), world.layer(&named[0])).unwrap();
    })
    .await;
    let error = read.unwrap_err();
    assert!(error.to_string().contains(&name), "{error}");
    assert!(error.to_string().contains("its name differs"), "{error}");
}

#[tokio::test]
async fn an_older_manifest_under_the_newest_name_is_refused_by_name() {
    let world = World::created().await;
    let timeline = world.attach().await;
    set(&timeline, 110, key(1), 1);
    timeline.flush().await.unwrap();
    fs::copy(world.manifest(2), world.manifest(3)).unwrap();
    let refused = world.try_attach(world.home.clone(), 0).await.err().unwrap();
    let name = world.home.manifests().name(3);
    assert!(refused.to_string().contains(&name), "{refused}");
    let AttachError::Read(ManifestReadError::Sealed { source, .. }) = refused else {
        panic!("{refused}");
    };
    let damaged = matches!(
        source,
        SealedGetError::Damaged {
            source: OpenError::Other("name"),
            ..
        }
    );
    assert!(damaged, "{source}");
}

#[tokio::test]
async fn a_bucket_set_back_to_an_older_manifest_is_refused_by_who_knows_better() {
    let world = World::created().await;
    let timeline = world.attach().await;
    set(&timeline, 110, key(1), 1);
    timeline.flush().await.unwrap();
    fs::remove_file(world.manifest(3)).unwrap();
    let refused = world.try_attach(world.home.clone(), 3).await;
    assert!(matches!(
        refused,
        Err(AttachError::RolledBack { known: 3, .. })
    ));
    assert_eq!(world.numbers(MAIN).await, [2, 1]);
}
