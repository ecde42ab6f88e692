//! Runs a stock PostgreSQL 15 over the workload and keeps its base copy and WAL.

use std::path::{Path, PathBuf};
use std::process::Command;

use ids::Lsn;
use pg::PgMajor;
use pg::wal::{Decoder, Record, WalShape, decode};
use tempfile::TempDir;

/// Where the server's programs are.
pub(crate) const BIN: &str = "/usr/lib/postgresql/15/bin";
const SETTINGS: &str = "-c full_page_writes=off -c fsync=off \
    -c wal_compression=lz4 -c max_wal_size=40GB -c wal_keep_size=30GB -c autovacuum=off \
    -c listen_addresses='' -c shared_buffers=256MB -c wal_level=replica";

/// What a run does, beside `pgbench`.
const WORKLOAD: &[&str] = &[
    "oracle.sql",
    "brin.sql",
    "hash.sql",
    "gin.sql",
    "gist.sql",
    "spgist.sql",
];

/// What a run left behind; the directory goes with it.
pub(crate) struct Run {
    pub(crate) base: PathBuf,
    pub(crate) system_id: u64,
    pub(crate) start: Lsn,
    pub(crate) end: Lsn,
    pub(crate) directory: TempDir,
}

impl Run {
    /// Runs the workload, with `wal_consistency_checking` as said: `all`, or nothing.
    pub(crate) fn record(checking: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("redo-oracle")
            .tempdir_in("/tmp")
            .unwrap();
        let at = directory.path();
        sh(
            Path::new("/tmp"),
            &format!("chmod 777 {}", at.display()),
            false,
        );
        sh(
            at,
            &format!("{BIN}/initdb -D data -U postgres -A trust -N >init.log"),
            true,
        );
        sh(at, "cp -r data base", true);
        let control = sh(at, &format!("{BIN}/pg_controldata base"), true);
        let field = |name: &str| {
            let line = control.lines().find(|line| line.starts_with(name)).unwrap();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        let socket = at.display();
        let start = format!(
            "{BIN}/pg_ctl -D data -w -l server.log -o \"{SETTINGS} \
             -c wal_consistency_checking={checking} -k {socket}\" start >start.log"
        );
        sh(at, &start, true);
        let psql =
            format!("{BIN}/psql -h {socket} -U postgres -d postgres -v ON_ERROR_STOP=1 -qAt");
        for script in WORKLOAD {
            let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
            std::fs::copy(sql.join(script), at.join(script)).unwrap();
            sh(at, &format!("chmod a+r {script}"), false);
            sh(at, &format!("{psql} -f {script} >sql.log"), true);
        }
        let bench = format!("{BIN}/pgbench -h {socket} -U postgres");
        sh(
            at,
            &format!(
                "{bench} -i -s 1 -q postgres 2>i.log >i.log && {bench} -c 4 -t 1000 postgres >b.log 2>b.log"
            ),
            true,
        );
        let end = sh(
            at,
            &format!("{psql} -c 'select pg_current_wal_insert_lsn()'"),
            true,
        );
        sh(
            at,
            &format!("{BIN}/pg_ctl -D data -w -m fast stop >stop.log"),
            true,
        );
        sh(at, "chmod -R a+rX data base", true);
        Self {
            base: at.join("base"),
            system_id: field("Database system identifier").parse().unwrap(),
            start: lsn(&field("Latest checkpoint's REDO location")),
            end: lsn(end.trim()),
            directory,
        }
    }

    /// Reads what was written, all of it, in order.
    pub(crate) fn for_each_record(&self, mut each: impl FnMut(&Record)) {
        let shape = WalShape {
            version: PgMajor::V15,
            segment_bytes: SEGMENT_BYTES,
            system_id: self.system_id,
            tli: 1,
        };
        let wal = self.directory.path().join("data/pg_wal");
        let mut decoder = Decoder::new(shape, self.start);
        let mut read = self.start;
        'wal: for segment in self.start.segment(SEGMENT_BYTES).. {
            let Ok(bytes) = std::fs::read(wal.join(segment_name(segment))) else {
                break;
            };
            let skip = self.start.0.saturating_sub(segment * SEGMENT_BYTES) as usize;
            decoder.feed(&bytes[skip.min(bytes.len())..]);
            loop {
                let (start, end, bytes) = match decoder.next() {
                    Ok(Some(record)) => record,
                    Ok(None) => break,
                    Err(_) => break 'wal, // the end of what was written
                };
                each(&decode(PgMajor::V15, start, end, bytes).unwrap());
                read = end;
            }
        }
        assert!(
            read >= self.end,
            "WAL was read to {read}, not to {}",
            self.end
        );
    }
}

/// The length of a segment, as `initdb` sets it.
pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;

/// The name of a segment's file.
pub(crate) fn segment_name(segment: u64) -> String {
    format!("{:08X}{:08X}{:08X}", 1, segment >> 8, segment & 0xff)
}

fn lsn(text: &str) -> Lsn {
    let (high, low) = text.split_once('/').unwrap();
    let part = |text| u64::from_str_radix(text, 16).unwrap();
    Lsn(part(high) << 32 | part(low))
}

/// Runs a script; as `postgres` where the test runs as root, which servers refuse.
pub(crate) fn sh(at: &Path, script: &str, as_server: bool) -> String {
    let is_root = std::fs::read_to_string("/proc/self/status")
        .unwrap()
        .contains("Uid:\t0\t");
    let mut command = if as_server && is_root {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--", "sh", "-c", script]);
        command
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    };
    let output = command.current_dir(at).output().unwrap();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
