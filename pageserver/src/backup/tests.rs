use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use ids::{Key, KeyKind, SlruKind, TenantId, TimelineId};
use keyring::Keyring;
use pg::datadir::parse_relation_path;
use store::names::Cell;
use store::{Bucket, BucketConfig};

use super::*;
use crate::import::import_tar;
use crate::layer::cache::LayerCache;
use crate::timeline::Home;
use crate::value::Value;

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// Runs a script as a user that may run servers.
fn sh(at: &Path, script: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let is_root = status.contains("Uid:\t0\t");
    let mut command = Command::new(if is_root { "runuser" } else { "sh" });
    if is_root {
        command.args(["-u", "postgres", "--", "sh"]);
    }
    let output = command.args(["-ec", script]).current_dir(at).output();
    let output = output.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A directory that a server's user can work in.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::Builder::new()
        .prefix("redoubt-backup")
        .tempdir_in("/tmp")
        .unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(directory.path(), open).unwrap();
    directory
}

/// Runs SQL in single-user mode: no port, no socket.
fn sql(at: &Path, data: &str, sql: &str) -> String {
    let options = "-c unix_socket_directories= -c fsync=off";
    sh(
        at,
        &format!("echo \"{sql}\" | {BIN}/postgres --single -j {options} -D {data} postgres"),
    )
}

fn home(at: &Path) -> Home {
    Home {
        bucket: Bucket::open(&BucketConfig::directory(at)).unwrap(),
        keyring: Arc::new(Keyring::fixed([7; 32])),
        cell: Cell::new("c1").unwrap(),
        tenant: TenantId([1; 16]),
        timeline: TimelineId([2; 16]),
        cache: LayerCache::in_memory(),
    }
}

async fn archive(
    timeline: &Arc<Timeline>,
    lsn: Option<Lsn>,
    full: bool,
) -> Result<(Backup, Vec<u8>), BackupError> {
    let (sink, mut pieces) = mpsc::channel(2);
    let (backup, bytes) = tokio::join!(write(timeline, lsn, full, sink), async {
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.recv().await {
            bytes.extend_from_slice(&piece);
        }
        bytes
    });
    Ok((backup?, bytes))
}

fn members(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let read = |member: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut member = member.unwrap();
        let path = member.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).unwrap();
        (path, bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

/// What a server reads of a directory that was shut down, beside WAL and configuration, and but for
/// free space maps, which are made anew.
fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let content = [
        "base/",
        "global/",
        "pg_xact/",
        "pg_multixact/",
        "PG_VERSION",
    ];
    members(tar)
        .into_iter()
        .map(|(path, bytes)| (path.trim_start_matches("./").to_owned(), bytes))
        .filter(|(path, _)| !path.ends_with('/') && !path.ends_with("pg_internal.init"))
        .filter(|(path, _)| !path.ends_with("_fsm"))
        .filter(|(path, _)| content.iter().any(|start| path.starts_with(start)))
        .collect()
}

#[tokio::test]
async fn a_stock_server_starts_from_a_full_backup_and_finds_its_rows() {
    let directory = directory();
    let at = directory.path();
    sh(at, &format!("{BIN}/initdb -D data -U postgres -A trust -N"));
    sql(
        at,
        "data",
        "create table t as select g from generate_series(1, 3000) g; \
         create unlogged table u (n int primary key); insert into u values (1); checkpoint",
    );
    sh(at, "tar -C data -cf data.tar . && chmod a+r data.tar");
    let tar = fs::read(at.join("data.tar")).unwrap();
    let bucket = tempfile::tempdir().unwrap();
    let home = home(bucket.path());
    let source = std::io::Cursor::new(tar.clone());
    let (timeline, imported) = import_tar(&home, source).await.unwrap();
    let (backup, full) = archive(&timeline, None, true).await.unwrap();

    let all = members(&full);
    assert_eq!(all[0].0, BACKUP_MEMBER);
    assert_eq!(serde_json::from_slice::<Backup>(&all[0].1).unwrap(), backup);
    assert_eq!(all.last().unwrap().0, "global/pg_control");
    assert_eq!(backup.lsn, imported.start_lsn);
    assert_eq!(backup.previous_record, imported.previous_record);
    assert_eq!(backup.system_id, imported.system_id);
    assert_eq!(backup.pg_major, 15);
    let (ours, theirs) = (files(&full), files(&tar));
    let mut reset: Vec<_> = ours.keys().filter(|path| path.ends_with("_init")).collect();
    reset.sort();
    assert_eq!(reset.len(), 2, "a table and its index");
    for (path, bytes) in &theirs {
        let main = format!("{path}_init");
        if let Some(init) = theirs.get(&main) {
            assert!(ours[path] == *init, "{path} is unlogged");
            continue;
        }
        assert!(ours.get(path) == Some(bytes), "{path}");
    }
    assert_eq!(ours.len(), theirs.len());

    fs::write(at.join("full.tar"), &full).unwrap();
    sh(
        at,
        "mkdir -m 700 restored && tar -C restored -xf full.tar && \
         cp -r data/pg_wal/0* restored/pg_wal/ && cp data/*.conf restored/",
    );
    let rows = sql(
        at,
        "restored",
        "select count(*), sum(g) from t; select count(*) as unlogged from u",
    );
    assert!(
        rows.contains("= \"3000\"") && rows.contains("= \"4501500\""),
        "{rows}"
    );
    assert!(rows.contains("unlogged = \"0\""), "{rows}");

    let (_, skeleton) = archive(&timeline, Some(backup.lsn), false).await.unwrap();
    assert!(skeleton.len() < 1 << 20);
    let relations = files(&skeleton);
    let relations = relations
        .keys()
        .filter(|path| parse_relation_path(path).is_some());
    assert_eq!(relations.count(), 0);
    the_past_and_a_next_transaction_that_ended_are_refused(&timeline, backup).await;
}

/// Where the record begins that ended in the past is not known; and C3.
async fn the_past_and_a_next_transaction_that_ended_are_refused(
    timeline: &Arc<Timeline>,
    backup: Backup,
) {
    let (start, end) = (backup.lsn, backup.lsn + 8);
    timeline
        .ingest(backup.previous_record, start, end, [])
        .unwrap();
    let past = archive(timeline, Some(start), false).await.map(|_| ());
    assert!(matches!(past, Err(BackupError::Past { .. })), "{past:?}");
    let (newer, _) = archive(timeline, Some(end), false).await.unwrap();
    assert_eq!((newer.lsn, newer.previous_record), (end, start));

    let next = timeline.checkpoint(end).await.unwrap().next_xid as u32;
    let clog = KeyKind::SlruBlock(SlruKind::Clog, 0, 0);
    let set = Value::ClogSet {
        status: crate::value::XidStatus::Committed,
        xids: vec![next + 5],
    };
    timeline
        .ingest(start, end, end + 8, [(Key::new(clog), set)])
        .unwrap();
    let error = archive(timeline, None, false)
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(
        matches!(error, BackupError::NextXid { seen, .. } if seen == next + 5),
        "{error}"
    );
}
