//! What a server is made to write, and the records that must come of it.

use std::fs;
use std::path::Path;

use pg::PgMajor;
use pg::wal::Compression;
use stock::Scene;

const SETTINGS: &str = "-c wal_level=logical -c track_commit_timestamp=on -c wal_log_hints=on";
/// Both lock a row for sharing that a prepared transaction shares: a multixact each.
const MULTIXACTS: &str = "SELECT FROM a WHERE id = 1 FOR SHARE;\n";
/// More than there are offsets on a page.
const MULTIXACT_COUNT: u32 = 2100;

/// Makes the data directory `data`, lets a server work, and stops it; one transaction stays
/// prepared.
pub(super) fn run(scene: &Scene, initdb: &str) {
    scene.initdb(&format!("--no-locale {initdb}"));
    scene.start("data", SETTINGS);
    scene.bench("-i -s 1 -q");
    for (method, _) in methods(scene.release.major) {
        scene.psql(&format!(
            "SET wal_compression = {method}; CHECKPOINT; \
             UPDATE pgbench_accounts SET filler = '' WHERE aid % 100 = 0; SELECT pg_switch_wal()"
        ));
    }
    scene.bench("-t 100");
    scene.run("mkdir space");
    script(scene, "before.sql");
    fs::write(scene.at().join("multixacts.sql"), MULTIXACTS).unwrap();
    scene.bench(&format!("-n -f multixacts.sql -t {MULTIXACT_COUNT}"));
    script(scene, "after.sql");
    scene.stop("data", "fast");
}

/// Runs a script that tells versions apart with `\if`.
fn script(scene: &Scene, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stock_wal");
    let sql = fs::read_to_string(path.join(name)).unwrap();
    let since_15 = scene.release.major >= PgMajor::V15;
    let space = scene.at().join("space");
    let head = format!(
        "\\set since_15 {since_15}\n\\set space {}\n",
        space.display()
    );
    fs::write(scene.at().join(name), head + &sql).unwrap();
    scene.script(name, 0);
}

/// Settings of `wal_compression` and what they make: the builds here have all of them.
fn methods(version: PgMajor) -> &'static [(&'static str, Compression)] {
    if version < PgMajor::V15 {
        &[("off", Compression::None), ("on", Compression::Pglz)]
    } else {
        &[
            ("off", Compression::None),
            ("pglz", Compression::Pglz),
            ("lz4", Compression::Lz4),
            ("zstd", Compression::Zstd),
        ]
    }
}

/// The compressions that images of this version have.
pub(super) fn compressions(version: PgMajor) -> impl Iterator<Item = &'static Compression> {
    methods(version).iter().map(|(_, compression)| compression)
}

/// The kinds of records that must be there, or the comparison proves nothing.
pub(super) fn ops(version: PgMajor) -> impl Iterator<Item = &'static str> {
    let of_version: &[&str] = match version {
        PgMajor::V14 => &["Database CREATE"],
        PgMajor::V15 | PgMajor::V16 => &["Database CREATE_FILE_COPY", "Database CREATE_WAL_LOG"],
        PgMajor::V17 | PgMajor::V18 => &[
            "Database CREATE_FILE_COPY",
            "Database CREATE_WAL_LOG",
            "XLOG CHECKPOINT_REDO",
        ],
    };
    OPS.iter().chain(of_version).copied()
}

const OPS: [&str; 44] = [
    "XLOG CHECKPOINT_ONLINE",
    "XLOG CHECKPOINT_SHUTDOWN",
    "XLOG BACKUP_END",
    "XLOG FPW_CHANGE",
    "XLOG PARAMETER_CHANGE",
    "XLOG NEXTOID",
    "XLOG SWITCH",
    "XLOG RESTORE_POINT",
    "XLOG FPI",
    "XLOG FPI_FOR_HINT",
    "Transaction COMMIT",
    "Transaction ABORT",
    "Transaction PREPARE",
    "Transaction COMMIT_PREPARED",
    "Transaction ABORT_PREPARED",
    "Transaction ASSIGNMENT",
    "Transaction INVALIDATION",
    "Storage CREATE",
    "Storage TRUNCATE",
    "CLOG ZEROPAGE",
    "Database DROP",
    "Tablespace CREATE",
    "Tablespace DROP",
    "MultiXact ZERO_OFF_PAGE",
    "MultiXact ZERO_MEM_PAGE",
    "MultiXact CREATE_ID",
    "RelMap UPDATE",
    "Standby RUNNING_XACTS",
    "Standby LOCK",
    "Standby INVALIDATIONS",
    "CommitTs ZEROPAGE",
    "ReplicationOrigin SET",
    "ReplicationOrigin DROP",
    "LogicalMessage MESSAGE",
    "Heap TRUNCATE",
    "Heap2 NEW_CID",
    "Heap2 REWRITE",
    "Heap INPLACE",
    "Heap HEAP_CONFIRM",
    "Heap2 MULTI_INSERT+INIT",
    "Btree REUSE_PAGE",
    "Btree SPLIT_R",
    "Sequence LOG",
    "Heap HOT_UPDATE",
];
