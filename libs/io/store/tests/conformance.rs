//! What every bucket has to do, on the local file system, and what happens when answers get lost.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use store::documents::{self, PutNextError, Series};
use store::fault::{Fault, Faults, Operation};
use store::{Bucket, BucketConfig, GetError, ProbeError, PutError};

fn local() -> (tempfile::TempDir, Bucket) {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Bucket::open(&BucketConfig::directory(directory.path())).unwrap();
    (directory, bucket)
}

/// The first operation of this kind fails so; everything else works.
fn once(operation: Operation, fault: Fault) -> Faults {
    let seen = AtomicUsize::new(0);
    Arc::new(move |asked, _| {
        let hit = asked == operation && seen.fetch_add(1, Ordering::Relaxed) == 0;
        if hit { fault } else { Fault::None }
    })
}

fn series() -> Series {
    Series::new("cells/a/t".to_owned(), "catalog", "")
}

#[tokio::test]
async fn objects_are_put_read_listed_and_deleted() {
    let (_directory, bucket) = local();
    bucket
        .put_if_absent("a/b/two", "0123456789".into())
        .await
        .unwrap();
    bucket.put_if_absent("a/one", Bytes::new()).await.unwrap();
    assert_eq!(bucket.get("a/b/two").await.unwrap(), "0123456789");
    assert_eq!(bucket.get_range("a/b/two", 3..5).await.unwrap(), "34");
    assert_eq!(bucket.get_range("a/b/two", 3..3).await.unwrap(), "");
    assert!(bucket.get_range("a/b/two", 8..12).await.is_err());
    assert_eq!(bucket.head("a/b/two").await.unwrap(), 10);
    let names = |found: Vec<store::Object>| found.into_iter().map(|o| o.name).collect::<Vec<_>>();
    assert_eq!(names(bucket.list("a").await.unwrap()), ["a/b/two", "a/one"]);
    assert_eq!(names(bucket.list_directory("a").await.unwrap()), ["a/one"]);
    assert!(bucket.list("nowhere").await.unwrap().is_empty());
    bucket.delete("a/one").await.unwrap();
    bucket.delete("a/one").await.unwrap();
    assert!(matches!(
        bucket.get("a/one").await,
        Err(GetError::NotFound(_))
    ));
    assert!(matches!(
        bucket.head("a/one").await,
        Err(GetError::NotFound(_))
    ));
}

#[tokio::test]
async fn the_first_put_wins_and_meets_itself() {
    let (_directory, bucket) = local();
    bucket.put_if_absent("a", "mine".into()).await.unwrap();
    bucket.put_if_absent("a", "mine".into()).await.unwrap();
    let refused = bucket.put_if_absent("a", "other".into()).await;
    assert!(matches!(
        refused,
        Err(PutError::NotApplied { exists: true, .. })
    ));
    assert_eq!(bucket.get("a").await.unwrap(), "mine");
}

#[tokio::test]
async fn a_lost_answer_is_settled_by_reading_back() {
    let (_directory, bucket) = local();
    let lost_answer = bucket.with_faults(once(Operation::Put, Fault::AnswerLost));
    lost_answer.put_if_absent("a", "mine".into()).await.unwrap();

    let lost_answer = bucket.with_faults(once(Operation::Put, Fault::AnswerLost));
    let refused = lost_answer.put_if_absent("a", "late".into()).await;
    assert!(matches!(
        refused,
        Err(PutError::NotApplied { exists: true, .. })
    ));

    let lost = bucket.with_faults(once(Operation::Put, Fault::Lost));
    let unknown = lost.put_if_absent("b", "mine".into()).await;
    assert!(matches!(unknown, Err(PutError::Unknown { .. })));

    let dark: Faults = Arc::new(|operation, _| match operation {
        Operation::Put => Fault::AnswerLost,
        _ => Fault::Lost,
    });
    let unknown = bucket
        .with_faults(dark)
        .put_if_absent("c", "mine".into())
        .await;
    assert!(matches!(unknown, Err(PutError::Unknown { .. })));
    bucket.put_if_absent("c", "mine".into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_passes_here_and_refuses_what_ignores_conditions() {
    let (directory, bucket) = local();
    bucket.probe().await.unwrap();
    assert!(bucket.list("probe").await.unwrap().is_empty());
    assert!(directory.path().exists());

    let careless = bucket.with_faults(Arc::new(|operation, _| match operation {
        Operation::Put => Fault::ConditionIgnored,
        _ => Fault::None,
    }));
    let refused = careless.probe().await;
    assert!(
        matches!(refused, Err(ProbeError::NotConditional { winners: 16 })),
        "{refused:?}"
    );
    let gone = bucket
        .with_faults(once(Operation::Put, Fault::Lost))
        .probe()
        .await;
    assert!(matches!(gone, Err(ProbeError::Unavailable(_))));
}

#[tokio::test]
async fn documents_go_up_and_one_writer_wins_each_number() {
    let (_directory, bucket) = local();
    let series = series();
    assert!(documents::latest(&bucket, &series).await.unwrap().is_none());
    for n in 1..=3 {
        documents::put_next(&bucket, &series, n, format!("v{n}").into())
            .await
            .unwrap();
    }
    // A neighbour with a similar name, and things below the directory, are not ours.
    bucket
        .put_if_absent("cells/a/t/catalog-x", "x".into())
        .await
        .unwrap();
    bucket
        .put_if_absent("cells/a/t/catalog2-0000000000000000", "x".into())
        .await
        .unwrap();
    let (newest, bytes) = documents::latest(&bucket, &series).await.unwrap().unwrap();
    assert_eq!((newest, &bytes[..]), (3, &b"v3"[..]));

    let lost = documents::put_next(&bucket, &series, 2, "other".into()).await;
    assert!(matches!(lost, Err(PutNextError::Lost { newest: 3 })));
    let again = documents::put_next(&bucket, &series, 3, "v3".into()).await;
    assert!(again.is_ok(), "a retried put meets itself");
}

#[tokio::test]
async fn a_stale_writer_that_finds_a_pruned_number_removes_its_own() {
    let (_directory, bucket) = local();
    let series = series();
    for n in 1..=4 {
        documents::put_next(&bucket, &series, n, format!("v{n}").into())
            .await
            .unwrap();
    }
    assert_eq!(documents::prune(&bucket, &series, 3, 1).await.unwrap(), 2);
    let lost = documents::put_next(&bucket, &series, 2, "stale".into()).await;
    assert!(matches!(lost, Err(PutNextError::Lost { newest: 4 })));
    assert_eq!(documents::numbers(&bucket, &series).await.unwrap(), [4, 3]);
    assert_eq!(
        documents::prune(&bucket, &series, u64::MAX, 0)
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        documents::numbers(&bucket, &series).await.unwrap(),
        [4],
        "never the highest"
    );
}

#[test]
fn urls_that_are_no_bucket_are_refused() {
    for url in ["", "file://relative", "s3://", "s3://a/b", "/tmp"] {
        let mut config = BucketConfig::directory(std::path::Path::new("/"));
        config.url = url.to_owned();
        assert!(Bucket::open(&config).is_err(), "{url}");
    }
}
