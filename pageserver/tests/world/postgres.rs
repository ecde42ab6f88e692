//! Stock PostgreSQL 15: its base copy, its WAL, and what its own recovery makes of them.

#![allow(dead_code, reason = "nobody who includes it needs all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ids::{Fork, Lsn, RelTag};
use pg::datadir::{parse_relation_path, parse_wal_segment_name, wal_segment_name};
use pg::page::{Page, checksum, stamp_checksum};
use pg::wal::{Decoder, WalShape};
use pg::{PgMajor, tablespace};
use stock::Scene;
use tempfile::TempDir;

pub(crate) use stock::sh;

const BIN: &str = "/usr/lib/postgresql/15/bin";
/// The length of a segment, as `initdb` sets it.
pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;
/// Whatever recovery does not need stays off, as it might write hint bits.
const SETTINGS: &str = "-c autovacuum=off -c fsync=off -c listen_addresses='' \
    -c max_logical_replication_workers=0 -c bgwriter_lru_maxpages=0 -c max_wal_size=20GB \
    -c wal_keep_size=20GB -c max_prepared_transactions=9 -c shared_buffers=64MB";

/// A directory that the server's user reaches too.
pub(crate) fn directory() -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix("pageserver")
        .tempdir_in("/tmp")
        .unwrap();
    let at = directory.path().display();
    sh(Path::new("/tmp"), &format!("chmod 777 {at}"), false);
    directory
}

/// A data directory as initdb leaves it.
pub(crate) fn initdb(at: &Path) -> PathBuf {
    let script = format!("{BIN}/initdb -D data -U postgres -A trust -N >init.log");
    sh(at, &script, true);
    sh(at, "chmod -R a+rX data", true);
    at.join("data")
}

/// Starts the server of the data directory `name`.
pub(crate) fn start(at: &Path, name: &str, more: &str) {
    let socket = at.display();
    let script = format!(
        "rm -f {name}.log; chmod 700 {name}; {BIN}/pg_ctl -D {name} -w -l {name}.log \
         -o \"{SETTINGS} {more} -k {socket}\" start >start.log"
    );
    sh(at, &script, true);
}

/// Stops it; `immediate` as a crash would.
pub(crate) fn stop(at: &Path, name: &str, mode: &str) {
    let script = format!("{BIN}/pg_ctl -D {name} -w -m {mode} stop >stop.log");
    sh(at, &script, true);
    sh(at, &format!("chmod -R a+rX {name}"), true);
}

/// Runs SQL, one statement after the other, and answers where WAL ends after each.
pub(crate) fn run(at: &Path, statements: &[&str]) -> Vec<Lsn> {
    start(at, "data", "");
    let psql = |sql: &str| {
        let psql = format!("{BIN}/psql {} -v ON_ERROR_STOP=1 -qAt", to(at));
        sh(at, &format!("{psql} -c \"{sql}\""), true)
    };
    let mut ends = Vec::new();
    for statement in statements {
        psql(statement);
        let end = psql("select pg_current_wal_insert_lsn()");
        ends.push(end.trim().parse().unwrap());
    }
    stop(at, "data", "fast");
    ends
}

/// A data directory of this release, `data`, and the copy `base` of it. Commits leave their times.
pub(crate) fn base(scene: &Scene, checksums: bool) -> PathBuf {
    let has_them = scene.release.major >= PgMajor::V18;
    let data = scene.initdb(match checksums {
        true if !has_them => "-k",
        false if has_them => "--no-data-checksums",
        _ => "",
    });
    scene.run("echo 'track_commit_timestamp = on' >>data/postgresql.conf");
    // So that `pg_control` says so too.
    scene.start("data", "");
    scene.stop("data", "fast");
    scene.run("cp -r data base");
    data
}

/// Lets the server of `data` write something of everything, and crash.
pub(crate) fn work(scene: &Scene, full_page_writes: bool) {
    let settings = format!("-c full_page_writes={full_page_writes} -c wal_compression=on");
    scene.start("data", &settings);
    script(scene, "stock", include_str!("stock.sql"), 1);
    fs::write(scene.at().join("locks.sql"), include_str!("locks.sql")).unwrap();
    sh(scene.at(), "chmod a+r locks.sql", false);
    scene.bench("-i -s 1 -q");
    scene.bench("-c 4 -t 150");
    scene.bench("-n -c 4 -t 60 -f locks.sql");
    script(scene, "more", include_str!("more.sql"), 0);
    script(scene, "effects", include_str!("effects.sql"), 0);
    scene.run(&format!(
        "vacuumdb {} -a -q -F >vacuum.log 2>&1",
        scene.to()
    ));
    scene.bench("-c 4 -t 50");
    scene.stop("data", "immediate");
}

fn script(scene: &Scene, name: &str, sql: &str, wrong: usize) {
    let mut sql = sql.to_owned();
    if scene.release.major < PgMajor::V15 {
        // It knows no other way than the copy of files.
        sql = sql
            .replace(" STRATEGY wal_log", "")
            .replace(" STRATEGY file_copy", "");
    }
    let name = format!("{name}.sql");
    fs::write(scene.at().join(&name), sql).unwrap();
    scene.script(&name, wrong);
}

/// Something of everything that redo knows but generic WAL, into a server that runs.
pub(crate) fn write_everything(at: &Path) {
    write(at, "stock", include_str!("stock.sql"), 1);
    fs::write(at.join("locks.sql"), include_str!("locks.sql")).unwrap();
    sh(at, "chmod a+r locks.sql", false);
    bench(at, "-i -s 1 -q");
    bench(at, "-c 4 -t 150");
    bench(at, "-n -c 4 -t 60 -f locks.sql");
    let vacuum = format!("{BIN}/vacuumdb {} -a -q -F >vacuum.log 2>&1", to(at));
    sh(at, &vacuum, true);
    bench(at, "-c 4 -t 50");
}

/// Something of what that leaves out.
pub(crate) fn write_more(at: &Path) {
    write(at, "more", include_str!("more.sql"), 0);
}

/// Runs a script of which `wrong` statements are wrong.
fn write(at: &Path, name: &str, sql: &str, wrong: usize) {
    fs::write(at.join(format!("{name}.sql")), sql).unwrap();
    let psql = format!("{BIN}/psql {} -v ON_ERROR_STOP=0 -qAt", to(at));
    let script = format!("{psql} -f {name}.sql >{name}.log 2>&1");
    sh(at, &format!("chmod a+r {name}.sql"), false);
    sh(at, &script, true);
    let said = fs::read_to_string(at.join(format!("{name}.log"))).unwrap();
    let errors = said.lines().filter(|line| line.contains("ERROR"));
    let errors: Vec<&str> = errors.collect();
    assert_eq!(errors.len(), wrong, "{errors:?}");
}

/// Lets `pgbench` work.
pub(crate) fn bench(at: &Path, options: &str) {
    let to = to(at);
    let script = format!("{BIN}/pgbench {options} {to} postgres >bench.log 2>&1");
    sh(at, &script, true);
}

fn to(at: &Path) -> String {
    format!("-h {} -U postgres", at.display())
}

/// The bytes of WAL in the data directory `name`, from `start` on.
pub(crate) fn wal(at: &Path, name: &str, start: Lsn) -> Vec<u8> {
    let mut wal = Vec::new();
    for segment in start.segment(SEGMENT_BYTES).. {
        let file = wal_segment_name(1, Lsn(segment * SEGMENT_BYTES), SEGMENT_BYTES);
        match fs::read(at.join(name).join("pg_wal").join(file)) {
            Ok(bytes) => wal.extend(bytes),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
                break;
            }
        }
    }
    wal.split_off(usize::try_from(start.segment_offset(SEGMENT_BYTES)).unwrap())
}

/// Where each record begins and ends, and its bytes, up to where WAL ends.
pub(crate) fn records(system_id: u64, start: Lsn, wal: &[u8]) -> Vec<(Lsn, Lsn, Bytes)> {
    let shape = WalShape {
        version: PgMajor::V15,
        segment_bytes: SEGMENT_BYTES,
        system_id,
        tli: 1,
    };
    let (mut decoder, mut records) = (Decoder::new(shape, start), Vec::new());
    decoder.feed(wal);
    while let Ok(Some((start, end, record))) = decoder.next() {
        records.push((start, end, Bytes::copy_from_slice(record)));
    }
    records
}

/// What a stock server makes of `base` when it recovers WAL of the data directory `written` up to
/// `end`, where its last record ends. It ends as a crash would: its checkpoint has written every
/// page, and nothing but recovery has changed any.
pub(crate) fn recover(at: &Path, base: &str, written: &str, end: Lsn, into: &str) -> PathBuf {
    let script = format!(
        "rm -rf {into} && cp -r {base} {into} && cp {written}/pg_wal/0* {into}/pg_wal/ && \
         chmod 777 {into} {into}/pg_wal {into}/global && \
         chmod a+rw {into}/pg_wal/0* {into}/global/pg_control"
    );
    sh(at, &script, true);
    let cut = at.join(into);
    for entry in fs::read_dir(cut.join("pg_wal")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some((_, first)) = parse_wal_segment_name(name, SEGMENT_BYTES) else {
            continue;
        };
        if first >= end {
            fs::remove_file(path).unwrap();
        } else if end < first + SEGMENT_BYTES {
            let mut bytes = fs::read(&path).unwrap();
            bytes[usize::try_from(end.0 - first.0).unwrap()..].fill(0);
            fs::write(path, bytes).unwrap();
        }
    }
    pretend_crash(&cut.join("global/pg_control"));
    sh(at, &format!("chmod -R go-w {into}"), true);
    start(at, into, "-c full_page_writes=off");
    stop(at, into, "immediate");
    cut
}

/// Where the last record begins that a recovery took in, as its log says.
pub(crate) fn redo_done_at(at: &Path, name: &str) -> Lsn {
    let log = fs::read_to_string(at.join(format!("{name}.log"))).unwrap();
    let said = log.split("redo done at ").nth(1);
    let said = said.unwrap_or_else(|| panic!("nothing was recovered: {log}"));
    said.split(' ').next().unwrap().parse().unwrap()
}

/// Says in `pg_control` that the server was running, so that it recovers.
fn pretend_crash(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[16..20].copy_from_slice(&6_u32.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..288]);
    bytes[288..292].copy_from_slice(&crc.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

/// The directory as a tar.
pub(crate) fn tar(data: &Path) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    out.append_dir_all(".", data).unwrap();
    out.into_inner().unwrap()
}

/// All files below, by their paths from there.
pub(crate) fn files(below: &Path) -> BTreeMap<String, Bytes> {
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

/// Every file of a relation, by its path.
pub(crate) fn relation_files(data: &Path) -> BTreeMap<String, Bytes> {
    let mut relations = BTreeMap::new();
    for below in ["base", "global"] {
        for (path, bytes) in files(&data.join(below)) {
            let path = format!("{below}/{path}");
            if parse_relation_path(&path).is_some() {
                relations.insert(path, bytes);
            }
        }
    }
    relations
}

/// The forks that recovery makes the same of, whoever recovers: not the free space maps, which
/// are not WAL-logged, and not what unlogged relations are reset to.
pub(crate) fn forks<B>(
    version: PgMajor,
    files: impl IntoIterator<Item = (String, B)>,
) -> BTreeMap<RelTag, B> {
    let mut forks = BTreeMap::new();
    for (path, bytes) in files {
        if let Some((fork, segment)) = tablespace::parse_relation_path(version, &path) {
            assert_eq!(segment, 0, "no fork is that long");
            forks.insert(fork, bytes);
        }
    }
    let unlogged: BTreeSet<_> = forks
        .keys()
        .filter(|fork| fork.fork == Fork::Init)
        .map(|fork| (fork.db, fork.rel))
        .collect();
    forks.retain(|fork, _| is_compared(*fork, &unlogged));
    forks
}

/// `unlogged`: databases and relations that have an init fork.
pub(crate) fn is_compared(fork: RelTag, unlogged: &BTreeSet<(u32, u32)>) -> bool {
    fork.fork == Fork::Init || fork.fork != Fork::Fsm && !unlogged.contains(&(fork.db, fork.rel))
}

/// The ranges of bytes of a page that are not as they must be. The LSN of a visibility map's page
/// says nothing, as clears of its bits leave it alone; so that page's checksum is the one that
/// theirs would have with our LSN.
pub(crate) fn differing_of(
    fork: RelTag,
    block: u32,
    ours: &[u8],
    theirs: &[u8],
) -> Vec<Range<usize>> {
    let mut wanted: Box<Page> = Box::new(theirs.try_into().unwrap());
    if fork.fork == Fork::Vm {
        wanted[..8].copy_from_slice(&ours[..8]);
        if checksum(&wanted) != 0 {
            stamp_checksum(&mut wanted, block);
        }
    }
    differing(ours, &wanted[..])
}

/// The ranges of bytes that are not the same.
pub(crate) fn differing(ours: &[u8], theirs: &[u8]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let both = ours.iter().zip(theirs).enumerate();
    for (at, _) in both.filter(|(_, (ours, theirs))| ours != theirs) {
        match ranges.last_mut() {
            Some(range) if range.end + 4 >= at => range.end = at + 1,
            _ => ranges.push(at..at + 1),
        }
    }
    ranges
}

/// Numbers that are the same for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((u128::from(self.0) * end as u128) >> 64).unwrap()
    }
}
