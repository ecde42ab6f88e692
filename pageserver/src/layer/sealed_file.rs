//! A layer as a sealed object, read from a copy on the disk or from the bucket.

use std::sync::Arc;

use api::Grade;
use ids::{FileId, Key, Lsn};
use keyring::KeyError;
use sealed::ObjectKind;
use sealed::object::{Expected, OpenError};
use store::{GetError, SealedGetError};

use super::cache::Block;
use super::collect::Collected;
use super::file::{self, FOOTER_BYTES, LayerError, LayerIndex};
use super::map::{LayerDescription, LayerKind};
use super::object::LayerObject;
pub(crate) use super::object::LayerStore;
pub(crate) use super::writer::Place;

/// Why a layer file was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealedLayerError {
    /// The object is not there, cannot be fetched, or does not open.
    #[error("layer {layer} does not open: {source}")]
    Sealed {
        layer: String,
        #[source]
        source: SealedGetError,
    },
    /// It opens under this name, but it is not the file that the manifest names.
    #[error("layer {layer} is file {found}, not the one that the manifest names")]
    OtherFile { layer: String, found: FileId },
    /// It opens, but it is not a layer.
    #[error("layer {layer} cannot be read: {source}")]
    Layer {
        layer: String,
        #[source]
        source: LayerError,
    },
}

impl SealedLayerError {
    /// The state of the keys, where that is why: nothing is said about the layer then.
    pub(crate) fn into_key_error(self) -> Result<KeyError, Self> {
        match self {
            Self::Sealed {
                source: SealedGetError::Key(error),
                ..
            } => Ok(error),
            other => Err(other),
        }
    }

    const fn is_of_a_key(&self) -> bool {
        matches!(
            self,
            Self::Sealed {
                source: SealedGetError::Key(_),
                ..
            }
        )
    }

    /// How a caller should take it.
    pub(crate) const fn grade(&self) -> Grade {
        match self {
            Self::Sealed { source, .. } => match source {
                SealedGetError::Key(error) => error.grade(),
                SealedGetError::Get(GetError::Unavailable { .. }) => Grade::Retry,
                SealedGetError::Get(GetError::NotFound(_)) | SealedGetError::Damaged { .. } => {
                    Grade::DataDamaged
                }
            },
            Self::OtherFile { .. } | Self::Layer { .. } => Grade::DataDamaged,
        }
    }
}

/// An open layer: its index is resident, its blocks are read when asked for.
pub(crate) struct SealedLayer {
    name: String,
    object: LayerObject,
    index: LayerIndex,
}

impl SealedLayer {
    /// Opens the layer that `description` names. A copy on the disk that is not it is removed,
    /// and the bucket asked.
    pub(crate) async fn open(
        description: &LayerDescription,
        place: Place<'_>,
        store: &LayerStore,
    ) -> Result<Self, SealedLayerError> {
        let kind = match description.kind {
            LayerKind::Image => ObjectKind::ImageLayer,
            LayerKind::Delta => ObjectKind::DeltaLayer,
        };
        let expected = Expected {
            kind,
            tenant: place.tenant,
            timeline: place.timeline,
            name: format!("{}{}", place.folder, description.name),
        };
        match Self::open_copy(description, &expected, store).await {
            Ok(Some(layer)) => return Ok(layer),
            Ok(None) => {}
            Err(error) if error.is_of_a_key() => return Err(error),
            Err(error) => {
                tracing::warn!(layer = %expected.name, %error, "a local copy is removed");
                store.cache.remove(&expected.name);
            }
        }
        let refused = |source| sealed(&expected, source);
        let object = LayerObject::open(&expected, store).await.map_err(refused)?;
        check(description, &expected, &object)?;
        object.bring().await.map_err(refused)?;
        Self::with_index(&expected, object).await
    }

    async fn open_copy(
        description: &LayerDescription,
        expected: &Expected,
        store: &LayerStore,
    ) -> Result<Option<Self>, SealedLayerError> {
        let copy = LayerObject::open_copy(expected, store).await;
        let Some(object) = copy.map_err(|source| sealed(expected, source))? else {
            return Ok(None);
        };
        check(description, expected, &object)?;
        Ok(Some(Self::with_index(expected, object).await?))
    }

    async fn with_index(
        expected: &Expected,
        object: LayerObject,
    ) -> Result<Self, SealedLayerError> {
        let refused = |source| sealed(expected, source);
        let malformed = |source| SealedLayerError::Layer {
            layer: expected.name.clone(),
            source,
        };
        let length = object.plaintext_len();
        let footer = length.saturating_sub(FOOTER_BYTES as u64)..length;
        let footer = object.read(footer).await.map_err(refused)?;
        let range = file::index_range(&footer, length).map_err(malformed)?;
        let index = object.read(range.clone()).await.map_err(refused)?;
        let index = LayerIndex::parse(&index, range.start).map_err(malformed)?;
        Ok(Self {
            name: expected.name.clone(),
            object,
            index,
        })
    }

    /// Collects what `key` held at `lsn`.
    pub(crate) async fn collect(
        &self,
        key: Key,
        lsn: Lsn,
        into: &mut Collected,
    ) -> Result<(), SealedLayerError> {
        let mut next = self.index.last_block(key, lsn);
        while let Some(n) = next {
            let block = self.block(n).await?;
            let more = file::collect_block(&block.entries, key, lsn, into)
                .map_err(|source| self.malformed(source))?;
            next = if more { n.checked_sub(1) } else { None };
        }
        Ok(())
    }

    /// How many blocks there are.
    pub(crate) fn blocks(&self) -> usize {
        self.index.len()
    }

    /// An opened block; there are [`SealedLayer::blocks`].
    pub(crate) async fn block(&self, n: usize) -> Result<Arc<Block>, SealedLayerError> {
        let refused = |source| SealedLayerError::Sealed {
            layer: self.name.clone(),
            source,
        };
        let file = self.object.header().file_id;
        // A block is used only while its lease runs (K5).
        self.object.dek().check().map_err(|e| refused(e.into()))?;
        if let Some(block) = self.object.cache().block(file, n) {
            return Ok(block);
        }
        let outside = || self.malformed(LayerError::Malformed("no such block"));
        let range = self.index.range(n).ok_or_else(outside)?;
        let plain = self.object.read(range).await.map_err(refused)?;
        let bytes = plain.len();
        let entries = file::parse_block(plain).map_err(|source| self.malformed(source))?;
        let block = Arc::new(Block { entries, bytes });
        let place = (self.object.header().tenant, file, n);
        self.object
            .cache()
            .put_block(place, Arc::clone(&block), self.object.dek());
        Ok(block)
    }

    fn malformed(&self, source: LayerError) -> SealedLayerError {
        SealedLayerError::Layer {
            layer: self.name.clone(),
            source,
        }
    }
}

fn sealed(expected: &Expected, source: SealedGetError) -> SealedLayerError {
    SealedLayerError::Sealed {
        layer: expected.name.clone(),
        source,
    }
}

/// Holds an object to what the manifest says of it.
fn check(
    description: &LayerDescription,
    expected: &Expected,
    object: &LayerObject,
) -> Result<(), SealedLayerError> {
    let found = object.header().file_id;
    if found != description.file_id {
        return Err(SealedLayerError::OtherFile {
            layer: expected.name.clone(),
            found,
        });
    }
    if object.sealed_len() != description.sealed_len {
        let source = SealedGetError::Damaged {
            name: expected.name.clone(),
            source: OpenError::Length {
                have: object.sealed_len(),
                expected: description.sealed_len,
            },
        };
        return Err(sealed(expected, source));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ::sealed::Dek;
    use bytes::Bytes;
    use ids::KeyKind;
    use ids::{Generation, TenantId, TimelineId, WrapSlot};
    use keyring::Keyring;
    use store::{Bucket, BucketConfig};

    use super::*;
    use crate::layer::cache::LayerCache;
    use crate::layer::memory::MemoryLayer;
    use crate::layer::writer::{delta_parts, seal_delta};
    use crate::value::Value;

    const PLACE: Place<'static> = Place {
        tenant: TenantId([1; 16]),
        timeline: TimelineId([2; 16]),
        generation: Generation(1),
        created_unix: 0,
        folder: "layers/",
    };

    struct World {
        _directory: tempfile::TempDir,
        store: LayerStore,
        description: LayerDescription,
        sealed: Bytes,
    }

    impl World {
        async fn put(damage: impl FnOnce(&mut Vec<u8>)) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let bucket = Bucket::open(&BucketConfig::directory(directory.path())).unwrap();
            let keys = Keyring::fixed([7; 32]).tenant(PLACE.tenant).await.unwrap();
            let (dek, slot) = keys.mint().await.unwrap();
            let (description, sealed) = dek.with(|dek| sample(dek, &slot)).unwrap();
            let mut stored = sealed.to_vec();
            damage(&mut stored);
            let name = format!("{}{}", PLACE.folder, description.name);
            bucket.put_if_absent(&name, stored.into()).await.unwrap();
            Self {
                _directory: directory,
                store: LayerStore {
                    bucket,
                    keys,
                    cache: LayerCache::in_memory(),
                },
                description,
                sealed,
            }
        }
    }

    fn key(n: u16) -> Key {
        Key::new(KeyKind::ReplOrigin(n))
    }

    fn sample(dek: &Dek, slot: &WrapSlot) -> (LayerDescription, Bytes) {
        let mut memory = MemoryLayer::default();
        for n in 0..50 {
            let lsn = Lsn(100 + u64::from(n));
            memory.put(key(n), lsn, Value::Image(vec![n as u8; 1000].into()));
            memory.put(
                key(n),
                Lsn(200),
                Value::VmTruncate {
                    heap_blocks: u32::from(n),
                },
            );
        }
        let part = delta_parts(&memory, usize::MAX).next().unwrap();
        let lsns = (Lsn(100), Lsn(200));
        seal_delta(part, lsns, PLACE, FileId([9; 16]), dek, slot)
    }

    #[tokio::test]
    async fn a_sealed_layer_answers_as_the_memory_layer_did() {
        let world = World::put(|_| {}).await;
        assert_eq!(world.sealed.len() as u64, world.description.sealed_len);
        let layer = SealedLayer::open(&world.description, PLACE, &world.store)
            .await
            .unwrap();
        for n in [0, 7, 8, 49] {
            let mut collected = Collected::default();
            layer
                .collect(key(n), Lsn(200), &mut collected)
                .await
                .unwrap();
            assert!(collected.is_complete());
            let values = collected.into_oldest_first();
            let image = Value::Image(vec![n as u8; 1000].into());
            assert_eq!(values[0], (Lsn(100 + u64::from(n)), image));
            assert_eq!(
                values[1].1,
                Value::VmTruncate {
                    heap_blocks: u32::from(n)
                }
            );
        }
    }

    #[tokio::test]
    async fn another_file_or_timeline_than_the_manifest_names_is_refused() {
        let world = World::put(|_| {}).await;
        let mut other = world.description.clone();
        other.file_id = FileId([8; 16]);
        let opened = SealedLayer::open(&other, PLACE, &world.store).await;
        assert!(matches!(opened, Err(SealedLayerError::OtherFile { .. })));
        let place = Place {
            timeline: TimelineId([3; 16]),
            ..PLACE
        };
        let opened = SealedLayer::open(&world.description, place, &world.store).await;
        assert!(matches!(opened, Err(SealedLayerError::Sealed { .. })));
    }

    #[tokio::test]
    async fn a_flipped_bit_in_a_block_is_an_error_of_that_read() {
        let world = World::put(|bytes| bytes[::sealed::HEADER_BYTES + 100] ^= 1).await;
        let layer = SealedLayer::open(&world.description, PLACE, &world.store)
            .await
            .unwrap();
        let mut collected = Collected::default();
        let read = layer.collect(key(0), Lsn(200), &mut collected).await;
        assert!(matches!(read, Err(SealedLayerError::Sealed { .. })));
    }
}
