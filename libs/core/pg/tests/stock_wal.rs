//! WAL of a stock PostgreSQL 15, held to what its own `pg_waldump` says.

// Helpers of tests are not tests to clippy.
#![allow(clippy::unwrap_used)]

#[path = "stock_wal/description.rs"]
mod description;
#[path = "stock_wal/directory.rs"]
mod directory;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use ids::{Fork, Lsn};
use pg::control::ControlFile;
use pg::datadir::{parse_wal_segment_name, twophase_path, wal_segment_name};
use pg::rmgr::{Payload, XactRecord};
use pg::wal::{Compression, Decoder, Record, WalShape, decode, rmgr};

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// Runs a shell command as a user that PostgreSQL consents to run as.
fn shell(command: &str) -> String {
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut run = if root {
        let mut run = Command::new("runuser");
        run.args(["-u", "postgres", "--"]);
        run
    } else {
        Command::new("env")
    };
    let output = run
        .args(["sh", "-c", &format!("cd / && {command}")])
        .output()
        .expect("a shell runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command}\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A started server: stopped cleanly at the end, also where the test fails.
struct Running<'a>(&'a Path);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        shell(&format!(
            "{BIN}/pg_ctl -D {} -w -m fast stop >/dev/null",
            self.0.display()
        ));
    }
}

/// What brings about records that do more than change pages.
const PAYLOADS: [&str; 23] = [
    "CREATE TABLE a (id int PRIMARY KEY, t text); INSERT INTO a SELECT n FROM generate_series(1, 5000) n",
    "CREATE TABLE b (id int); CREATE UNLOGGED TABLE c (id int)",
    "BEGIN; SAVEPOINT s; INSERT INTO b VALUES (1); SAVEPOINT t; INSERT INTO b VALUES (2); \
     ROLLBACK TO t; INSERT INTO b VALUES (3); COMMIT",
    "BEGIN; SAVEPOINT s; CREATE TABLE gone (id int); ROLLBACK",
    "DELETE FROM a WHERE id > 100",
    "VACUUM a",
    "TRUNCATE b",
    "BEGIN; SELECT FROM a WHERE id = 1 FOR SHARE; SAVEPOINT s; DROP TABLE b; \
     CREATE TABLE e (id int); PREPARE TRANSACTION 'first'",
    "SELECT FROM a WHERE id = 1 FOR SHARE",
    "SELECT FROM a WHERE id = 1 FOR KEY SHARE",
    "COMMIT PREPARED 'first'",
    "BEGIN; SAVEPOINT s; CREATE TABLE f (id int); PREPARE TRANSACTION 'second'",
    "ROLLBACK PREPARED 'second'",
    "DROP TABLE c",
    "CREATE DATABASE logged STRATEGY wal_log",
    "CREATE DATABASE copied STRATEGY file_copy",
    "DROP DATABASE copied",
    "VACUUM FULL pg_class",
    "SELECT pg_logical_emit_message(true, 'prefix', 'text'), pg_create_restore_point('here')",
    "SELECT pg_replication_origin_create('o'), pg_replication_origin_advance('o', '1/23')",
    "SELECT pg_replication_origin_session_setup('o'); BEGIN; \
     SELECT pg_replication_origin_xact_setup('2/34', '2020-01-01'); INSERT INTO a VALUES (9999); \
     COMMIT; SELECT pg_replication_origin_session_reset()",
    "SELECT pg_replication_origin_drop('o')",
    // Stays prepared: the checkpoint at shutdown writes its state file.
    "BEGIN; SAVEPOINT s; INSERT INTO a VALUES (10000); DROP TABLE e; \
     PREPARE TRANSACTION 'kept'",
];

/// The records that this is about: all must occur, or the comparison proves nothing.
const OPS: [&str; 28] = [
    "XLOG CHECKPOINT_ONLINE",
    "XLOG CHECKPOINT_SHUTDOWN",
    "XLOG PARAMETER_CHANGE",
    "XLOG NEXTOID",
    "XLOG SWITCH",
    "XLOG RESTORE_POINT",
    "XLOG FPI",
    "Transaction COMMIT",
    "Transaction ABORT",
    "Transaction PREPARE",
    "Transaction COMMIT_PREPARED",
    "Transaction ABORT_PREPARED",
    "Transaction ASSIGNMENT",
    "Storage CREATE",
    "Storage TRUNCATE",
    "Database CREATE_FILE_COPY",
    "Database CREATE_WAL_LOG",
    "Database DROP",
    "Tablespace CREATE",
    "Tablespace DROP",
    "MultiXact CREATE_ID",
    "RelMap UPDATE",
    "Standby RUNNING_XACTS",
    "Standby LOCK",
    "CommitTs ZEROPAGE",
    "ReplicationOrigin SET",
    "ReplicationOrigin DROP",
    "LogicalMessage MESSAGE",
];

/// A cluster with some WAL, stopped; answers the LSN that its WAL ends at.
fn make_cluster(data: &Path) -> String {
    let d = data.display();
    shell(&format!(
        "{BIN}/initdb -D {d} -U postgres --wal-segsize=1 --no-locale >/dev/null"
    ));
    shell(&format!(
        "{BIN}/pg_ctl -D {d} -w -l {d}/log -o \"-k {d} -c listen_addresses='' \
         -c wal_keep_size=1GB -c wal_level=logical -c max_prepared_transactions=5 \
         -c track_commit_timestamp=on\" start >/dev/null"
    ));
    let running = Running(data);
    let psql = |sql: &str| shell(&format!("{BIN}/psql -h {d} -U postgres -qAtc \"{sql}\""));
    shell(&format!(
        "{BIN}/pgbench -h {d} -U postgres -q -i -s 1 postgres 2>&1"
    ));
    for method in ["pglz", "lz4", "zstd"] {
        psql(&format!("ALTER SYSTEM SET wal_compression = {method}"));
        psql("SELECT pg_reload_conf()");
        psql("SELECT pg_sleep(0.2)");
        psql("CHECKPOINT");
        shell(&format!(
            "{BIN}/pgbench -h {d} -U postgres -t 100 postgres >/dev/null 2>&1"
        ));
        psql("SELECT pg_switch_wal()");
    }
    psql("BEGIN; SAVEPOINT a; INSERT INTO pgbench_tellers VALUES (99); COMMIT");
    psql("VACUUM");
    for statement in PAYLOADS {
        psql(statement);
    }
    shell(&format!("mkdir {d}.space"));
    psql(&format!("CREATE TABLESPACE other LOCATION '{d}.space'"));
    psql("DROP TABLESPACE other");
    drop(running);
    let end = shell(&format!(
        "{BIN}/pg_controldata -D {d} | grep 'Latest checkpoint location'"
    ));
    end.rsplit(' ').next().unwrap().trim().to_owned()
}

/// The parts of a line of `pg_waldump` that do not need a description of the payload.
fn describe(record: &Record, total: usize) -> String {
    let blocks: String = record
        .blocks
        .iter()
        .map(|block| {
            let rel = block.rel;
            let fork = match rel.fork {
                Fork::Main => "",
                Fork::Fsm => " fork fsm",
                Fork::Vm => " fork vm",
                Fork::Init => " fork init",
            };
            let image = if block.applied_image().is_some() {
                " FPW"
            } else {
                ""
            };
            format!(
                " blkref #{}: rel {}/{}/{}{fork} blk {}{image}",
                block.id, rel.spc, rel.db, rel.rel, block.blkno
            )
        })
        .collect();
    format!(
        "{} {total} {} {} {}{blocks}",
        rmgr::name(record.rmid),
        record.xid,
        record.start,
        record.prev
    )
}

/// The same parts out of the line.
fn parse(line: &str) -> String {
    let between = |from: &str, to: &str| {
        let rest = &line[line.find(from).unwrap() + from.len()..];
        rest[..rest.find(to).unwrap()].trim().to_owned()
    };
    let lsn = |text: String| text.parse::<Lsn>().unwrap();
    let length = between("len (rec/tot):", ", tx");
    let total = length.split('/').nth(1).unwrap().trim().to_owned();
    let blocks: String = line
        .match_indices("blkref #")
        .map(|(at, _)| {
            let part = &line[at..];
            format!(
                " {}",
                part[..part.find(", blkref").unwrap_or(part.len())].trim_end()
            )
        })
        .collect();
    format!(
        "{} {total} {} {} {}{blocks}",
        between("rmgr: ", " len"),
        between("tx:", ","),
        lsn(between("lsn: ", ",")),
        lsn(between("prev ", ","))
    )
}

#[test]
fn records_are_those_that_pg_waldump_shows() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    shell("true");
    let made = Command::new("chmod")
        .arg("777")
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(made.success());
    let data = folder.path().join("data");
    let end = make_cluster(&data);

    let control = ControlFile::parse(&std::fs::read(data.join("global/pg_control")).unwrap());
    let control = control.unwrap();
    assert_eq!(control.checkpoint_lsn(), end.parse::<Lsn>().unwrap());
    let mut segments: Vec<_> = std::fs::read_dir(data.join("pg_wal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    segments.sort();
    let first = segments[0]
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let start = Lsn(u64::from_str_radix(&first[8..16], 16).unwrap() << 32
        | u64::from_str_radix(&first[16..], 16).unwrap() << 20);
    let shape = WalShape {
        version: control.version(),
        segment_bytes: control.segment_bytes(),
        system_id: control.system_id(),
        tli: 1,
    };

    let dump = shell(&format!(
        "TZ=UTC {BIN}/pg_waldump -p {}/pg_wal -s {start} -e {} 2>/dev/null",
        data.display(),
        control.checkpoint_lsn()
    ));
    let mut lines = dump.lines();
    let mut decoder = Decoder::scanning(shape, start);
    let (mut seen, mut prepared) = (BTreeSet::new(), None);
    let (mut compressed, mut switches) = ([0; 4], 0);
    'segments: for segment in &segments {
        decoder.feed(&std::fs::read(segment).unwrap());
        while let Some((at, end, bytes)) = decoder.next().unwrap() {
            let total = bytes.len();
            let record = decode(shape.version, at, end, bytes).unwrap();
            if at >= control.checkpoint_lsn() {
                let checkpoint = pg::control::CheckPoint::decode(record.main_data).unwrap();
                assert_eq!(checkpoint, control.checkpoint());
                assert_eq!(checkpoint.encode(), record.main_data[..]);
                break 'segments;
            }
            let line = lines.next().expect("a line");
            assert_eq!(describe(&record, total), parse(line));
            let payload = Payload::read(shape.version, &record).unwrap();
            if let Some(text) = description::of(&record, &payload) {
                assert_eq!(text, description::expected(line));
                let op = text.split(' ').next().unwrap();
                if let Payload::Xact(XactRecord::Prepare(prepare)) = &payload {
                    prepared = Some(prepare.clone());
                }
                seen.insert(format!("{} {op}", rmgr::name(record.rmid)));
            }
            switches += usize::from(record.rmid == rmgr::XLOG && record.op() == 0x40);
            for image in record
                .blocks
                .iter()
                .filter_map(|block| block.image.as_ref())
            {
                let page = image.restore().unwrap();
                assert!(pg::page::is_new(&page) || pg::page::size_version(&page) == 0x2004);
                compressed[image.compression as usize] += 1;
            }
        }
    }
    assert_eq!(lines.next(), None, "pg_waldump shows no more");
    assert!(switches >= 3);
    let kept = prepared.expect("a prepared transaction");
    assert_eq!(kept.gid[..], *b"kept");
    let state = std::fs::read(data.join(twophase_path(kept.xid))).unwrap();
    assert_eq!(kept.state_file(), state);
    let (tli, start_of_first) = parse_wal_segment_name(&first, shape.segment_bytes).unwrap();
    assert_eq!((tli, start_of_first), (1, start));
    assert_eq!(wal_segment_name(1, start, shape.segment_bytes), first);
    directory::check(&data);
    for op in OPS {
        assert!(seen.contains(op), "{op}: {seen:?}");
    }
    for method in [
        Compression::None,
        Compression::Pglz,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        assert!(
            compressed[method as usize] > 0,
            "{method:?}: {compressed:?}"
        );
    }
}
