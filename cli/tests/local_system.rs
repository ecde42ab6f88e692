//! `redoubt dev` and `redoubt branch`, driving stand-ins for the processes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A system in a directory of its own, on ports of its own; it is taken down at the end.
struct Cell {
    directory: tempfile::TempDir,
    offset: u16,
    _claim: File,
}

impl Cell {
    fn new() -> Self {
        let directory = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let programs = directory.path().join("programs");
        std::fs::create_dir(&programs).unwrap();
        let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand_in.py");
        for name in ["keymanager", "safekeeper", "pageserver", "compute"] {
            // A copy by a program of its own: a file that another thread's fork holds open for
            // writing cannot be run.
            let to = programs.join(name);
            let copied = Command::new("install")
                .arg("-m755")
                .arg(&stand_in)
                .arg(to)
                .status();
            assert!(copied.unwrap().success());
        }
        std::fs::write(programs.join("redoubt_guard.so"), "no module").unwrap();
        let (offset, claim) = free_offset();
        Self {
            directory,
            offset,
            _claim: claim,
        }
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join("programs").join(name)
    }

    fn redoubt(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_redoubt"))
            .args(arguments)
            .env("REDOUBT_HOME", self.home())
            .env("REDOUBT_PROGRAMS", self.directory.path().join("programs"))
            .output()
            .unwrap()
    }

    fn does(&self, arguments: &[&str]) -> String {
        let output = self.redoubt(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out
    }

    fn refuses(&self, arguments: &[&str], code: i32) -> String {
        let output = self.redoubt(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn up(&self) -> String {
        self.does(&["dev", "up", "--port-offset", &self.offset.to_string()])
    }

    fn processes(&self) -> Vec<Value> {
        let status: Value = serde_json::from_str(&self.does(&["dev", "status", "--json"])).unwrap();
        status["processes"].as_array().unwrap().clone()
    }

    fn process(&self, name: &str) -> Value {
        let mut processes = self.processes().into_iter();
        processes.find(|process| process["name"] == name).unwrap()
    }

    fn pids(&self) -> Vec<Option<i64>> {
        let processes = self.processes();
        processes
            .iter()
            .map(|process| process["pid"].as_i64())
            .collect()
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.home().join("logs").join(format!("{name}.log"))).unwrap()
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        drop(self.redoubt(&["dev", "down", "--purge"]));
    }
}

/// An offset whose ports nobody listens on; offsets ten apart share none. The locked file keeps
/// other tests away, those of other processes too.
fn free_offset() -> (u16, File) {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let wanted = [
        7800, 5454, 5455, 5456, 7676, 7677, 7678, 64000, 9898, 55432, 55433, 56500,
    ];
    let claimed = (10..150).find_map(|n| {
        let path = std::env::temp_dir().join(format!("redoubt-test-ports-{n}"));
        let file = File::create(path).unwrap();
        file.try_lock().ok()?;
        let offset = n * 10;
        let all_free = wanted.iter().all(|port| free(port + offset));
        all_free.then_some((offset, file))
    });
    claimed.unwrap()
}

#[test]
fn up_is_idempotent_and_starts_again_what_died() {
    let cell = Cell::new();
    let shown = cell.up();
    let port = 55432 + cell.offset;
    assert!(shown.contains("redoubt psql") && shown.contains(&format!(":{port}/postgres")));
    for process in cell.processes() {
        assert_eq!(process["state"], "running", "{process}");
        assert_eq!(process["ready"], true, "{process}");
    }
    assert_eq!(cell.process("safekeeper-2")["lsn"]["main"], "0/16B3748");
    assert_eq!(cell.process("pageserver-1")["lsn"]["main"], "0/16B3748");

    let before = cell.pids();
    cell.up();
    assert_eq!(cell.pids(), before, "what runs is left running");

    let config = cell.home().join("config/compute-main.toml");
    let epoch_is = |n: u64| {
        let text = std::fs::read_to_string(&config).unwrap();
        text.contains(&format!("endpoint_epoch = {n}\n"))
    };
    assert!(epoch_is(1), "C1: what runs is not started again");
    cell.does(&["dev", "kill", "compute-main"]);
    cell.does(&["dev", "start", "compute-main"]);
    assert!(epoch_is(2), "C1");
    cell.does(&["dev", "kill", "compute-main"]);
    cell.does(&["dev", "start", "compute-main", "--no-wait"]);
    assert!(epoch_is(3), "C1");

    cell.does(&["dev", "kill", "safekeeper-2"]);
    assert_eq!(cell.process("safekeeper-2")["state"], "died");
    cell.does(&["dev", "start", "safekeeper-2"]);
    assert_eq!(cell.process("safekeeper-2")["ready"], true);

    for process in cell.processes() {
        cell.does(&["dev", "kill", process["name"].as_str().unwrap()]);
    }
    assert!(cell.pids().iter().all(Option::is_none));
    std::fs::remove_dir_all(cell.home().join("compute-main")).unwrap();
    cell.up();
    assert!(
        cell.processes()
            .iter()
            .all(|process| process["ready"] == true)
    );
    let created = cell.log("compute-main").matches("created").count();
    assert_eq!(created, 1, "a project is imported once");
}

#[test]
fn a_signal_pauses_and_down_ends_even_what_is_paused() {
    let cell = Cell::new();
    cell.up();
    cell.does(&["dev", "kill", "compute-main", "--signal", "STOP"]);
    let paused = cell.process("compute-main");
    assert_eq!(
        (&paused["state"], &paused["ready"]),
        (&"paused".into(), &false.into())
    );
    let shown = cell.does(&["dev", "down"]);
    assert!(
        shown.contains("stopped") && !shown.contains("killed"),
        "{shown}"
    );
    assert!(
        cell.processes()
            .iter()
            .all(|process| process["state"] == "stopped")
    );
    cell.refuses(&["dev", "kill", "compute-main"], 2);
    cell.does(&["dev", "down", "--purge"]);
    assert!(!cell.home().exists());
    cell.refuses(&["dev", "status"], 2);
}

#[test]
fn a_process_that_ends_at_its_start_is_named_with_its_last_words() {
    let cell = Cell::new();
    std::fs::write(cell.beside("pageserver.dies"), "").unwrap();
    let offset = cell.offset.to_string();
    let up = ["dev", "up", "--port-offset", offset.as_str()];
    let said = cell.refuses(&up, 5);
    assert!(
        said.contains("pageserver-1 ended") && said.contains("the reason why"),
        "{said}"
    );
    std::fs::remove_file(cell.beside("pageserver.dies")).unwrap();
    cell.up();
    std::fs::remove_file(cell.beside("keymanager")).unwrap();
    assert!(cell.refuses(&up, 2).contains("keymanager is missing"));
}

#[test]
fn a_directory_that_postgres_cannot_reach_is_refused_before_anything_is_made() {
    let cell = Cell::new();
    let shut = cell.directory.path().join("shut");
    std::fs::create_dir(&shut).unwrap();
    std::fs::set_permissions(&shut, std::fs::Permissions::from_mode(0o700)).unwrap();
    let below = shut.join("home").display().to_string();
    let said = cell.refuses(&["dev", "up", "--directory", &below], 2);
    assert!(said.contains("keeps Postgres's user out"), "{said}");
    assert!(!shut.join("home").exists());
}

#[test]
fn a_branch_begins_at_the_time_that_is_meant_and_gets_a_compute() {
    let cell = Cell::new();
    cell.up();
    cell.does(&["branch", "create", "before", "--at", "5 minutes ago"]);
    let list = cell.does(&["branch", "list", "--json"]);
    let branches: Value = serde_json::from_str(&list).unwrap();
    let (main, before) = (&branches[0], &branches[1]);
    assert_eq!(before["at"], "0/1600000");
    assert_eq!(before["from"], "main");
    assert_eq!(before["compute"], "running");
    assert_eq!(
        before["port"].as_u64(),
        main["port"].as_u64().map(|port| port + 1)
    );
    assert_ne!(before["timeline"], main["timeline"]);
    let asked = cell.log("pageserver-1");
    assert!(
        asked.contains(before["timeline"].as_str().unwrap()),
        "{asked}"
    );

    let url = cell.does(&["psql", "--print-url", "--branch", "before"]);
    assert!(url.contains(&format!(":{}/", before["port"])), "{url}");
    cell.refuses(&["branch", "create", "before"], 2);
    cell.refuses(
        &["branch", "create", "x", "--at", "1970-01-02T00:00:00Z"],
        2,
    );
    cell.refuses(&["branch", "create", "x", "--at", "once"], 2);
    cell.refuses(&["branch", "create", "x", "--from", "nowhere"], 2);
    let after = cell.does(&["branch", "list", "--json"]);
    let after: Value = serde_json::from_str(&after).unwrap();
    assert_eq!(
        after.as_array().unwrap().len(),
        2,
        "what is refused leaves nothing"
    );
}

#[test]
fn the_master_key_is_set_by_a_word_in_a_file() {
    let cell = Cell::new();
    cell.up();
    let state = || std::fs::read_to_string(cell.home().join("kms/state")).unwrap();
    cell.does(&["dev", "key", "--state", "disabled"]);
    assert_eq!(state(), "disabled");
    cell.does(&["dev", "key", "--state=enabled"]);
    assert_eq!(state(), "enabled");
    cell.refuses(&["dev", "key"], 2);
}
