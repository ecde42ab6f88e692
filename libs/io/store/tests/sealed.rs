//! Objects go into the bucket sealed and come back only under their own name, with their keys.
#![allow(missing_docs, clippy::unwrap_used)]

use api::keys::RevokeReason;
use ids::{FileId, Generation, TenantId, TimelineId};
use keyring::Keyring;
use sealed::ObjectKind;
use sealed::object::{Expected, ObjectSpec};
use store::{Bucket, BucketConfig, SealedGetError, SealedPutError, SealedStore};

const TENANT: TenantId = TenantId([1; 16]);
const TIMELINE: TimelineId = TimelineId([2; 16]);

fn spec(name: &str) -> ObjectSpec {
    ObjectSpec {
        kind: ObjectKind::DeltaLayer,
        tenant: TENANT,
        timeline: TIMELINE,
        generation: Generation(1),
        name: name.to_owned(),
        aux: 0,
        created_unix: 0,
        file_id: FileId([3; 16]),
    }
}

fn expected(name: &str) -> Expected {
    Expected {
        kind: ObjectKind::DeltaLayer,
        tenant: TENANT,
        timeline: TIMELINE,
        name: name.to_owned(),
    }
}

#[tokio::test]
async fn sealed_objects_come_back_whole_and_in_ranges_until_the_fence() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Bucket::open(&BucketConfig::directory(directory.path())).unwrap();
    let ring = Keyring::fixed([9; 32]);
    let store = SealedStore::new(bucket.clone(), ring.tenant(TENANT).await.unwrap());
    let plaintext: Vec<u8> = (0..50_000_u32).map(|n| (n / 7) as u8).collect();
    store.put(&spec("t/a"), &plaintext).await.unwrap();

    assert_eq!(store.get(&expected("t/a")).await.unwrap(), plaintext);
    let object = store.open(&expected("t/a")).await.unwrap();
    assert_eq!(object.plaintext_len(), 50_000);
    assert_eq!(
        object.read(8000..30_000).await.unwrap(),
        plaintext[8000..30_000]
    );
    assert_eq!(object.read(7..7).await.unwrap(), "");
    assert!(object.read(40_000..50_001).await.is_err());

    // The same bytes under another name are another object.
    bucket
        .put_if_absent("t/b", bucket.get("t/a").await.unwrap())
        .await
        .unwrap();
    let moved = store.get(&expected("t/b")).await;
    assert!(matches!(moved, Err(SealedGetError::Damaged { .. })));
    bucket.put_if_absent("t/c", "short".into()).await.unwrap();
    assert!(matches!(
        store.open(&expected("t/c")).await,
        Err(SealedGetError::Damaged { .. })
    ));
    let mut other = spec("t/d");
    other.tenant = TenantId([8; 16]);
    assert!(matches!(
        store.put(&other, b"x").await,
        Err(SealedPutError::OtherTenant)
    ));

    ring.fence(TENANT, RevokeReason::Disabled).await;
    assert!(matches!(
        store.get(&expected("t/a")).await,
        Err(SealedGetError::Key(_))
    ));
    assert!(matches!(
        object.read(0..10).await,
        Err(SealedGetError::Key(_))
    ));
    assert!(matches!(
        store.put(&spec("t/e"), b"x").await,
        Err(SealedPutError::Key(_))
    ));
    assert!(
        bucket.get("t/e").await.is_err(),
        "nothing is written after a fence"
    );
}
