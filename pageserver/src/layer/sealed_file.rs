//! A layer as a sealed object: made of a memory layer, and read from the bucket by ranges.

use bytes::Bytes;
use ids::{FileId, Generation, Key, Lsn, TenantId, TimelineId, WrapSlot};
use sealed::object::{self, Expected, ObjectSpec};
use sealed::{Dek, ObjectKind};
use store::{SealedGetError, SealedObject, SealedStore};

use super::collect::Collected;
use super::file::{self, FOOTER_BYTES, LayerError, LayerIndex, LayerWriter};
use super::map::{LayerDescription, LayerKind};
use super::memory::MemoryLayer;

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

/// Where a layer belongs, and under which attachment it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) timeline: TimelineId,
    pub(crate) generation: Generation,
    pub(crate) created_unix: u64,
    /// The part of the object's name before the layer's own.
    pub(crate) folder: &'a str,
}

/// Seals the values of `memory`, all inside `lsns`, as a delta layer; `None` where there are none.
pub(crate) fn seal_delta(
    memory: &MemoryLayer,
    place: Place<'_>,
    lsns: (Lsn, Lsn),
    file_id: FileId,
    dek: &Dek,
    slot: &WrapSlot,
) -> Option<(LayerDescription, Bytes)> {
    let mut writer = LayerWriter::default();
    let mut keys: Option<(Key, Key)> = None;
    for (key, lsn, values) in memory.iter() {
        writer.put(key, lsn, values);
        keys = Some((keys.map_or(key, |(first, _)| first), key));
    }
    let ((first_key, last_key), (low, high)) = (keys?, writer.lsns()?);
    let (first_lsn, last_lsn) = lsns;
    assert!(
        first_lsn <= low && high <= last_lsn,
        "a layer holds only LSNs of its own range"
    );
    // D5: the file id ends the name, so no name is ever written twice.
    let name = format!(
        "{first_key}-{last_key}__{:016x}-{:016x}-{file_id}",
        first_lsn.0, last_lsn.0
    );
    let spec = ObjectSpec {
        kind: ObjectKind::DeltaLayer,
        tenant: place.tenant,
        timeline: place.timeline,
        generation: place.generation,
        name: format!("{}{name}", place.folder),
        aux: last_lsn.0,
        created_unix: place.created_unix,
        file_id,
    };
    let sealed = object::seal(&spec, dek, slot, &writer.finish());
    let description = LayerDescription {
        kind: LayerKind::Delta,
        name,
        file_id,
        sealed_len: sealed.len() as u64,
        first_key,
        last_key,
        first_lsn,
        last_lsn,
    };
    Some((description, sealed))
}

/// An open layer: its index is resident, its blocks are read from the bucket when asked for.
pub(crate) struct SealedLayer {
    name: String,
    object: SealedObject,
    index: LayerIndex,
}

impl SealedLayer {
    /// Opens the layer that `description` names.
    pub(crate) async fn open(
        description: &LayerDescription,
        place: Place<'_>,
        store: &SealedStore,
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
        let layer = || expected.name.clone();
        let refused = |source| SealedLayerError::Sealed {
            layer: layer(),
            source,
        };
        let malformed = |source| SealedLayerError::Layer {
            layer: layer(),
            source,
        };
        let object = store.open(&expected).await.map_err(refused)?;
        let found = object.header().file_id;
        if found != description.file_id {
            return Err(SealedLayerError::OtherFile {
                layer: layer(),
                found,
            });
        }
        let length = object.plaintext_len();
        let footer = length.saturating_sub(FOOTER_BYTES as u64)..length;
        let footer = object.read(footer).await.map_err(refused)?;
        let range = file::index_range(&footer, length).map_err(malformed)?;
        let index = object.read(range.clone()).await.map_err(refused)?;
        let index = LayerIndex::parse(&index, range.start).map_err(malformed)?;
        Ok(Self {
            name: layer(),
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
        while let Some((n, range)) = next.and_then(|n| Some((n, self.index.range(n)?))) {
            let block =
                self.object
                    .read(range)
                    .await
                    .map_err(|source| SealedLayerError::Sealed {
                        layer: self.name.clone(),
                        source,
                    })?;
            let more = file::collect_block(block, key, lsn, into).map_err(|source| {
                SealedLayerError::Layer {
                    layer: self.name.clone(),
                    source,
                }
            })?;
            next = if more { n.checked_sub(1) } else { None };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ids::KeyKind;
    use keyring::Keyring;
    use store::{Bucket, BucketConfig};

    use super::*;
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
        store: SealedStore,
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
                store: SealedStore::new(bucket, keys),
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
        seal_delta(
            &memory,
            PLACE,
            (Lsn(100), Lsn(200)),
            FileId([9; 16]),
            dek,
            slot,
        )
        .unwrap()
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
