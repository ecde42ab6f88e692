//! The steps of the tour.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use sealed::ObjectKind;

use super::Tour;
use super::search::{files, holding, sealed_file};
use crate::exit::Failure;
use crate::local::clock::UnixTime;
use crate::local::postgres::{self, complaint, text};
use crate::local::system::MAIN;

/// What nobody must find.
const MARKER: &str = "the-row-that-nobody-must-find";
/// Rows that the tour writes.
const ROWS: &str = "2000";
/// Seconds of load while a safekeeper is dead.
const LOAD: &str = "8";

impl<W: Write> Tour<'_, W> {
    pub(super) fn write_rows(&mut self) -> Result<(), Failure> {
        self.title("Rows are written; a COMMIT returns once two of three safekeepers have them")?;
        self.sql(
            MAIN,
            "drop table if exists tour; create table tour (n int primary key, secret text)",
        )?;
        let insert = format!(
            "insert into tour select n, '{MARKER}-' || n from generate_series(1, {ROWS}) n"
        );
        self.sql(MAIN, &insert)?;
        self.redoubt(&["dev", "flush"])?;
        self.redoubt(&["dev", "status"])?;
        Ok(())
    }

    pub(super) fn look_at_sealed_files(&mut self) -> Result<(), Failure> {
        self.title("A WAL segment of a safekeeper and a layer: what they say needs no key")?;
        let wal = sealed_file(&self.home.data("safekeeper-1"), ObjectKind::LocalWal);
        self.expect("no sealed WAL segment is there", wal.is_some())?;
        // In an S3 bucket the layers are elsewhere; the pageserver's own copies are looked at.
        let places = [self.home.bucket(), self.home.data("pageserver-1")];
        let layer = places.iter().find_map(|place| {
            sealed_file(place, ObjectKind::DeltaLayer)
                .or_else(|| sealed_file(place, ObjectKind::ImageLayer))
        });
        self.expect(
            "no sealed layer is there",
            layer.is_some() || self.system.bucket.url.is_some(),
        )?;
        for path in wal.iter().chain(&layer) {
            let path = path.display().to_string();
            self.redoubt(&["sealed", "inspect", &path])?;
            self.redoubt(&["sealed", "verify", &path])?;
        }
        Ok(())
    }

    pub(super) fn search_everything(&mut self) -> Result<(), Failure> {
        self.title("The rows' text is in no file of any process, log or object")?;
        let all = files(&self.home.root);
        let found = holding(&all, MARKER);
        writeln!(
            self.out,
            "{} files searched for {MARKER}: {} hold it",
            all.len(),
            found.len()
        )?;
        if let Some(url) = &self.system.bucket.url {
            writeln!(self.out, "(objects in {url} are not among these files)")?;
        }
        let names: Vec<String> = found.iter().map(|p| p.display().to_string()).collect();
        self.expect(&format!("found in {}", names.join(", ")), found.is_empty())?;

        // A search that cannot find would prove nothing.
        let plain = self.home.root.join("plain-copy");
        let rows = postgres::query(
            self.home,
            self.system,
            self.system.branch(MAIN)?,
            "select secret from tour",
        )?;
        let control = std::fs::write(&plain, rows)
            .map(|()| holding(std::slice::from_ref(&plain), MARKER).len());
        drop(std::fs::remove_file(&plain));
        let hits = control.map_err(Failure::doing("write a copy of the rows"))?;
        writeln!(
            self.out,
            "the same search over a plain copy of the table: {hits} holds it"
        )?;
        self.expect("the search does not find a plain copy", hits == 1)
    }

    pub(super) fn lose_the_compute(&mut self) -> Result<(), Failure> {
        self.title("The compute is killed and its directory deleted: it is made of nothing else")?;
        let name = self.system.branch(MAIN)?.compute();
        self.redoubt(&["dev", "kill", &name])?;
        // Its Postgres ends by the watchdog; only then is the directory nobody's.
        let directory = self.home.data(&name);
        let mut left = Vec::new();
        for _ in 0..100 {
            left = postgres::processes(&directory, None);
            if left.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.expect("Postgres outlives its agent", left.is_empty())?;
        writeln!(self.out, "$ rm -r {}", directory.display())?;
        crate::local::launch::unmount_below(&directory)?;
        std::fs::remove_dir_all(&directory).map_err(Failure::doing(format_args!(
            "remove {}",
            directory.display()
        )))?;
        self.redoubt(&["dev", "start", &name])?;
        let count = self.sql(MAIN, "select count(*) from tour")?;
        self.expect("rows are missing", count == ROWS)
    }

    pub(super) fn lose_a_safekeeper(&mut self) -> Result<(), Failure> {
        self.title("A safekeeper is killed under load: nothing stops")?;
        let branch = self.system.branch(MAIN)?;
        let pgbench = |arguments: &[&str]| -> Result<_, Failure> {
            let mut command = postgres::client("pgbench", self.home, self.system, branch)?;
            command.args(arguments).stdin(Stdio::null());
            Ok(command)
        };
        let (initialize, load) = (
            pgbench(&["-i", "-q", "-s", "1"])?,
            pgbench(&["-n", "-c", "4", "-T", LOAD])?,
        );
        self.show("pgbench -i -q -s 1", initialize)?;
        writeln!(self.out, "$ pgbench -n -c 4 -T {LOAD} &")?;
        let mut load = load;
        let running = load
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Failure::doing("run pgbench"))?;
        std::thread::sleep(Duration::from_secs(2));
        self.redoubt(&["dev", "kill", "safekeeper-2"])?;
        std::thread::sleep(Duration::from_secs(2));
        self.redoubt(&["dev", "start", "safekeeper-2"])?;
        let output = running
            .wait_with_output()
            .map_err(Failure::doing("wait for pgbench"))?;
        writeln!(self.out, "{}", text(&output.stdout))?;
        let failure = format!("pgbench saw an error: {}", complaint(&output));
        self.expect(&failure, output.status.success())?;
        let equal = self.sql(
            MAIN,
            "select (select sum(abalance) from pgbench_accounts) = \
             (select sum(delta) from pgbench_history)",
        )?;
        self.expect("the balances differ", equal == "t")
    }

    pub(super) fn branch_before_an_accident(&mut self) -> Result<(), Failure> {
        self.title("A branch as of a time before an accident")?;
        let before = UnixTime::now();
        std::thread::sleep(Duration::from_secs(1));
        self.sql(MAIN, "delete from tour")?;
        let name = format!("before-{}", before.seconds());
        self.redoubt(&["branch", "create", &name, "--at", &before.to_string()])?;
        let on_main = self.sql(MAIN, "select count(*) from tour")?;
        let on_branch = self.sql(&name, "select count(*) from tour")?;
        self.expect("the accident did not happen", on_main == "0")?;
        self.expect("the branch lacks rows", on_branch == ROWS)?;
        self.sql(&name, "insert into tour values (-1, 'on the branch alone')")?;
        let on_main = self.sql(MAIN, "select count(*) from tour")?;
        self.expect("the branch wrote to its parent", on_main == "0")
    }

    pub(super) fn revoke(&mut self) -> Result<(), Failure> {
        self.title("The key is taken away, and given back")?;
        if !matches!(self.system.kms, crate::local::system::KmsKind::Local) {
            writeln!(
                self.out,
                "(this key is in AWS KMS: `redoubt drill revoke --help`)"
            )?;
            return Ok(());
        }
        self.redoubt(&["drill", "revoke"])?;
        Ok(())
    }
}
