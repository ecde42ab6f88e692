//! The page server as a process: everything through its two listeners.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test may; its helper modules are no test functions"
)]

mod world;

use std::sync::atomic::Ordering;
use std::time::Duration;

use api::Grade;
use api::keys::RevokeReason;
use api::timeline::{
    BACKUP_MEMBER, Backup, LsnAtTime, PageserverStatus, TimeRelation, timeline_path, timelines_path,
};
use ids::{Fork, Lsn, RelTag, TimelineId};
use pg::wire::pagestream::{Answer, Ask};
use service::libpq::WireError;
use service::libpq::client::Client;
use world::postgres::{self, directory, initdb, sh};
use world::safekeeper::Safekeeper;
use world::{BRANCH, MAIN, TENANT, World};

/// `pg_class` of `template1`.
const RELATION: RelTag = RelTag {
    spc: 1663,
    db: 1,
    rel: 1259,
    fork: Fork::Main,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_is_imported_read_branched_and_read_again_from_the_bucket_alone() {
    let directory = directory();
    let data = initdb(directory.path());
    let world = World::start(directory.path(), "first").await;
    let imported = world.import(&data).await;
    assert_eq!(
        (imported.pg_major, imported.wal_segment_bytes),
        (15, 16 << 20)
    );
    // To import the same again changes nothing.
    assert_eq!(world.import(&data).await, imported);
    let compared = world.pages(MAIN).await.compare(&data).await;
    assert!(compared > 1000, "only {compared} pages");

    let backup = world
        .backup(&format!("fullbackup {TENANT} {MAIN}"))
        .await
        .unwrap();
    let described: Backup = serde_json::from_slice(&backup[BACKUP_MEMBER]).unwrap();
    assert_eq!(
        (described.lsn, described.system_id),
        (imported.start_lsn, imported.system_id)
    );
    for (path, bytes) in postgres::relation_files(&data) {
        // Free space maps are made of the pages.
        if path.ends_with("_fsm") {
            continue;
        }
        assert!(
            backup.get(&path).map(Vec::as_slice) == Some(&bytes[..]),
            "{path} is not in the backup as it is"
        );
    }
    let skeleton = world
        .backup(&format!("basebackup {TENANT} {MAIN}"))
        .await
        .unwrap();
    assert!(skeleton.contains_key("global/pg_control") && !skeleton.contains_key("base/1/1259"));

    let made = world.branch(BRANCH, None).await;
    assert_eq!(made.start_lsn, imported.start_lsn);
    assert_eq!(world.pages(BRANCH).await.compare(&data).await, compared);
    let before = world.status(MAIN).await.unwrap().generation;
    world.stop().await;

    // What was attached is attached again by itself, under the next generation.
    let world = World::start(directory.path(), "first").await;
    let again = until_up(&world, MAIN).await;
    assert!(again.generation > before);
    until_up(&world, BRANCH).await;
    world.stop().await;

    // A node that knows nothing: the bucket is enough. The parent comes with the branch.
    let world = World::start(directory.path(), "second").await;
    let unknown = world.status(BRANCH).await.unwrap_err();
    assert_eq!(unknown.grade(), Grade::RetryElsewhere);
    world.attach(BRANCH, &[]).await;
    assert_eq!(world.pages(BRANCH).await.compare(&data).await, compared);
    assert_eq!(world.pages(MAIN).await.compare(&data).await, compared);
    let path = timelines_path(TENANT);
    let listed: Vec<serde_json::Value> = world.api.get(&path).await.unwrap();
    assert_eq!(listed.len(), 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_by_their_rules_and_a_revocation_by_its_state() {
    let directory = directory();
    let data = initdb(directory.path());
    let world = World::start(directory.path(), "node").await;
    let start = world.import(&data).await.start_lsn;
    let mut pages = world.pages(MAIN).await;

    let absent = RelTag { rel: 9, ..RELATION };
    assert_eq!(pages.ask(Ask::Exists(RELATION)).await, Answer::Exists(true));
    assert_eq!(pages.ask(Ask::Exists(absent)).await, Answer::Exists(false));
    let zeros = Answer::Page(vec![0; 8192].into());
    assert_eq!(pages.ask(Ask::GetPage(RELATION, 1_000_000)).await, zeros);
    let Answer::DbSize(bytes) = pages.ask(Ask::DbSize(1)).await else {
        panic!("no size");
    };
    assert!(bytes > 1 << 20);
    let clog = Ask::Slru {
        kind: 0,
        segment: 0,
    };
    let expected = std::fs::read(data.join("pg_xact/0000")).unwrap();
    assert_eq!(pages.ask(clog).await, Answer::Slru(expected.into()));

    let ahead = Lsn(start.0 + 8);
    for (ask, at, since, sqlstate) in [
        (Ask::Nblocks(absent), Lsn::MAX, Lsn(0), "22023"),
        (Ask::DbSize(77), Lsn::MAX, Lsn(0), "22023"),
        (Ask::Exists(RELATION), Lsn(0), Lsn(0), "22023"),
        (Ask::Exists(RELATION), start, ahead, "22023"),
        (Ask::Exists(RELATION), Lsn::MAX, ahead, "55000"),
    ] {
        let answers = pages
            .ask_at(vec![ask.clone(), Ask::Exists(RELATION)], at, since)
            .await;
        let Answer::Error(said) = &answers[0] else {
            panic!("{ask:?} is answered");
        };
        assert!(said.starts_with(&format!("{sqlstate} ")), "{said}");
    }
    // The stream is open still.
    assert_eq!(pages.ask(Ask::Exists(RELATION)).await, Answer::Exists(true));
    for command in [
        "pagestream_v3 x y",
        "pagestream_v1 a b",
        "basebackup a b 0/1 --gzip",
    ] {
        let refused = world.client().await.simple_query(command).await;
        assert!(
            matches!(refused, Err(WireError::Server { .. })),
            "{command}"
        );
    }
    world
        .client()
        .await
        .simple_query("set datestyle to iso")
        .await
        .unwrap();

    world.keyring.fence(TENANT, RevokeReason::Disabled).await;
    let Answer::Error(said) = pages.ask(Ask::Exists(RELATION)).await else {
        panic!("answered without a key");
    };
    assert!(
        said.starts_with("58R01 ") && said.contains("Disabled"),
        "{said}"
    );
    let refused = world.backup(&format!("basebackup {TENANT} {MAIN}")).await;
    assert!(matches!(refused, Err(WireError::Server { sqlstate, .. }) if sqlstate == "58R01"));
    let status = world.status(MAIN).await.unwrap_err();
    assert_eq!(status.grade(), Grade::KeyUnavailable);
    world.keyring.lift(TENANT);
    until_up(&world, MAIN).await;
    // The very same stream goes on, over the new attachment.
    assert_eq!(pages.ask(Ask::Exists(RELATION)).await, Answer::Exists(true));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn real_wal_is_ingested_from_whichever_safekeeper_lives() {
    let directory = directory();
    let data = initdb(directory.path());
    sh(directory.path(), "cp -r data base", true);
    let world = World::start(directory.path(), "node").await;
    let imported = world.import(&data).await;
    let start = imported.start_lsn;
    let ends = postgres::run(
        directory.path(),
        &[
            "create table t (id int primary key, t text)",
            "insert into t select n, repeat('x', n % 300) from generate_series(1, 5000) n",
            "update t set t = 'y' where id % 3 = 0",
            "delete from t where id % 7 = 0",
            "create index on t (t)",
            "insert into t select n from generate_series(10001, 12000) n",
        ],
    );
    // From here on data stays out of WAL.
    let minimal = "-c wal_level=minimal -c max_wal_senders=0";
    postgres::start(directory.path(), "data", minimal);
    postgres::stop(directory.path(), "data", "fast");
    let (middle, later, end) = (ends[2], ends[4], ends[5]);
    let wal = postgres::wal(directory.path(), "data", start);
    let records = postgres::records(imported.system_id, start, &wal);
    let last = records.last().unwrap().1;
    assert!(start < middle && middle < later && later < end && end < last);
    let wal = data.join("pg_wal");
    let first = Safekeeper::start(wal.clone(), middle).await;
    let second = Safekeeper::start(wal, middle).await;
    world.attach(MAIN, &[first.address, second.address]).await;
    world.until_ingested(middle).await;
    // Not before a flush is anything said to be in the bucket (D2).
    let flush = format!("{}/flush", timeline_path(TENANT, MAIN));
    let flushed: PageserverStatus = world.api.post(&flush, &()).await.unwrap();
    assert_eq!(flushed.remote_consistent_lsn, middle);
    until_told(&first, (middle, middle)).await;

    // A safekeeper that has nothing new is not left.
    let streams = || first.streams.load(Ordering::SeqCst) + second.streams.load(Ordering::SeqCst);
    assert_eq!(streams(), 1);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(streams(), 1);

    // One that is cut off says that it is there, and has nothing: the other one is asked.
    second.commit.send_replace(later);
    world.until_ingested(later).await;
    until_told(&second, (later, middle)).await;
    second.kill().await;
    first.commit.send_replace(end);
    world.until_ingested(end).await;
    let recovered = postgres::recover(directory.path(), "base", "data", end, "cut");
    let compared = world.pages(MAIN).await.compare(&recovered).await;
    assert!(compared > 1000, "only {compared} pages");
    until_told(&first, (end, middle)).await;

    let at: LsnAtTime = lsn_at(&world, 4_000_000_000.0).await;
    assert_eq!(at.relation, TimeRelation::Future);
    assert_eq!(lsn_at(&world, 1.0).await.relation, TimeRelation::Past);
    let made = world.branch(BRANCH, Some(middle)).await;
    assert_eq!(made.start_lsn, middle);

    // Revoked and granted again: what was not flushed comes from the safekeeper once more.
    world.keyring.fence(TENANT, RevokeReason::Disabled).await;
    world.keyring.lift(TENANT);
    until_up(&world, MAIN).await;
    world.until_ingested(end).await;
    assert_eq!(world.pages(MAIN).await.compare(&recovered).await, compared);

    // A record that is not supported ends ingest by name, and nothing behind it is taken in.
    first.commit.send_replace(last);
    let stopped = until_stopped(&world).await;
    let why = stopped.stopped.unwrap();
    assert!(why.contains("not supported"), "{why}");
    assert!(stopped.last_record_lsn >= end && stopped.last_record_lsn < last);
    // A stop brings the rest into the bucket.
    world.stop().await;
    let world = World::start(directory.path(), "another").await;
    let attached = world.attach(MAIN, &[]).await;
    assert_eq!(attached.remote_consistent_lsn, stopped.last_record_lsn);
    // In the past too.
    let mut pages = world.pages(MAIN).await;
    pages.at = end;
    assert_eq!(pages.compare(&recovered).await, compared);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeline_that_another_node_attached_is_given_up() {
    let directory = directory();
    let data = initdb(directory.path());
    let more = "flush_interval_ms = 1000";
    let old = World::start_with(directory.path(), "old", more).await;
    old.import(&data).await;
    let new = World::start_with(directory.path(), "new", more).await;
    new.attach(MAIN, &[]).await;
    let mut given_up = false;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        given_up = matches!(
            old.status(MAIN).await,
            Err(e) if e.grade() == Grade::RetryElsewhere && e.to_string().contains("attached elsewhere")
        );
        if given_up {
            break;
        }
    }
    assert!(given_up, "the old one serves still");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    old.stop().await;
    // D1: a restart does not take it back.
    let old = World::start_with(directory.path(), "old", more).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(old.status(MAIN).await.is_err());
    assert!(new.status(MAIN).await.is_ok());
    // Whoever asks for it gets it.
    old.attach(MAIN, &[]).await;
    old.stop().await;
    new.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_was_set_back_is_not_served_by_who_knows_better() {
    let directory = directory();
    let data = initdb(directory.path());
    let world = World::start(directory.path(), "node").await;
    world.import(&data).await;
    world.stop().await;
    let manifests = format!("bucket/cells/test/tenants/{TENANT}/timelines/{MAIN}");
    // The first name is the newest.
    let newest = format!("rm \"$(ls -d {manifests}/manifest-* | head -1)\"");
    sh(directory.path(), &newest, false);
    let world = World::start(directory.path(), "node").await;
    let mut grade = None;
    for _ in 0..100 {
        grade = world.status(MAIN).await.err().map(|e| e.grade());
        if grade == Some(Grade::DataDamaged) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(grade, Some(Grade::DataDamaged));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_its_own_tenant_and_nothing_else() {
    use service::token::{Claims, Scope, Signer};
    let directory = directory();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let at = directory.path();
    std::fs::write(at.join("private.pem"), pair.serialize_pem()).unwrap();
    std::fs::write(at.join("public.pem"), pair.public_key_pem()).unwrap();
    let more = format!("token_key = \"{}/public.pem\"", at.display());
    let world = World::start_with(at, "node", &more).await;
    let signer = Signer::load(at.join("private.pem")).unwrap();
    let token = |tenant| {
        let claims = Claims {
            tenant: Some(tenant),
            scope: Scope::Tenant,
            exp: service::clock::unix_seconds() + 60,
            placement: None,
        };
        signer.sign(&claims).unwrap()
    };
    let (own, other) = (token(TENANT), token(ids::TenantId([9; 16])));
    let address = world.server.libpq;
    let sqlstate = async |password: &str| {
        let command = format!("basebackup {TENANT} {MAIN}");
        let client = match Client::connect(address, &[], password).await {
            Ok(client) => client,
            Err(WireError::Server { sqlstate, .. }) => return sqlstate,
            Err(error) => panic!("{error}"),
        };
        match client.query_copy_out(&command).await {
            Err(WireError::Server { sqlstate, .. }) => sqlstate,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(sqlstate("").await, "28P01");
    assert_eq!(sqlstate(&other).await, "28000");
    // Let in, and told that there is nothing.
    assert_eq!(sqlstate(&own).await, "42704");
    let ask = async |api: api::Client| {
        let answer = api
            .get::<Vec<serde_json::Value>>(&timelines_path(TENANT))
            .await;
        answer.map_err(|e| e.grade())
    };
    assert_eq!(ask(world.api.clone()).await, Err(Grade::FixRequest));
    assert_eq!(
        ask(world.api.clone().with_token(other)).await,
        Err(Grade::FixRequest)
    );
    assert_eq!(ask(world.api.clone().with_token(own)).await, Ok(Vec::new()));
    world.stop().await;
}

async fn lsn_at(world: &World, unix: f64) -> LsnAtTime {
    let path = format!("{}/lsn_at?unix={unix}", timeline_path(TENANT, MAIN));
    world.api.get(&path).await.unwrap()
}

async fn until_up(world: &World, timeline: TimelineId) -> PageserverStatus {
    for _ in 0..100 {
        if let Ok(status) = world.status(timeline).await {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not up: {:?}", world.status(timeline).await);
}

async fn until_stopped(world: &World) -> PageserverStatus {
    for _ in 0..100 {
        let status = world.status(MAIN).await.unwrap();
        if status.stopped.is_some() {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("ingest goes on: {:?}", world.status(MAIN).await);
}

async fn until_told(safekeeper: &Safekeeper, expected: (Lsn, Lsn)) {
    for _ in 0..50 {
        if *safekeeper.told.lock().unwrap() == Some(expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!(
        "{expected:?} was not told: {:?}",
        safekeeper.told.lock().unwrap()
    );
}
