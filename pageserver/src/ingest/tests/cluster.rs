//! A stock PostgreSQL 15: its base copy, its WAL, and what its own recovery makes of them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use bytes::Bytes;
use ids::Lsn;
use pg::PgMajor;
use pg::datadir::wal_segment_name;
use pg::wal::{Decoder, WalShape};
use tempfile::TempDir;

const BIN: &str = "/usr/lib/postgresql/15/bin";
pub(super) const SEGMENT_BYTES: u64 = 16 << 20;
const RUN: &str = "-c fsync=off -c autovacuum=off -c listen_addresses='' -c wal_keep_size=20GB \
    -c max_wal_size=20GB -c max_prepared_transactions=9 -c shared_buffers=64MB";
/// Whatever recovery does not need stays off, as it might write hint bits.
const RECOVER: &str = "-c fsync=off -c autovacuum=off -c listen_addresses='' \
    -c max_prepared_transactions=9 -c max_logical_replication_workers=0 \
    -c bgwriter_lru_maxpages=0 -c full_page_writes=off";

/// A run of the workload; the directory goes with it.
pub(super) struct Cluster {
    directory: TempDir,
}

impl Cluster {
    /// Runs the workload, and ends the server as a crash would.
    pub(super) fn run(full_page_writes: bool) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("redoubt-ingest")
            .tempdir_in("/tmp")
            .unwrap();
        let cluster = Self { directory };
        let at = cluster.at();
        let open = |path: &Path| fs::set_permissions(path, PermissionsExt::from_mode(0o777));
        open(at).unwrap();
        for (name, text) in [
            ("stock.sql", include_str!("stock.sql")),
            ("locks.sql", include_str!("locks.sql")),
        ] {
            fs::write(at.join(name), text).unwrap();
            open(&at.join(name)).unwrap();
        }
        cluster.sh(&format!(
            "{BIN}/initdb -D data -U postgres -A trust -N >init.log && cp -r data base"
        ));
        let settings = format!("{RUN} -c full_page_writes={full_page_writes}");
        cluster.start("data", &settings);
        let to = format!("-h {} -U postgres", at.display());
        cluster.sh(&format!(
            "{BIN}/psql {to} -d postgres -v ON_ERROR_STOP=0 -qAt -f stock.sql >sql.log 2>&1"
        ));
        cluster.sh(&format!(
            "{BIN}/pgbench -i -s 1 -q {to} postgres >i.log 2>&1"
        ));
        cluster.sh(&format!(
            "{BIN}/pgbench -c 4 -t 150 {to} postgres >b.log 2>&1"
        ));
        cluster.sh(&format!(
            "{BIN}/pgbench -n -c 4 -t 60 -f locks.sql {to} postgres >l.log 2>&1"
        ));
        cluster.sh(&format!("{BIN}/vacuumdb {to} -a -q -F >v.log 2>&1"));
        cluster.sh(&format!(
            "{BIN}/pgbench -c 4 -t 50 {to} postgres >c.log 2>&1"
        ));
        cluster.stop("data");
        let errors = fs::read_to_string(at.join("sql.log")).unwrap();
        let errors = errors.lines().filter(|line| line.contains("ERROR")).count();
        assert_eq!(errors, 1, "only one statement is wrong");
        cluster
    }

    pub(super) fn at(&self) -> &Path {
        self.directory.path()
    }

    /// The files of the base copy.
    pub(super) fn base(&self) -> BTreeMap<String, Bytes> {
        files(&self.at().join("base"))
    }

    /// The bytes of WAL from `start` on.
    pub(super) fn wal(&self, start: Lsn) -> Vec<u8> {
        let mut wal = Vec::new();
        for segment in start.segment(SEGMENT_BYTES).. {
            let name = wal_segment_name(1, Lsn(segment * SEGMENT_BYTES), SEGMENT_BYTES);
            match fs::read(self.at().join("data/pg_wal").join(name)) {
                Ok(bytes) => wal.extend(bytes),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::NotFound);
                    break;
                }
            }
        }
        wal.split_off(start.segment_offset(SEGMENT_BYTES) as usize)
    }

    /// Lets the stock server recover the base copy and WAL up to `cut`; answers its files.
    pub(super) fn recover(&self, cut: Lsn, last_record: Lsn) -> BTreeMap<String, Bytes> {
        self.sh("rm -rf cut && cp -r base cut && chmod 700 cut");
        let directory = self.at().join("cut");
        let last = Lsn(cut.0 - 1).segment(SEGMENT_BYTES);
        for segment in 1..=last {
            let name = wal_segment_name(1, Lsn(segment * SEGMENT_BYTES), SEGMENT_BYTES);
            self.sh(&format!("cp data/pg_wal/{name} cut/pg_wal/{name}"));
            if segment == last {
                let path = directory.join("pg_wal").join(name);
                let mut bytes = fs::read(&path).unwrap();
                bytes[(cut.0 - segment * SEGMENT_BYTES) as usize..].fill(0);
                fs::write(path, bytes).unwrap();
            }
        }
        pretend_crash(&directory.join("global/pg_control"));
        self.start("cut", RECOVER);
        self.stop("cut");
        let log = fs::read_to_string(self.at().join("cut.log")).unwrap();
        let done = format!("redo done at {last_record} ");
        assert!(log.contains(&done), "no {done:?} in {log}");
        files(&directory)
    }

    fn start(&self, directory: &str, settings: &str) {
        let socket = self.at().display();
        self.sh(&format!(
            "rm -f {directory}.log; {BIN}/pg_ctl -D {directory} -w -l {directory}.log \
             -o \"{settings} -k {socket}\" start >start.log"
        ));
    }

    fn stop(&self, directory: &str) {
        self.sh(&format!(
            "{BIN}/pg_ctl -D {directory} -w -m immediate stop >stop.log"
        ));
    }

    /// Runs a script; as `postgres` where the test runs as root, which servers refuse.
    fn sh(&self, script: &str) {
        let is_root = fs::read_to_string("/proc/self/status")
            .unwrap()
            .contains("Uid:\t0\t");
        let mut command = Command::new(if is_root { "runuser" } else { "sh" });
        if is_root {
            command.args(["-u", "postgres", "--", "sh"]);
        }
        let output = command.args(["-c", script]).current_dir(self.at()).output();
        let output = output.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {error}");
    }
}

/// Where each record begins and ends, and its bytes, up to where WAL ends.
pub(super) fn records(system_id: u64, start: Lsn, wal: &[u8]) -> Vec<(Lsn, Lsn, Bytes)> {
    let shape = WalShape {
        version: PgMajor::V15,
        segment_bytes: SEGMENT_BYTES,
        system_id,
        tli: 1,
    };
    let (mut decoder, mut records) = (Decoder::new(shape, start), Vec::new());
    decoder.feed(wal);
    while let Ok(Some(record)) = decoder.next() {
        records.push(record);
    }
    records
}

/// Says in `pg_control` that the server was running, so that it recovers.
fn pretend_crash(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[16..20].copy_from_slice(&6_u32.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..288]);
    bytes[288..292].copy_from_slice(&crc.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

/// All files below, by their paths from there.
fn files(below: &Path) -> BTreeMap<String, Bytes> {
    let (mut files, mut directories) = (BTreeMap::new(), vec![PathBuf::new()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(below.join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                directories.push(path);
            } else if entry.file_type().unwrap().is_file() {
                let bytes = fs::read(entry.path()).unwrap();
                files.insert(path.to_str().unwrap().to_owned(), bytes.into());
            }
        }
    }
    files
}
