//! Segments in the bucket, reports of pageservers, and what is trimmed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::timeline::SafekeeperStatus;
use bytes::Bytes;
use ids::Lsn;
use pg::wire::replication::FromReceiver;
use pg::wire::wal_push::{PageserverFeedback, ToProposer};
use safekeeper::access::Gate;
use safekeeper::archive::Archive;
use store::names::Cell;
use store::{Bucket, BucketConfig};

use crate::bench::{BORDER, Push, START, Server, TENANT, TIMELINE, Wal};

pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else {
        return files;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

pub(crate) async fn status(server: &Server) -> Result<SafekeeperStatus, String> {
    let client = api::Client::new(&format!("http://{}", server.http), None).unwrap();
    let path = api::timeline::timeline_path(TENANT, TIMELINE);
    let status = client.get(&path).await;
    status.map_err(|error| format!("{error:?}"))
}

async fn until(server: &Server, holds: impl Fn(&SafekeeperStatus) -> bool) -> SafekeeperStatus {
    loop {
        let status = status(server).await.unwrap();
        if holds(&status) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_finished_segment_is_trimmed_once_it_is_in_the_bucket_and_in_layers() {
    let root = tempfile::tempdir().unwrap();
    let wal = Wal::new(&[9_000, 9_000, 9_000, 9_000]);
    assert!(wal.end() > BORDER);
    let server = Server::start(root.path(), Gate(None)).await;
    let (mut push, _) = Push::begin(&server, 1).await.unwrap();
    push.commit(&wal).await;
    let backed_up = until(&server, |s| s.backup_lsn == BORDER).await;
    assert_eq!(backed_up.remote_consistent_lsn, Lsn::INVALID);
    assert_eq!(
        (backed_up.flush_lsn, backed_up.commit_lsn),
        (wal.end(), wal.end())
    );
    let objects = files(&root.path().join("bucket"));
    assert_eq!(objects.len(), 1, "{objects:?}");
    let local = root.path().join("node/wal");
    assert_eq!(files(&local).len(), 2);

    // Nothing is trimmed by a report below the border, all of the segment by one behind it.
    let mut copy = server.replicate(wal.end(), "").await.unwrap();
    for remote in [Lsn(BORDER.0 - 8), wal.end()] {
        let report = PageserverFeedback::new(1, wal.end(), wal.end(), remote, 5);
        let report = FromReceiver::Pageserver(report);
        copy.write_copy(&report.encode()).await.unwrap();
        copy.flush().await.unwrap();
        until(&server, |s| s.remote_consistent_lsn == remote).await;
        // The proposer hears of it, whom nobody asked.
        let ToProposer::Append(answer) = push.answer().await.unwrap() else {
            panic!("no append answer");
        };
        assert_eq!(answer.feedback.unwrap().remote_consistent(), Some(remote));
        assert_eq!(answer.flush, wal.end());
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let left = if remote < BORDER { 2 } else { 1 };
        assert_eq!(files(&local).len(), left, "reported {remote}");
    }

    // What is gone here comes from the bucket.
    let mut copy = server.replicate(START, "").await.unwrap();
    let got = Server::wal(&mut copy, wal.bytes.len()).await.unwrap();
    assert!(got == wal.bytes, "other WAL than was pushed");
    server.stop().await;

    let server = Server::start(root.path(), Gate(None)).await;
    let again = status(&server).await.unwrap();
    assert_eq!((again.backup_lsn, again.flush_lsn), (BORDER, wal.end()));
    assert_eq!(again.remote_consistent_lsn, wal.end());
    let (_, vote) = Push::begin(&server, 2).await.unwrap();
    assert_eq!((vote.given, vote.flush), (true, wal.end()));
    server.stop().await;
}

/// D8: whatever page servers do. It lies sealed under a name of its own, and one at a time.
#[tokio::test]
async fn the_tail_of_an_idle_timeline_is_in_the_bucket_and_is_replaced_as_it_grows() {
    let root = tempfile::tempdir().unwrap();
    let wal = Wal::new(&[100, 9_000, 20_000]);
    let ends = wal.ends.clone();
    assert!(ends[1] < BORDER && BORDER < ends[2]);
    let hasty =
        async || Server::start_with(1, root.path(), Gate(None), Duration::from_millis(100)).await;
    let names = || -> Vec<String> {
        let found = files(&root.path().join("bucket"));
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        found.iter().map(name).collect()
    };
    let only = async |beginnings: &[Lsn], segments: usize| {
        let has = |names: &[String], end: &Lsn| {
            let part = format!(".{:016x}-", end.0);
            names.iter().any(|name| name.contains(&part))
        };
        loop {
            let names = names();
            let all = beginnings.iter().all(|end| has(&names, end));
            if all && names.len() == beginnings.len() + segments {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let server = hasty().await;
    let (mut push, _) = Push::begin(&server, 1).await.unwrap();
    let mut at = START;
    for end in &ends[..2] {
        push.append(at, wal.between(at, *end), *end).await.unwrap();
        push.append(*end, Bytes::new(), *end).await.unwrap();
        until(&server, |s| {
            s.partial_lsn == *end && s.exposed_since.is_none()
        })
        .await;
        only(&[*end], 0).await;
        at = *end;
    }
    // Not more than is committed (D5).
    push.append(at, wal.between(at, ends[2]), at).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(names()[0].contains(&format!(".{:016x}-", at.0)));
    server.stop().await;

    let server = hasty().await;
    let again = until(&server, |s| s.partial_lsn == at).await;
    assert_eq!(again.exposed_since, None);
    only(&[at], 0).await;
    let bucket = Bucket::open(&BucketConfig::directory(&root.path().join("bucket"))).unwrap();
    let archive = Archive::new(bucket, Cell::new("dev").unwrap());
    let keys = server.ring.tenant(TENANT).await.unwrap();
    let found = archive.open(&keys, TIMELINE, START).await.unwrap();
    let got = found.read(START, ends[2]).await.unwrap();
    assert_eq!(got, wal.between(START, at), "other WAL than was pushed");
    assert!(archive.open(&keys, TIMELINE, at).await.is_err());

    // A finished segment takes the place of its beginning, and the next one begins.
    let (mut push, vote) = Push::begin(&server, 2).await.unwrap();
    assert_eq!(vote.flush, ends[2]);
    push.append(ends[2], Bytes::new(), ends[2]).await.unwrap();
    until(&server, |s| {
        s.backup_lsn == BORDER && s.partial_lsn == ends[2]
    })
    .await;
    only(&[ends[2]], 1).await;
    server.stop().await;
}

/// A5: a first segment that nobody trimmed is lost, and so is the node's word on the log.
#[tokio::test]
async fn a_log_without_its_beginning_is_in_doubt() {
    let root = tempfile::tempdir().unwrap();
    let wal = Wal::new(&[9_000, 9_000, 9_000]);
    let server = Server::start(root.path(), Gate(None)).await;
    let (mut push, _) = Push::begin(&server, 1).await.unwrap();
    push.commit(&wal).await;
    until(&server, |s| s.backup_lsn == BORDER).await;
    server.stop().await;
    let first = files(&root.path().join("node/wal")).remove(0);
    let whole = std::fs::read(&first).unwrap();
    std::fs::remove_file(&first).unwrap();
    let server = Server::start(root.path(), Gate(None)).await;
    let refused = Push::begin(&server, 2).await.err().unwrap();
    assert!(refused.contains("58R03"), "{refused}");
    server.stop().await;
    std::fs::write(&first, whole).unwrap();
    let server = Server::start(root.path(), Gate(None)).await;
    let refused = Push::begin(&server, 2).await.err().unwrap();
    assert!(refused.contains("learner"), "{refused}");
    server.stop().await;
}

/// A5: damage that a read finds makes a learner at once, and after a restart.
#[tokio::test]
async fn a_read_that_finds_damage_makes_a_learner() {
    let root = tempfile::tempdir().unwrap();
    let wal = Wal::new(&[3_000, 3_000]);
    let server = Server::start(root.path(), Gate(None)).await;
    let (mut push, _) = Push::begin(&server, 1).await.unwrap();
    push.commit(&wal).await;
    let log = files(&root.path().join("node/wal")).remove(0);
    let mut bytes = std::fs::read(&log).unwrap();
    let sound = bytes.clone();
    bytes[2_000] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    let mut copy = server.replicate(START, "").await.unwrap();
    let damaged = Server::wal(&mut copy, 1).await.unwrap_err();
    assert!(damaged.contains("58R03"), "{damaged}");
    let refused = Push::begin(&server, 2).await.err().unwrap();
    assert!(refused.contains("learner"), "{refused}");
    server.stop().await;
    std::fs::write(&log, &sound).unwrap();
    let server = Server::start(root.path(), Gate(None)).await;
    let refused = Push::begin(&server, 2).await.err().unwrap();
    assert!(refused.contains("learner"), "{refused}");
    server.stop().await;
}
