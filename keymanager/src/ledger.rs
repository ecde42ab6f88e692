//! The audit ledger: one line per batch, each chained to the one before by its hash (K4).
//!
//! A line is `<hash> <record>`, with hash = SHA-256(hash before | record). An answer leaves only
//! after its record is on disk.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The disk failed.
    #[error("the audit ledger: {0}")]
    Io(#[from] std::io::Error),
    /// Another process writes it.
    #[error("the audit ledger is open in another process: one keymanager, one ledger")]
    InUse,
    /// A record has no JSON form.
    #[error("the audit record: {0}")]
    Record(#[from] serde_json::Error),
    /// A line is not the successor of the one before it.
    #[error("line {line} of the audit ledger breaks the chain")]
    Broken {
        /// Its number, from 1.
        line: u64,
    },
    /// An earlier append failed, so the end of the file is not known.
    #[error("the audit ledger is closed after a failed write")]
    Closed,
}

/// A hash-chained file.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    last: [u8; 32],
    usable: bool,
}

fn successor(last: &[u8; 32], record: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(last)
        .chain_update(record)
        .finalize()
        .into()
}

impl Ledger {
    /// Opens the ledger, verifies its chain, and removes a torn last line: a line without its
    /// end was never synced, so no answer left on its strength.
    ///
    /// # Errors
    /// [`LedgerError::Broken`] where the chain does not hold, [`LedgerError::InUse`] where
    /// another process has it.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        // A second writer would put its records where this one puts its own.
        file.try_lock().map_err(|_| LedgerError::InUse)?;
        let (mut last, mut end, mut number) = ([0; 32], 0, 0);
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            number += 1;
            last = verified(&last, &line).ok_or(LedgerError::Broken { line: number })?;
            end += line.len() as u64;
            line.clear();
        }
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        file.sync_all()?;
        if let Some(directory) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            File::open(directory)?.sync_all()?;
        }
        Ok(Self {
            file,
            last,
            usable: true,
        })
    }

    /// Appends one record and returns when it is durable.
    ///
    /// # Errors
    /// [`LedgerError`]; after a failed write every later append fails too.
    pub fn append(&mut self, record: &impl Serialize) -> Result<(), LedgerError> {
        let record = serde_json::to_string(record)?;
        if !std::mem::replace(&mut self.usable, false) {
            return Err(LedgerError::Closed);
        }
        let hash = successor(&self.last, &record);
        self.file
            .write_all(format!("{} {record}\n", hex::encode(hash)).as_bytes())?;
        self.file.sync_data()?;
        self.last = hash;
        self.usable = true;
        Ok(())
    }

    /// Reads the end of the ledger without holding up those who append.
    ///
    /// # Errors
    /// [`LedgerError::Io`].
    pub fn reader(&self) -> Result<Reader, LedgerError> {
        Ok(Reader {
            file: self.file.try_clone()?,
            head: self.last,
        })
    }

    /// The hash of the last record; zeros where there is none.
    #[must_use]
    pub const fn head(&self) -> &[u8; 32] {
        &self.last
    }
}

/// How far back the end of a ledger is read.
const TAIL_BYTES: u64 = 8 << 20;

/// The ledger as it was at one moment, for reading.
#[derive(Debug)]
pub struct Reader {
    file: File,
    /// The hash of its last record.
    pub head: [u8; 32],
}

impl Reader {
    /// The newest `limit` records that are `wanted`, oldest first, of the last
    /// few megabytes.
    ///
    /// # Errors
    /// [`LedgerError::Io`].
    pub fn tail(
        &self,
        limit: usize,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Vec<Value>, LedgerError> {
        let end = self.file.metadata()?.len();
        let from = end.saturating_sub(TAIL_BYTES);
        let mut bytes = vec![0; usize::try_from(end - from).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, from)?;
        let mut records: Vec<Value> = bytes
            .split(|byte| *byte == b'\n')
            .rev()
            // A line that begins before the part, or is being written, has no such form.
            .filter_map(|line| serde_json::from_slice(line.get(65..)?).ok())
            .filter(wanted)
            .take(limit)
            .collect();
        records.reverse();
        Ok(records)
    }
}

fn verified(last: &[u8; 32], line: &[u8]) -> Option<[u8; 32]> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (hash, record) = line.split_once(' ')?;
    let expected = successor(last, record);
    (hash == hex::encode(expected)).then_some(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_goes_on_after_a_restart_and_a_torn_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let mut ledger = Ledger::open(&path).unwrap();
        ledger.append(&"first").unwrap();
        let head = *ledger.head();
        drop(ledger);
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"abc torn")
            .unwrap();
        let mut ledger = Ledger::open(&path).unwrap();
        assert_eq!(*ledger.head(), head);
        ledger.append(&"second").unwrap();
        let reader = ledger.reader().unwrap();
        assert_eq!(reader.head, *ledger.head());
        assert_eq!(reader.tail(9, |_| true).unwrap(), ["first", "second"]);
        assert_eq!(reader.tail(1, |_| true).unwrap(), ["second"]);
        assert_eq!(reader.tail(1, |r| r == "first").unwrap(), ["first"]);
        drop(reader);
        let head = *ledger.head();
        drop(ledger);
        assert_eq!(*Ledger::open(&path).unwrap().head(), head);
    }

    #[test]
    fn a_second_writer_and_a_changed_or_removed_line_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let mut ledger = Ledger::open(&path).unwrap();
        for record in ["one", "two", "three"] {
            ledger.append(&record).unwrap();
        }
        assert!(matches!(Ledger::open(&path), Err(LedgerError::InUse)));
        drop(ledger);
        let good = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, good.replace("two", "owt")).unwrap();
        assert!(matches!(
            Ledger::open(&path),
            Err(LedgerError::Broken { line: 2 })
        ));
        let without: String = good
            .lines()
            .filter(|line| !line.contains("two"))
            .map(|l| format!("{l}\n"))
            .collect();
        std::fs::write(&path, without).unwrap();
        assert!(matches!(
            Ledger::open(&path),
            Err(LedgerError::Broken { line: 2 })
        ));
    }
}
