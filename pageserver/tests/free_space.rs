//! Tables use the room that is on their pages after a start from a backup, as they do after a restart
//! of a stock server: free space maps, which are not in WAL, are made of the pages.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test may; its helper modules are no test functions"
)]

mod world;

use std::fs;

use stock::wal::Wal;
use stock::{DEBIAN, Release, Scene};
use world::safekeeper::Safekeeper;
use world::{MAIN, TENANT, World};

/// Pages of the table that each way of starting makes of the same inserts.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pages {
    before: u32,
    after: u32,
    index: u32,
}

impl Pages {
    fn growth(&self) -> u32 {
        self.after - self.before
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inserts_after_a_start_from_a_backup_go_where_stock_puts_them() {
    let scene = Scene::of(Release::of(DEBIAN));
    let data = scene.initdb("-k");
    scene.run("cp -r data base");
    let world = World::start(scene.at(), "node").await;
    let imported = world.import(&data).await;
    scene.start("data", "");
    scene.psql(
        "CREATE TABLE half (id int PRIMARY KEY, filler text);
         INSERT INTO half SELECT i, repeat('x', 200) FROM generate_series(1, 100000) i;
         VACUUM half;
         DELETE FROM half WHERE id % 2 = 0;
         VACUUM half;",
    );
    scene.stop("data", "fast");
    let wal = Wal::after(&scene, "base", "data");
    let end = wal.for_each(|_, _, _| {});
    let safekeeper = Safekeeper::start(data.join("pg_wal"), imported.start_lsn).await;
    world.attach(MAIN, &[safekeeper.address]).await;
    safekeeper.commit.send_replace(end);
    world.until_ingested(end).await;
    let command = format!("fullbackup {TENANT} {MAIN} {end}");
    let backup = world.backup(&command).await.unwrap();
    world.stop().await;

    // As an agent starts it: what is not in the backup is as after the shutdown.
    for name in ["restored", "without"] {
        scene.run(&format!(
            "cp -r data {name} && find {name}/base {name}/global -type f -delete && \
             find {name} -type d -exec chmod 777 {{}} +"
        ));
        for (path, bytes) in &backup {
            let below = path.starts_with("base/") || path.starts_with("global/");
            let is_left_out = path.ends_with("_fsm") && name == "without";
            if below && path != "global/pg_control" && !is_left_out {
                fs::write(scene.at().join(name).join(path), bytes).unwrap();
            }
        }
        scene.run(&format!("cp data/global/pg_control {name}/global/"));
    }
    let give = "chown -R --reference=data restored without; chmod -R go= restored without";
    stock::sh(scene.at(), give, false);
    let stock = insert(&scene, "data");
    let ours = insert(&scene, "restored");
    let without = insert(&scene, "without");
    println!("a stock restart: {stock:?}\nours: {ours:?}\nwithout a map: {without:?}");
    assert_eq!(ours.before, stock.before);
    assert!(
        ours.growth() <= stock.growth() + 1,
        "{ours:?} and {stock:?}"
    );
    // Else the test would say nothing.
    assert!(without.growth() > 1000, "{without:?}");
}

fn insert(scene: &Scene, name: &str) -> Pages {
    scene.start(name, "");
    let pages = |of: &str| {
        let size = scene.psql(&format!("SELECT pg_relation_size('{of}') / 8192"));
        size.trim().parse().unwrap()
    };
    let before = pages("half");
    scene.psql("INSERT INTO half SELECT i, repeat('x', 200) FROM generate_series(2, 90000, 2) i;");
    let (after, index) = (pages("half"), pages("half_pkey"));
    scene.stop(name, "fast");
    Pages {
        before,
        after,
        index,
    }
}
