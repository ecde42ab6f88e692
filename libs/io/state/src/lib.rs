//! Node-local durable state: typed tables of opaque values.
//!
//! A commit is on the disk when it returns; commits that wait at the same time share one sync.
//! A database that is damaged does not open: the node has to be filled anew from its peers or the
//! bucket, since an acceptor that forgot a vote would break its promises. An incomplete last write
//! is no damage: a power failure or a kill leaves it, and what is written was synced before the
//! next write began, so nobody was told of it.
#![forbid(unsafe_code)]

mod table;
mod writer;

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{DB, DBRecoveryMode, Direction, IteratorMode, Options};

pub use table::{Batch, Table, TableKey};
use writer::Writer;

/// State that cannot be opened, read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    /// The database does not open: in use, damaged, or from a torn write.
    #[error("cannot open the state in {path}: {reason}")]
    Open {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A read failed.
    #[error("cannot read the state: {0}")]
    Read(String),
    /// A commit failed: it may or may not be on the disk. Nothing is committed after it.
    #[error("cannot write the state: {0}")]
    Write(String),
    /// A key of a table does not read as its type.
    #[error("a key of table {0} is damaged")]
    DamagedKey(&'static str),
}

/// The state of one node. Clones are the same.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    // Before `db`: the writer has to end before the database closes.
    writer: Writer,
    db: Arc<DB>,
}

impl State {
    /// Opens the state in the directory `path`, which is made if it is not there.
    ///
    /// # Errors
    /// [`StateError::Open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StateError> {
        let path = path.as_ref();
        let refused = |reason| StateError::Open {
            path: path.to_owned(),
            reason,
        };
        let mut options = Options::default();
        options.create_if_missing(true);
        // Refuses bad checksums wherever they are. Absolute consistency would refuse every node
        // of a cell that lost power in the middle of a write, too.
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_paranoid_checks(true);
        options.set_keep_log_file_num(4);
        options.set_write_buffer_size(16 << 20);
        let db = Arc::new(DB::open(&options, path).map_err(|e| refused(e.to_string()))?);
        let writer = Writer::start(db.clone()).map_err(|e| refused(e.to_string()))?;
        Ok(Self(Arc::new(Inner { writer, db })))
    }

    /// The value under `key`.
    ///
    /// # Errors
    /// [`StateError::Read`].
    pub fn get<K: TableKey>(&self, table: &Table<K>, key: &K) -> Result<Option<Bytes>, StateError> {
        let value = self
            .0
            .db
            .get(table.full_key(key))
            .map_err(|e| StateError::Read(e.to_string()))?;
        Ok(value.map(Bytes::from))
    }

    /// Everything in `table`, in the order of the encoded keys.
    ///
    /// # Errors
    /// [`StateError::Read`], [`StateError::DamagedKey`].
    pub fn scan<K: TableKey>(&self, table: &Table<K>) -> Result<Vec<(K, Bytes)>, StateError> {
        self.scan_from(table, Bound::Unbounded, usize::MAX)
    }

    /// At most `limit` entries of `table` from `from` on.
    ///
    /// # Errors
    /// [`StateError::Read`], [`StateError::DamagedKey`].
    pub fn scan_from<K: TableKey>(
        &self,
        table: &Table<K>,
        from: Bound<&K>,
        limit: usize,
    ) -> Result<Vec<(K, Bytes)>, StateError> {
        let prefix = table.prefix();
        let start = match from {
            Bound::Unbounded => prefix.clone(),
            Bound::Included(key) => table.full_key(key),
            // The next byte string after the key.
            Bound::Excluded(key) => [table.full_key(key), vec![0]].concat(),
        };
        let mut found = Vec::new();
        for entry in self
            .0
            .db
            .iterator(IteratorMode::From(&start, Direction::Forward))
        {
            let (key, value) = entry.map_err(|e| StateError::Read(e.to_string()))?;
            let Some(key) = key.strip_prefix(prefix.as_slice()) else {
                break;
            };
            if found.len() == limit {
                break;
            }
            let key = K::decode(key).ok_or(StateError::DamagedKey(table.name()))?;
            found.push((key, Bytes::from(value.into_vec())));
        }
        Ok(found)
    }

    /// Writes one value, synced.
    ///
    /// # Errors
    /// [`StateError::Write`].
    pub async fn put<K: TableKey>(
        &self,
        table: &Table<K>,
        key: &K,
        value: &[u8],
    ) -> Result<(), StateError> {
        let mut batch = Batch::new();
        batch.put(table, key, value);
        self.commit(batch).await
    }

    /// Removes one value, synced.
    ///
    /// # Errors
    /// [`StateError::Write`].
    pub async fn delete<K: TableKey>(&self, table: &Table<K>, key: &K) -> Result<(), StateError> {
        let mut batch = Batch::new();
        batch.delete(table, key);
        self.commit(batch).await
    }

    /// Writes all of `batch` or nothing of it, synced. A future that is dropped after its first
    /// poll may still be committed; commits of one task are applied in their order.
    ///
    /// # Errors
    /// [`StateError::Write`].
    pub async fn commit(&self, batch: Batch) -> Result<(), StateError> {
        self.0.writer.commit(batch).await
    }
}
