//! What is at hand of layers: sealed objects on the local disk, opened blocks in memory.
//!
//! Neither is believed more than the bucket: a copy on the disk is ciphertext as it was put, and
//! is held to the same name, file id and tags as the object; opened blocks are used only while
//! the lease runs under which they were opened (K5), and are dropped when it closes (K6).

mod blocks;
mod disk;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ids::{FileId, TenantId};
use keyring::LeasedDek;
use tokio::sync::{Semaphore, SemaphorePermit};

pub(crate) use blocks::Block;
use blocks::Blocks;
use disk::Disk;

/// How much is kept.
#[derive(Clone, Debug)]
pub(crate) struct CacheConfig {
    /// Where sealed layers are kept; `None` for nowhere.
    pub(crate) directory: Option<PathBuf>,
    /// The bytes of sealed layers that are kept.
    pub(crate) disk_bytes: u64,
    /// The bytes of opened blocks that are kept.
    pub(crate) block_bytes: usize,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            directory: None,
            disk_bytes: 10 << 30,
            block_bytes: 128 << 20,
        }
    }
}

/// Layers and blocks at hand, of all timelines of a process.
pub(crate) struct LayerCache {
    disk: Option<Disk>,
    blocks: Mutex<Blocks>,
    bringing: Semaphore,
}

/// As many whole objects are in memory on their way to the disk.
const BRINGING: usize = 4;

impl LayerCache {
    /// Opens the cache; what an earlier process left on the disk is used.
    pub(crate) fn open(config: CacheConfig) -> io::Result<Arc<Self>> {
        let disk = config
            .directory
            .map(|directory| Disk::open(directory, config.disk_bytes))
            .transpose()?;
        Ok(Arc::new(Self {
            disk,
            blocks: Mutex::new(Blocks::new(config.block_bytes)),
            bringing: Semaphore::new(BRINGING),
        }))
    }

    /// A cache of blocks alone.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Arc<Self> {
        Arc::new(Self {
            disk: None,
            blocks: Mutex::new(Blocks::new(CacheConfig::default().block_bytes)),
            bringing: Semaphore::new(BRINGING),
        })
    }

    /// Whether an object of this length is kept on the disk.
    pub(crate) fn keeps(&self, bytes: u64) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.keeps(bytes))
    }

    /// Waits for a turn to take a whole object into memory. To be called where nobody who waits
    /// is left unpolled.
    pub(crate) async fn turn_to_bring(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.bringing.acquire().await.ok()
    }

    /// The copy of the object `name`, and its length.
    pub(crate) fn file(&self, name: &str) -> Option<(File, u64)> {
        self.disk.as_ref()?.file(name)
    }

    /// Keeps a copy of the object `name`. It blocks.
    pub(crate) fn put(&self, name: &str, sealed: &[u8]) -> io::Result<Option<File>> {
        self.disk
            .as_ref()
            .map(|disk| disk.put(name, sealed))
            .transpose()
    }

    /// A file beside the copies that has no name, and is gone when it is closed. It blocks.
    pub(crate) fn unnamed_file(&self) -> io::Result<File> {
        match &self.disk {
            Some(disk) => disk.unnamed_file(),
            None => disk::unnamed_file(&std::env::temp_dir()),
        }
    }

    /// Removes a copy: it was damaged, or the object is gone.
    pub(crate) fn remove(&self, name: &str) {
        if let Some(disk) = &self.disk {
            disk.remove(name);
        }
    }

    /// Block `n` of the layer `file`.
    pub(crate) fn block(&self, file: FileId, n: usize) -> Option<Arc<Block>> {
        crate::layer::lock(&self.blocks).get(file, n)
    }

    /// Keeps block `n` of the layer `file` for as long as the lease of `dek` runs.
    pub(crate) fn put_block(
        &self,
        (tenant, file, n): (TenantId, FileId, usize),
        block: Arc<Block>,
        dek: &LeasedDek,
    ) {
        let mut blocks = crate::layer::lock(&self.blocks);
        // Under the lock under which a fence forgets: no block slips in behind it (K6).
        if dek.check().is_ok() {
            blocks.put(tenant, file, n, block);
        }
    }

    /// Drops the opened blocks of a tenant (K6).
    pub(crate) fn forget(&self, tenant: TenantId) {
        crate::layer::lock(&self.blocks).forget(tenant);
    }

    /// The bytes of opened blocks.
    #[cfg(test)]
    pub(crate) fn block_bytes(&self) -> usize {
        crate::layer::lock(&self.blocks).bytes()
    }
}

/// The entries of a block, in order.
pub(crate) type Entries = Vec<(ids::Key, ids::Lsn, Bytes)>;
