//! A run of the workload on a stock PostgreSQL 15.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use ids::Lsn;
use tempfile::TempDir;

use super::postgres;

/// A run of the workload; the directory goes with it.
pub(super) struct Cluster {
    directory: TempDir,
}

impl Cluster {
    /// Runs the workload, and ends the server as a crash would.
    pub(super) fn run(full_page_writes: bool) -> Self {
        let directory = postgres::directory();
        let at = directory.path();
        postgres::initdb(at);
        postgres::sh(at, "cp -r data base", true);
        let settings = format!("-c full_page_writes={full_page_writes}");
        postgres::start(at, "data", &settings);
        postgres::write_everything(at);
        postgres::stop(at, "data", "immediate");
        Self { directory }
    }

    fn at(&self) -> &Path {
        self.directory.path()
    }

    /// The files of the base copy.
    pub(super) fn base(&self) -> BTreeMap<String, Bytes> {
        postgres::files(&self.at().join("base"))
    }

    /// The bytes of WAL from `start` on.
    pub(super) fn wal(&self, start: Lsn) -> Vec<u8> {
        postgres::wal(self.at(), "data", start)
    }

    /// Lets the stock server recover the base copy and WAL up to `cut`; answers its files.
    pub(super) fn recover(&self, cut: Lsn, last_record: Lsn) -> BTreeMap<String, Bytes> {
        let recovered = postgres::recover(self.at(), "base", "data", cut, "cut");
        assert_eq!(postgres::redo_done_at(self.at(), "cut"), last_record);
        postgres::files(&recovered)
    }
}
