//! A directory in which servers of one release run.

use std::fs;
use std::path::{Path, PathBuf};

use ids::Lsn;
use tempfile::TempDir;

use crate::{Release, sh};

/// No server writes anything of its own accord that recovery would not write too.
const QUIET: &str = "-c autovacuum=off -c fsync=off -c listen_addresses='' \
    -c max_logical_replication_workers=0 -c bgwriter_lru_maxpages=0 -c max_wal_size=40GB \
    -c wal_keep_size=40GB -c max_prepared_transactions=9 -c shared_buffers=256MB";

/// A directory, gone when this is dropped, with data directories of servers in it.
///
/// One server runs at a time; its socket is in the directory. One that still runs at the end, as a
/// test failed, is stopped.
pub struct Scene {
    /// Whose servers these are.
    pub release: Release,
    directory: TempDir,
}

impl Scene {
    /// An empty one, which the server's user reaches too.
    pub fn of(release: Release) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("redoubt-stock")
            .tempdir_in("/tmp")
            .unwrap();
        let open = format!("chmod 777 {}", directory.path().display());
        sh(Path::new("/tmp"), &open, false);
        Self { release, directory }
    }

    /// Where it is.
    pub fn at(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a script there as the server's user, with the release's programs first in `PATH`.
    pub fn run(&self, script: &str) -> String {
        let bin = self.release.bin.display();
        sh(self.at(), &format!("PATH={bin}:$PATH; {script}"), true)
    }

    /// Makes the data directory `data`; `options`: more of them for `initdb`.
    pub fn initdb(&self, options: &str) -> PathBuf {
        self.run(&format!(
            "initdb -D data -U postgres -A trust -N {options} >init.log && chmod -R a+rX data"
        ));
        self.at().join("data")
    }

    /// Starts the server of the data directory `name` and waits until it answers.
    pub fn start(&self, name: &str, settings: &str) {
        let socket = self.at().display();
        self.run(&format!(
            "rm -f {name}.log; chmod 700 {name}; pg_ctl -D {name} -w -l {name}.log \
             -o \"{QUIET} {settings} -k {socket}\" start >start.log"
        ));
    }

    /// Stops it; mode `immediate` as a crash would.
    pub fn stop(&self, name: &str, mode: &str) {
        self.run(&format!(
            "pg_ctl -D {name} -w -m {mode} stop >stop.log && chmod -R a+rX {name}"
        ));
    }

    /// What the running server answers to SQL, without headings.
    pub fn psql(&self, sql: &str) -> String {
        fs::write(self.at().join("statement.sql"), sql).unwrap();
        self.script("statement.sql", 0)
    }

    /// Runs the file `name`, of which `wrong` statements must fail.
    pub fn script(&self, name: &str, wrong: usize) -> String {
        sh(self.at(), &format!("chmod a+r {name}"), false);
        let to = self.to();
        let answer = self.run(&format!(
            "psql {to} -X -v ON_ERROR_STOP=0 -qAt -f {name} 2>{name}.err"
        ));
        let said = fs::read_to_string(self.at().join(format!("{name}.err"))).unwrap();
        let errors: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("ERROR") || line.contains("FATAL"))
            .collect();
        assert_eq!(errors.len(), wrong, "{errors:#?}");
        answer
    }

    /// Lets `pgbench` work.
    pub fn bench(&self, options: &str) {
        let to = self.to();
        self.run(&format!(
            "pgbench {options} {to} postgres >bench.log 2>&1 || {{ tail bench.log >&2; exit 1; }}"
        ));
    }

    /// Where a client finds the running server.
    pub fn to(&self) -> String {
        format!("-h {} -U postgres", self.at().display())
    }

    /// Where WAL ends.
    pub fn insert_lsn(&self) -> Lsn {
        let end = self.psql("select pg_current_wal_insert_lsn()");
        end.trim().parse().unwrap()
    }

    /// A field of what `pg_controldata` says of the data directory `name`.
    pub fn control(&self, name: &str, field: &str) -> String {
        let text = self.run(&format!("pg_controldata {name}"));
        let line = text.lines().find(|line| line.starts_with(field));
        let line = line.unwrap_or_else(|| panic!("no {field} in {text}"));
        line.rsplit(' ').next().unwrap().to_owned()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.run(
            "for pid in */postmaster.pid; do
                 [ ! -e $pid ] || pg_ctl -D ${pid%/*} -m immediate stop >stop.log || true
             done",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DEBIAN;

    #[test]
    fn a_server_that_still_runs_ends_with_its_scene() {
        let scene = Scene::of(Release::of(DEBIAN));
        scene.initdb("");
        scene.start("data", "");
        let pid = fs::read_to_string(scene.at().join("data/postmaster.pid")).unwrap();
        let process = PathBuf::from("/proc").join(pid.lines().next().unwrap());
        // One that has ended has no command, though nobody may have waited for it.
        let runs = || fs::read(process.join("cmdline")).is_ok_and(|command| !command.is_empty());
        assert!(runs());
        drop(scene);
        assert!(!runs());
    }
}
