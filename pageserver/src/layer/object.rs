//! The sealed object of a layer: read from the copy on the disk, or from the bucket by ranges.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use keyring::{LeasedDek, TenantKeys};
use sealed::HEADER_BYTES;
use sealed::header::Header;
use sealed::object::{Expected, OpenError, Reader};
use store::{Bucket, GetError, SealedGetError};

use super::cache::LayerCache;
use super::lock;

/// Where layers come from, with the keys of one tenant.
#[derive(Clone)]
pub(crate) struct LayerStore {
    pub(crate) bucket: Bucket,
    pub(crate) keys: TenantKeys,
    pub(crate) cache: Arc<LayerCache>,
}

/// An object whose header is proven.
pub(super) struct LayerObject {
    store: LayerStore,
    name: String,
    reader: Arc<Reader>,
    length: u64,
    dek: Arc<LeasedDek>,
    /// The copy on the disk, while it is good.
    copy: Mutex<Option<Arc<File>>>,
}

impl LayerObject {
    /// Opens the copy on the disk; `None` where there is none. Whoever finds that it is not the
    /// object removes it.
    pub(super) async fn open_copy(
        expected: &Expected,
        store: &LayerStore,
    ) -> Result<Option<Self>, SealedGetError> {
        let Some((file, length)) = store.cache.file(&expected.name) else {
            return Ok(None);
        };
        let head = 0..length.min(HEADER_BYTES as u64);
        // One sector, where nothing was read the header is not one.
        let head = read_copy(&file, head).unwrap_or_default();
        let opened = Self::new(expected, store, &head, length).await?;
        *lock(&opened.copy) = Some(Arc::new(file));
        Ok(Some(opened))
    }

    /// Opens the object in the bucket.
    pub(super) async fn open(
        expected: &Expected,
        store: &LayerStore,
    ) -> Result<Self, SealedGetError> {
        let length = store.bucket.head(&expected.name).await?;
        let head = 0..length.min(HEADER_BYTES as u64);
        let head = store.bucket.get_range(&expected.name, head).await?;
        Self::new(expected, store, &head, length).await
    }

    async fn new(
        expected: &Expected,
        store: &LayerStore,
        head: &[u8],
        length: u64,
    ) -> Result<Self, SealedGetError> {
        let refused = |source| SealedGetError::Damaged {
            name: expected.name.clone(),
            source,
        };
        let header = Header::decode(head).map_err(|e| refused(OpenError::Header(e)))?;
        let dek = store.keys.open(header.active_slot()).await?;
        let reader = dek
            .with(|dek| Reader::open(head, length, dek, expected))?
            .map_err(refused)?;
        Ok(Self {
            store: store.clone(),
            name: expected.name.clone(),
            reader: Arc::new(reader),
            dek,
            length,
            copy: Mutex::new(None),
        })
    }

    /// Brings the whole object to the disk, so that further reads stay here. Where that fails
    /// they go on from the bucket.
    pub(super) async fn bring(&self) -> Result<(), SealedGetError> {
        if !self.store.cache.keeps(self.length) {
            return Ok(());
        }
        let (store, name) = (self.store.clone(), self.name.clone());
        // A task of its own: whoever waits for a turn is polled whatever becomes of the reader.
        let brought = service::task::spawn("bring layer", async move {
            let cache = Arc::clone(&store.cache);
            let _turn = cache.turn_to_bring().await;
            let sealed = store.bucket.get(&name).await?;
            let put = tokio::task::spawn_blocking(move || store.cache.put(&name, &sealed)).await;
            Ok::<_, GetError>(put.map_err(std::io::Error::other).flatten())
        });
        match brought.await.map_err(std::io::Error::other) {
            Ok(brought) => match brought? {
                Ok(file) => *lock(&self.copy) = file.map(Arc::new),
                Err(error) => self.not_kept(&error),
            },
            Err(error) => self.not_kept(&error),
        }
        Ok(())
    }

    fn not_kept(&self, error: &std::io::Error) {
        tracing::warn!(layer = %self.name, %error, "a layer is not kept locally");
    }

    pub(super) const fn sealed_len(&self) -> u64 {
        self.length
    }

    pub(super) fn plaintext_len(&self) -> u64 {
        self.reader.plaintext_len()
    }

    pub(super) fn header(&self) -> &Header {
        self.reader.header()
    }

    pub(super) fn dek(&self) -> &LeasedDek {
        &self.dek
    }

    pub(super) fn cache(&self) -> &LayerCache {
        &self.store.cache
    }

    /// Reads and opens `range` of the plaintext.
    pub(super) async fn read(&self, range: Range<u64>) -> Result<Bytes, SealedGetError> {
        let refused = |source| SealedGetError::Damaged {
            name: self.name.clone(),
            source,
        };
        if range.start > range.end || range.end > self.plaintext_len() {
            return Err(refused(OpenError::Range));
        }
        // The reader holds a key of its own: only this guard makes it stop at a fence (K5).
        self.dek.check()?;
        let sealed_range = self.reader.sealed_range(range.clone());
        let copy = lock(&self.copy).clone();
        let opened = match copy {
            Some(copy) => {
                self.open_from(copy, range.clone(), sealed_range.clone())
                    .await
            }
            None => None,
        };
        let opened = match opened {
            Some(opened) => opened,
            None => {
                self.give_up_copy();
                let sealed = self
                    .store
                    .bucket
                    .get_range(&self.name, sealed_range)
                    .await?;
                self.reader.open_range(range, &sealed).map_err(refused)?
            }
        };
        self.dek.check()?;
        Ok(opened)
    }

    /// Reads and opens from the copy, off the threads that serve; `None` where it is not good.
    async fn open_from(
        &self,
        copy: Arc<File>,
        range: Range<u64>,
        sealed_range: Range<u64>,
    ) -> Option<Bytes> {
        let reader = Arc::clone(&self.reader);
        let opened = tokio::task::spawn_blocking(move || {
            let sealed = read_copy(&copy, sealed_range)?;
            reader.open_range(range, &sealed).ok()
        });
        opened.await.ok()?
    }

    fn give_up_copy(&self) {
        if lock(&self.copy).take().is_some() {
            tracing::warn!(layer = %self.name, "the local copy of a layer is damaged: removed");
            self.store.cache.remove(&self.name);
        }
    }
}

/// Bytes of a copy; `None` where they cannot be read. It blocks.
fn read_copy(file: &File, range: Range<u64>) -> Option<Vec<u8>> {
    let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, range.start).ok()?;
    Some(bytes)
}
