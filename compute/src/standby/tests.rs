//! Against a stock PostgreSQL 15, with safekeepers in memory.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ids::Lsn;
use pg::control::ControlFile;
use pg::datadir::wal_segment_name;
use service::task::Shutdown;
use tokio::sync::watch;

use super::*;
use crate::proposer::fake::{SEGMENT, Safekeeper, propose};

const BIN: &str = "/usr/lib/postgresql/15/bin";
const PORT: u16 = 55999;
const NAME: &str = "standby_0a1b";
const LONG: Duration = Duration::from_secs(30);

/// Runs a shell command as a user that PostgreSQL consents to run as.
fn shell(command: &str) -> Command {
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut run = Command::new(if root { "runuser" } else { "env" });
    if root {
        run.args(["-u", "postgres", "--"]);
    }
    run.args(["sh", "-c", &format!("cd / && {command}")])
        .stdin(Stdio::null());
    run
}

fn run(command: &str) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = shell(command).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command}: {stderr}");
    String::from_utf8_lossy(&stdout).trim().to_owned()
}

/// A cluster whose socket is its directory's parent.
struct Cluster {
    directory: tempfile::TempDir,
}

impl Cluster {
    /// Stopped cleanly, with the role of the agent.
    fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = Self { directory };
        let chmod = Command::new("chmod").arg("777").arg(made.socket()).status();
        assert!(chmod.unwrap().success());
        let data = made.data();
        run(&format!(
            "{BIN}/initdb -D {} -U postgres -A trust -N --locale=C",
            data.display()
        ));
        let sql = format!("CREATE ROLE {ROLE} LOGIN REPLICATION IN ROLE pg_monitor");
        run(&format!(
            "echo '{sql}' | {BIN}/postgres --single -D {} postgres",
            data.display()
        ));
        made
    }

    fn socket(&self) -> &Path {
        self.directory.path()
    }

    fn data(&self) -> PathBuf {
        self.socket().join("data")
    }

    fn control(&self) -> ControlFile {
        let path = self.data().join("global/pg_control");
        ControlFile::parse(&std::fs::read(path).unwrap()).unwrap()
    }

    fn start(&self) {
        let options = format!(
            "-p {PORT} -c unix_socket_directories={socket} -c listen_addresses= -c fsync=off \
             -c synchronous_standby_names={NAME} -c wal_keep_size=1GB -c autovacuum=off",
            socket = self.socket().display()
        );
        run(&format!(
            "{BIN}/pg_ctl -w -D {} -o '{options}' -l {}/log start",
            self.data().display(),
            self.socket().display()
        ));
    }

    fn stop(&self, mode: &str) {
        drop(
            shell(&format!(
                "{BIN}/pg_ctl -D {} -w -m {mode} stop",
                self.data().display()
            ))
            .output(),
        );
    }

    fn psql(&self, sql: &str) -> Command {
        let mut psql = shell(&format!(
            "exec psql -XAtq -v ON_ERROR_STOP=1 -h {} -p {PORT} -U postgres -c \"{sql}\"",
            self.socket().display()
        ));
        psql.stdout(Stdio::piped()).stderr(Stdio::piped());
        psql
    }

    async fn sql(&self, sql: &str) -> String {
        let done = tokio::process::Command::from(self.psql(sql)).output();
        let done = tokio::time::timeout(LONG, done).await.expect(sql).unwrap();
        assert!(
            done.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// The WAL files from `from` to `to`.
    fn wal(&self, from: Lsn, to: Lsn) -> Vec<u8> {
        let (segment, mut wal, mut at) = (u64::from(SEGMENT), Vec::new(), from);
        while at < to {
            let name = wal_segment_name(1, at, segment);
            let file = std::fs::read(self.data().join("pg_wal").join(name)).unwrap();
            let end = Lsn((at.0 / segment + 1) * segment).min(to);
            let offset = at.segment_offset(segment) as usize;
            wal.extend_from_slice(&file[offset..offset + (end - at) as usize]);
            at = end;
        }
        wal
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop("immediate");
    }
}

/// A cluster that runs with its standby and three safekeepers.
struct World {
    cluster: Cluster,
    keepers: [Safekeeper; 3],
    from: Lsn,
    hold: watch::Sender<Option<String>>,
    standby: tokio::task::JoinHandle<Result<(), StandbyError>>,
    quorum: Quorum,
    shutdown: Shutdown,
}

impl World {
    async fn start() -> Self {
        let cluster = Cluster::make();
        let control = cluster.control();
        // As after a synthetic checkpoint: the term begins with that record.
        let from = control.checkpoint_lsn();
        let shape = WalShape {
            version: pg::PgMajor::V15,
            segment_bytes: control.segment_bytes(),
            system_id: control.system_id(),
            tli: 1,
        };
        let keepers = [
            Safekeeper::start(1).await,
            Safekeeper::start(2).await,
            Safekeeper::start(3).await,
        ];
        let shutdown = Shutdown::new();
        let [a, b, c] = &keepers;
        let quorum = propose(&[a, b, c], control.system_id(), from, &shutdown);
        assert_eq!(quorum.elected().await.unwrap().start, from);
        cluster.start();
        let config = StandbyConfig {
            socket_dir: cluster.socket().to_owned(),
            port: PORT,
            application_name: NAME.to_owned(),
            from,
            shape,
        };
        let (on_sync, mut synced) = watch::channel(false);
        let (hold, held) = watch::channel(None);
        let (of, stop) = (quorum.clone(), shutdown.clone());
        let standby = shutdown.spawn("standby", async move {
            Standby::run(config, &of, on_sync, held, stop).await
        });
        let in_time = tokio::time::timeout(LONG, synced.wait_for(|s| *s)).await;
        assert!(matches!(in_time, Ok(Ok(_))), "never became synchronous");
        Self {
            cluster,
            keepers,
            from,
            hold,
            standby,
            quorum,
            shutdown,
        }
    }

    /// Runs `sql`, which must not come back before `release`.
    async fn waits(&self, sql: &str, table: &str, release: impl FnOnce()) {
        let before = self
            .cluster
            .sql(&format!("SELECT count(*) FROM {table}"))
            .await;
        let mut waiting = tokio::process::Command::from(self.cluster.psql(sql))
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(
            waiting.try_wait().unwrap().is_none(),
            "the commit came back"
        );
        let seen = self
            .cluster
            .sql(&format!("SELECT count(*) FROM {table}"))
            .await;
        assert_eq!(before, seen, "others see what is not committed");
        release();
        let done = tokio::time::timeout(LONG, waiting.wait()).await.unwrap();
        assert!(done.unwrap().success());
        let after = self
            .cluster
            .sql(&format!("SELECT count(*) FROM {table}"))
            .await;
        assert_ne!(before, after);
    }
}

const WORK: [&str; 9] = [
    "INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(1, 20000) n",
    "UPDATE t SET b = 'y' WHERE a % 3 = 0",
    "SELECT pg_logical_emit_message(true, 'p', repeat('m', 3000000))",
    "SELECT pg_switch_wal()",
    "CREATE INDEX ON t (a)",
    "CHECKPOINT",
    "DELETE FROM t WHERE a % 2 = 0",
    "VACUUM t",
    "INSERT INTO t SELECT n FROM generate_series(1, 100000) n",
];

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_what_the_quorum_has() {
    let mut world = World::start().await;
    let cluster = &world.cluster;
    cluster.sql("CREATE TABLE t (a int, b text)").await;

    let insert = "INSERT INTO t VALUES (1)";
    let [first, second, _] = &world.keepers;
    first.answer(false);
    cluster.sql(insert).await;
    second.answer(false);
    world.waits(insert, "t", || second.answer(true)).await;
    first.answer(true);

    let reason = Some("ingest stopped at a record".to_owned());
    world.hold.send_replace(reason);
    let go_on = || drop(world.hold.send_replace(None));
    world.waits(insert, "t", go_on).await;

    for sql in WORK {
        cluster.sql(sql).await;
    }
    let begun = std::time::Instant::now();
    let many = (0..300).map(|_| insert).collect::<Vec<_>>().join("' -c '");
    let many = format!(
        "psql -XAtq -h {} -p {PORT} -U postgres -c '{many}'",
        cluster.socket().display()
    );
    tokio::task::spawn_blocking(move || run(&many))
        .await
        .unwrap();
    println!("300 commits in {:?}", begun.elapsed());

    // A fast stop waits until everything is acknowledged, and is no error.
    cluster.stop("fast");
    let ended = tokio::time::timeout(LONG, &mut world.standby)
        .await
        .unwrap();
    ended.unwrap().unwrap();
    let control = cluster.control();
    assert_eq!(control.state(), 1, "not shut down cleanly");
    let end = *world.quorum.committed().borrow();
    assert!(end > control.checkpoint_lsn());
    let files = cluster.wal(world.from, end);
    for keeper in &world.keepers {
        keeper.until_flushed(end).await;
        assert!(keeper.wal(world.from) == files, "{} differs", keeper.node);
    }
    world.shutdown.request();
    world.shutdown.finished().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_goes_away_is_an_error() {
    let mut world = World::start().await;
    world.cluster.stop("immediate");
    let ended = tokio::time::timeout(LONG, &mut world.standby)
        .await
        .unwrap();
    let error = ended.unwrap().unwrap_err();
    assert!(matches!(error, StandbyError::Postgres { .. }), "{error}");
}
