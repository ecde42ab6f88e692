//! Stock PostgreSQL 15.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use ids::{Fork, Lsn, RelTag};
use pg::datadir::parse_relation_path;

const BIN: &str = "/usr/lib/postgresql/15/bin";
/// Whatever recovery does not need stays off, as it might write hint bits.
const SETTINGS: &str = "-c autovacuum=off -c fsync=off -c listen_addresses='' \
     -c max_logical_replication_workers=0 -c bgwriter_lru_maxpages=0 -c max_wal_size=10GB \
     -c wal_keep_size=10GB";

/// A data directory as initdb leaves it.
pub(crate) fn initdb(at: &Path) -> PathBuf {
    let script = format!("{BIN}/initdb -D data -U postgres -A trust -N >init.log");
    sh(at, &script, true);
    sh(at, "chmod -R a+rX data", true);
    at.join("data")
}

/// Runs SQL, one statement after the other, and answers where WAL ends after each.
pub(crate) fn run(at: &Path, statements: &[&str]) -> Vec<Lsn> {
    let socket = at.display();
    let start = format!(
        "chmod 700 data && {BIN}/pg_ctl -D data -w -l server.log -o \"{SETTINGS} -k {socket}\" \
         start >start.log"
    );
    sh(at, &start, true);
    let psql = |sql: &str| {
        let psql = format!("{BIN}/psql -h {socket} -U postgres -v ON_ERROR_STOP=1 -qAt");
        sh(at, &format!("{psql} -c \"{sql}\""), true)
    };
    let mut ends = Vec::new();
    for statement in statements {
        psql(statement);
        let end = psql("select pg_current_wal_insert_lsn()");
        ends.push(end.trim().parse().unwrap());
    }
    sh(
        at,
        &format!("{BIN}/pg_ctl -D data -w -m fast stop >stop.log"),
        true,
    );
    sh(at, "chmod -R a+rX data", true);
    ends
}

/// What a stock server makes of `base` when it recovers WAL up to `end`.
pub(crate) fn recover(at: &Path, base: &str, end: Lsn) -> PathBuf {
    sh(at, &format!("cp -r {base} cut && chmod 700 cut"), true);
    sh(
        at,
        "cp data/pg_wal/0* cut/pg_wal/ && chmod -R a+rwX cut/pg_wal cut/global",
        true,
    );
    let cut = at.join("cut");
    for entry in std::fs::read_dir(cut.join("pg_wal")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let Some((_, first)) = pg::datadir::parse_wal_segment_name(&name, 16 << 20) else {
            continue;
        };
        let mut bytes = std::fs::read(entry.path()).unwrap();
        let keep = end.0.saturating_sub(first.0).min(bytes.len() as u64);
        bytes[usize::try_from(keep).unwrap()..].fill(0);
        std::fs::write(entry.path(), bytes).unwrap();
    }
    pretend_crash(&cut.join("global/pg_control"));
    sh(at, "chmod -R go-w cut && chmod 700 cut", true);
    let socket = at.display();
    let control = format!("{BIN}/pg_ctl -D cut -w -l cut.log");
    let start = format!("{control} -o \"{SETTINGS} -k {socket}\" start >start.log");
    sh(at, &start, true);
    sh(at, &format!("{control} -m immediate stop >stop.log"), true);
    sh(at, "chmod -R a+rX cut", true);
    let log = std::fs::read_to_string(at.join("cut.log")).unwrap();
    assert!(log.contains("redo done at"), "{log}");
    cut
}

/// Says in `pg_control` that the server was running, so that it recovers.
fn pretend_crash(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[16..20].copy_from_slice(&6_u32.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..288]);
    bytes[288..292].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

/// The directory as a tar.
pub(crate) fn tar(data: &Path) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    out.append_dir_all(".", data).unwrap();
    out.into_inner().unwrap()
}

/// The files of a data directory that hold relations, without the free space maps, which are
/// not WAL-logged, and without what unlogged relations are reset to.
pub(crate) fn forks(data: &Path) -> BTreeMap<RelTag, Vec<u8>> {
    let mut forks = BTreeMap::new();
    for (path, bytes) in relation_files(data) {
        let (rel, segment) = parse_relation_path(&path).unwrap();
        assert_eq!(segment, 0, "small relations only");
        if rel.fork != Fork::Fsm {
            forks.insert(rel, bytes);
        }
    }
    forks
}

/// Every file of a relation, by its path.
pub(crate) fn relation_files(data: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut folders = vec!["global".to_owned()];
    for entry in std::fs::read_dir(data.join("base")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        folders.push(format!("base/{name}"));
    }
    let mut files = BTreeMap::new();
    for folder in folders {
        for entry in std::fs::read_dir(data.join(&folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = format!("{folder}/{name}");
            if parse_relation_path(&path).is_some() {
                let bytes = std::fs::read(data.join(&path)).unwrap();
                files.insert(path, bytes);
            }
        }
    }
    files
}

/// Runs a script; as `postgres` where the test runs as root, which servers refuse.
pub(crate) fn sh(at: &Path, script: &str, as_server: bool) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut command = if as_server && status.contains("Uid:\t0\t") {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--", "sh", "-c", script]);
        command
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    };
    let output = command.current_dir(at).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
