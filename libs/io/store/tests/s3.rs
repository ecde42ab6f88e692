//! The same rules on an S3 server: `REDOUBT_TEST_S3=http://127.0.0.1:port`, with a bucket `test`.
#![allow(missing_docs, clippy::unwrap_used)]

use store::documents::{self, Series};
use store::{Bucket, BucketConfig, GetError, PutError};

fn server() -> Bucket {
    service::init();
    let config = BucketConfig {
        url: "s3://test".to_owned(),
        endpoint: Some(std::env::var("REDOUBT_TEST_S3").unwrap()),
        region: Some("us-east-1".to_owned()),
        access_key: Some("test".to_owned()),
        secret_key: Some("test".to_owned()),
    };
    Bucket::open(&config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an S3 server, named by REDOUBT_TEST_S3"]
async fn an_s3_server_keeps_the_rules_too() {
    let bucket = server();
    bucket.probe().await.unwrap();
    assert!(bucket.list("probe").await.unwrap().is_empty());

    let run = format!("run-{}", service::clock::boottime().as_nanos());
    let name = format!("{run}/deep/a");
    bucket
        .put_if_absent(&name, "0123456789".into())
        .await
        .unwrap();
    bucket
        .put_if_absent(&name, "0123456789".into())
        .await
        .unwrap();
    let refused = bucket.put_if_absent(&name, "other".into()).await;
    assert!(matches!(
        refused,
        Err(PutError::NotApplied { exists: true, .. })
    ));
    assert_eq!(bucket.get_range(&name, 2..4).await.unwrap(), "23");
    assert!(bucket.get_range(&name, 8..12).await.is_err());
    assert_eq!(bucket.head(&name).await.unwrap(), 10);

    let series = Series::new(run.clone(), "catalog", "");
    for n in 1..=3 {
        documents::put_next(&bucket, &series, n, format!("v{n}").into())
            .await
            .unwrap();
    }
    assert_eq!(
        documents::numbers(&bucket, &series).await.unwrap(),
        [3, 2, 1]
    );
    assert_eq!(
        documents::latest(&bucket, &series)
            .await
            .unwrap()
            .unwrap()
            .1,
        "v3"
    );

    for object in bucket.list(&run).await.unwrap() {
        bucket.delete(&object.name).await.unwrap();
        bucket.delete(&object.name).await.unwrap();
        assert!(matches!(
            bucket.get(&object.name).await,
            Err(GetError::NotFound(_))
        ));
    }
    assert!(bucket.list(&run).await.unwrap().is_empty());
}
