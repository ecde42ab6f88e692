//! A layer as a sealed object: made of a memory layer, and read by ranges.
//!
//! Pure: the caller brings the data key and the bytes of each range.

use std::ops::Range;

use bytes::Bytes;
use ids::{FileId, Generation, Key, Lsn, TenantId, TimelineId, WrapSlot};
use sealed::object::{self, Expected, ObjectSpec, OpenError, Reader};
use sealed::{Dek, ObjectKind};

use super::collect::Collected;
use super::file::{self, FOOTER_BYTES, LayerError, LayerIndex, LayerWriter};
use super::map::{LayerDescription, LayerKind};
use super::memory::MemoryLayer;

/// Why a layer file was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealedLayerError {
    /// The object does not open.
    #[error("layer {layer} does not open")]
    Sealed {
        layer: String,
        #[source]
        source: OpenError,
    },
    /// It opens under this name, but it is not the file that the manifest names.
    #[error("layer {layer} is file {found}, not the one that the manifest names")]
    OtherFile { layer: String, found: FileId },
    /// It opens, but it is not a layer.
    #[error("layer {layer} cannot be read")]
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

/// An open layer: its index is resident, its blocks are read when asked for.
pub(crate) struct SealedLayer {
    name: String,
    reader: Reader,
    index: LayerIndex,
}

impl SealedLayer {
    /// Opens the layer that `description` names; `fetch` gives ranges of the sealed object.
    pub(crate) fn open(
        description: &LayerDescription,
        place: Place<'_>,
        dek: &Dek,
        mut fetch: impl FnMut(Range<u64>) -> Bytes,
    ) -> Result<Self, SealedLayerError> {
        let layer = || description.name.clone();
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
        let refused = |source| SealedLayerError::Sealed {
            layer: layer(),
            source,
        };
        let malformed = |source| SealedLayerError::Layer {
            layer: layer(),
            source,
        };
        let header = fetch(0..sealed::HEADER_BYTES as u64);
        let reader =
            Reader::open(&header, description.sealed_len, dek, &expected).map_err(refused)?;
        let found = reader.header().file_id;
        if found != description.file_id {
            return Err(SealedLayerError::OtherFile {
                layer: layer(),
                found,
            });
        }
        let mut plain = |range: Range<u64>| {
            let sealed = fetch(reader.sealed_range(range.clone()));
            reader.open_range(range, &sealed).map_err(refused)
        };
        let length = reader.plaintext_len();
        let footer = plain(length.saturating_sub(FOOTER_BYTES as u64)..length)?;
        let range = file::index_range(&footer, length).map_err(malformed)?;
        let index = LayerIndex::parse(&plain(range.clone())?, range.start).map_err(malformed)?;
        Ok(Self {
            name: layer(),
            reader,
            index,
        })
    }

    /// Collects what `key` held at `lsn`.
    pub(crate) fn collect(
        &self,
        key: Key,
        lsn: Lsn,
        into: &mut Collected,
        mut fetch: impl FnMut(Range<u64>) -> Bytes,
    ) -> Result<(), SealedLayerError> {
        let mut next = self.index.last_block(key, lsn);
        while let Some((n, range)) = next.and_then(|n| Some((n, self.index.range(n)?))) {
            let sealed = fetch(self.reader.sealed_range(range.clone()));
            let block = self.reader.open_range(range, &sealed).map_err(|source| {
                SealedLayerError::Sealed {
                    layer: self.name.clone(),
                    source,
                }
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
    use ids::{KeyKind, WRAP_SLOT_BYTES};

    use super::*;
    use crate::value::Value;

    const PLACE: Place<'static> = Place {
        tenant: TenantId([1; 16]),
        timeline: TimelineId([2; 16]),
        generation: Generation(1),
        created_unix: 0,
        folder: "layers/",
    };

    fn dek() -> Dek {
        Dek::from_bytes([7; 32])
    }

    fn key(n: u16) -> Key {
        Key::new(KeyKind::ReplOrigin(n))
    }

    fn sample() -> (LayerDescription, Bytes) {
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
        let slot = sealed::wrap::with_active(&WrapSlot([0; WRAP_SLOT_BYTES]), true);
        seal_delta(
            &memory,
            PLACE,
            (Lsn(100), Lsn(200)),
            FileId([9; 16]),
            &dek(),
            &slot,
        )
        .unwrap()
    }

    fn fetch(sealed: &Bytes) -> impl FnMut(Range<u64>) -> Bytes + '_ {
        |range| sealed.slice(range.start as usize..range.end as usize)
    }

    #[test]
    fn a_sealed_layer_answers_as_the_memory_layer_did() {
        let (description, sealed) = sample();
        let layer = SealedLayer::open(&description, PLACE, &dek(), fetch(&sealed)).unwrap();
        for n in [0, 7, 8, 49] {
            let mut collected = Collected::default();
            layer
                .collect(key(n), Lsn(200), &mut collected, fetch(&sealed))
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

    #[test]
    fn another_file_timeline_or_key_than_the_manifest_names_is_refused() {
        let (description, sealed) = sample();
        let mut other = description.clone();
        other.file_id = FileId([8; 16]);
        let opened = SealedLayer::open(&other, PLACE, &dek(), fetch(&sealed));
        assert!(matches!(opened, Err(SealedLayerError::OtherFile { .. })));
        let place = Place {
            timeline: TimelineId([3; 16]),
            ..PLACE
        };
        let opened = SealedLayer::open(&description, place, &dek(), fetch(&sealed));
        assert!(matches!(opened, Err(SealedLayerError::Sealed { .. })));
        let stranger = Dek::from_bytes([6; 32]);
        assert!(SealedLayer::open(&description, PLACE, &stranger, fetch(&sealed)).is_err());
    }

    #[test]
    fn a_flipped_bit_in_a_block_is_an_error_of_that_read() {
        let (description, sealed) = sample();
        let mut damaged = sealed.to_vec();
        damaged[::sealed::HEADER_BYTES + 100] ^= 1;
        let damaged = Bytes::from(damaged);
        let layer = SealedLayer::open(&description, PLACE, &dek(), fetch(&damaged)).unwrap();
        let mut collected = Collected::default();
        let read = layer.collect(key(0), Lsn(200), &mut collected, fetch(&damaged));
        assert!(matches!(read, Err(SealedLayerError::Sealed { .. })));
    }
}
