//! Stock PostgreSQL 15 on the sealed disk, under the watchdog. Needs root, `/dev/fuse`, the
//! system users `postgres` and `redoubt`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod cluster;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use compute::boot::archive;
use compute::boot::shutdown::SyntheticShutdown;
use compute::config::Owner;
use compute::place;
use compute::postgres::settings::{self, Places};
use compute::sandbox::{Directory, Sandbox, Start};
use service::clock::{boottime, unix_seconds};

use cluster::{BIN, Cluster, PASSWORD};

const SECRET: &str = "a-row-that-must-not-lie-on-the-disk";

fn owner() -> Owner {
    let user = nix::unistd::User::from_name("redoubt").unwrap();
    let user = user.expect("scripts/install-deps makes the system user redoubt");
    Owner {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
    }
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: namespaces and mounts need root");
    }
    root
}

async fn sealed(directory: &Directory, deadline: Duration) -> Sandbox {
    let start = Start {
        program: PathBuf::from(env!("CARGO_BIN_EXE_compute")),
        owner: owner(),
        deadline: boottime() + deadline,
        postgres_bin: PathBuf::from(BIN),
        guard: None,
        network: false,
        danger_plain_log: false,
    };
    Sandbox::start(directory, &start).await.unwrap()
}

/// Starts from a backup of `cluster` at its end; answers the program and where its WAL begins.
async fn started(sandbox: &mut Sandbox, cluster: &Cluster) -> (u32, SyntheticShutdown) {
    let disk = sandbox.disk();
    let data = disk.data();
    let backup = archive::unpack(&cluster.backup()[..], &data, owner()).unwrap();
    let made = SyntheticShutdown::after(&backup, unix_seconds()).unwrap();
    let control = made.write(&data, owner()).unwrap();
    sandbox.write_etc("postgresql.conf", "").unwrap();
    sandbox.write_etc("pg_hba.conf", settings::HBA).unwrap();
    sandbox.write_etc("pg_ident.conf", settings::IDENT).unwrap();
    let places = Places {
        data: &place::data(),
        etc: &place::etc(),
        run: &place::run(),
        guard: None,
        standby: None,
    };
    let arguments = settings::arguments(&places, &control, &BTreeMap::new(), &BTreeMap::new());
    let program = sandbox.launch(&Path::new(BIN).join("postgres"), arguments, String::new());
    for _ in 0..200 {
        if sql(sandbox, "select 1").is_ok() {
            return (program, made);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("PostgreSQL does not answer: {:?}", sql(sandbox, "select 1"));
}

fn sql(sandbox: &Sandbox, text: &str) -> Result<String, String> {
    sql_at(&sandbox.sockets(), text)
}

fn sql_at(sockets: &Path, text: &str) -> Result<String, String> {
    let out = Command::new(format!("{BIN}/psql"))
        .args(["-XAtq", "-U", "postgres", "-h"])
        .arg(sockets)
        .args(["-c", text, "postgres"])
        .env("PGPASSWORD", PASSWORD)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if out.status.success() {
        Ok(text(&out.stdout))
    } else {
        Err(text(&out.stderr))
    }
}

/// C6: what a superuser gets to see.
fn nothing_of_the_machine_is_seen(sandbox: &Sandbox, at: &Path) {
    let program = |command: &str| {
        let text = format!(
            "create temp table o (x text); copy o from program $c${command}$c$; \
             select string_agg(x, ' ' order by x) from o"
        );
        sql(sandbox, &text)
    };
    let root = program("ls /").unwrap();
    let expected = ["dev", "etc", "proc", "redoubt", "tmp", "usr"];
    let linked = |name: &&str| !["bin", "sbin"].contains(name) && !name.starts_with("lib");
    let found: Vec<_> = root.split(' ').filter(linked).collect();
    assert_eq!(found, expected);
    for hidden in [
        at.to_str().unwrap(),
        "/root",
        "/home",
        "/var",
        "/etc/hostname",
        "/etc/shadow",
    ] {
        let seen = program(&format!("ls {hidden}"));
        assert!(seen.is_err(), "{hidden}: {seen:?}");
    }
    assert!(
        program("ls /redoubt/sealed/cipher").is_err(),
        "only root comes in"
    );
    let users = program("cut -d: -f1 /etc/passwd").unwrap();
    assert_eq!(users, "redoubt root");
    // Only what is in the namespace.
    let processes = program("ls /proc | grep -c '^[0-9]'").unwrap();
    assert!(processes.parse::<u32>().unwrap() < 40, "{processes}");
    assert!(program("ls /proc/1/root/").is_err());

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'");
    assert!(program(&connect).is_err(), "no service of this machine");
}

/// The PID namespace of the watchdog whose command line names `at`.
fn namespace(at: &Path) -> PathBuf {
    let at = at.display().to_string();
    let own = namespace_of(std::process::id()).unwrap();
    let named = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&at))
    };
    let mut found = pids().into_iter().filter(named).filter_map(namespace_of);
    found.find(|found| *found != own).expect("a watchdog runs")
}

fn namespace_of(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// The processes in a namespace.
fn processes(namespace: &Path) -> Vec<u32> {
    let inside = |pid: &u32| namespace_of(*pid).is_some_and(|found| found == namespace);
    pids().into_iter().filter(inside).collect()
}

fn pids() -> Vec<u32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

fn lies_in(directory: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return lies_in(&path, needle);
        }
        let bytes = std::fs::read(&path).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}

#[tokio::test]
async fn stock_postgresql_starts_from_a_synthetic_shutdown_on_a_disk_that_shows_nothing() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::new();
    let at = cluster.home().join("agent");
    let directory = Directory::take(&at).unwrap();
    let mut sandbox = sealed(&directory, Duration::from_secs(45)).await;
    let (program, made) = started(&mut sandbox, &cluster).await;

    let lsn = sql(&sandbox, "select pg_current_wal_insert_lsn()").unwrap();
    assert!(lsn.parse::<ids::Lsn>().unwrap() >= made.laid.end);
    let rows = format!(
        "create table t (n int primary key, x text); \
         insert into t select n, '{SECRET}' from generate_series(1, 1000) n; checkpoint"
    );
    sql(&sandbox, &rows).unwrap();
    assert_eq!(sql(&sandbox, "select count(*) from t").unwrap(), "1000");

    // C6: the only place with the row in it is the sealed disk, and it shows nothing.
    assert!(lies_in(
        &sandbox.disk().path("data/base"),
        SECRET.as_bytes()
    ));
    // Sockets lie in memory, where nobody outside sees a file.
    let beside_sockets = place::run().join("copy").display().to_string();
    drop(sql(&sandbox, &format!("copy t to '{beside_sockets}'")));
    assert!(!lies_in(&at, SECRET.as_bytes()));
    assert_eq!(std::fs::read_dir(place::inside(&at)).unwrap().count(), 0);
    for (outside, why) in [
        ("/usr/redoubt-escaped", "Read-only"),
        ("/etc/redoubt-escaped", "Permission denied"),
        ("/redoubt-escaped", "Permission denied"),
        ("/var/tmp/redoubt-escaped", "No such file"),
    ] {
        let copy = sql(&sandbox, &format!("copy t to '{outside}'"));
        let copy = copy.unwrap_err();
        assert!(copy.contains(why), "{outside}: {copy}");
    }
    nothing_of_the_machine_is_seen(&sandbox, &at);
    let program_of = "copy t to program 'cat > /var/tmp/redoubt-escaped'";
    assert!(sql(&sandbox, program_of).is_err());
    assert!(!Path::new("/var/tmp/redoubt-escaped").exists());

    // A clean stop is one, and what it leaves can be packed.
    sandbox.signal(program, nix::sys::signal::Signal::SIGINT);
    assert_eq!(sandbox.exited(program).await.unwrap(), Some(0));
    let namespace = namespace(&at);
    sandbox.kill().await;
    assert_eq!(processes(&namespace), [] as [u32; 0]);
    directory.wipe().unwrap();
    assert!(!place::cipher(&at).exists());
}

#[tokio::test]
async fn the_end_of_the_sandbox_is_the_end_of_postgresql_at_once() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::new();
    let at = cluster.home().join("agent");
    let directory = Directory::take(&at).unwrap();
    let mut sandbox = sealed(&directory, Duration::from_secs(45)).await;
    started(&mut sandbox, &cluster).await;
    let namespace = namespace(&at);
    assert!(processes(&namespace).len() >= 4);
    // What stops the agent's group does not stop the watchdog.
    let group = |pid: Option<i32>| nix::unistd::getpgid(pid.map(nix::unistd::Pid::from_raw));
    for pid in processes(&namespace) {
        let pid = i32::try_from(pid).unwrap();
        assert_ne!(group(Some(pid)), group(None), "{pid}");
    }
    let before = boottime();
    let (disk, sockets) = (sandbox.disk(), sandbox.sockets());
    sandbox.kill().await;
    assert_eq!(processes(&namespace), [] as [u32; 0]);
    assert!(boottime() - before < Duration::from_secs(3));
    // S1: what comes too late does not land on a plain disk.
    assert!(std::fs::write(disk.path("late"), b"x").is_err());
    assert!(sql_at(&sockets, "select 1").is_err());
}

/// The agent of the test below, in a process of its own that can be stopped.
#[tokio::test]
async fn agent_of_the_stop_test() {
    let Ok(home) = std::env::var("REDOUBT_TEST_AGENT") else {
        return;
    };
    let cluster = Cluster::at(Path::new(&home));
    let at = cluster.home().join("agent");
    let directory = Directory::take(&at).unwrap();
    let mut sandbox = sealed(&directory, Duration::from_secs(20)).await;
    let leash = sandbox.leash();
    started(&mut sandbox, &cluster).await;
    std::fs::write(cluster.home().join("ready"), b"").unwrap();
    loop {
        leash.extend(boottime() + Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[test]
fn a_stopped_agent_ends_postgresql_by_the_deadline_and_a_dead_one_at_once() {
    if !is_root() {
        return;
    }
    for (signal, longest) in [("STOP", 20), ("KILL", 0)] {
        let cluster = Cluster::new();
        let at = cluster.home().join("agent");
        let mut agent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "agent_of_the_stop_test"])
            .env("REDOUBT_TEST_AGENT", cluster.home())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let until = |limit: Duration, done: &dyn Fn() -> bool| {
            let begin = boottime();
            while !done() {
                assert!(boottime() - begin < limit, "{signal}: it takes too long");
                std::thread::sleep(Duration::from_millis(50));
            }
            boottime() - begin
        };
        let ready = cluster.home().join("ready");
        until(Duration::from_secs(60), &|| ready.exists());
        let namespace = namespace(&at);
        let pid = agent.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.unwrap().success());
        let took = until(Duration::from_secs(longest + 4), &|| {
            processes(&namespace).is_empty()
        });
        // The deadline itself ended it, nothing before.
        assert!(
            took >= Duration::from_secs(longest.saturating_sub(2)),
            "{took:?}"
        );
        drop(agent.kill());
        drop(agent.wait());
    }
}
