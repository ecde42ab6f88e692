//! Layers as sealed objects, ready to be put.

use bytes::Bytes;
use ids::{FileId, Generation, Key, Lsn, TenantId, TimelineId, WrapSlot};
use sealed::object::{self, ObjectSpec};
use sealed::{Dek, ObjectKind};

use super::file::LayerWriter;
use super::map::{LayerDescription, LayerKind};
use super::memory::MemoryLayer;

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
    assert!(
        lsns.0 <= low && high <= lsns.1,
        "a layer holds only LSNs of its own range"
    );
    let layer = (LayerKind::Delta, (first_key, last_key), lsns);
    Some(seal(writer, layer, place, file_id, dek, slot))
}

/// Seals `writer` as an image layer: what every key of `keys` is at `lsn`, where it names anything.
pub(crate) fn seal_image(
    writer: LayerWriter,
    keys: (Key, Key),
    lsn: Lsn,
    place: Place<'_>,
    file_id: FileId,
    dek: &Dek,
    slot: &WrapSlot,
) -> (LayerDescription, Bytes) {
    assert!(
        writer.lsns().is_none_or(|lsns| lsns == (lsn, lsn)),
        "an image has one LSN"
    );
    let layer = (LayerKind::Image, keys, (lsn, lsn));
    seal(writer, layer, place, file_id, dek, slot)
}

fn seal(
    writer: LayerWriter,
    (kind, keys, lsns): (LayerKind, (Key, Key), (Lsn, Lsn)),
    place: Place<'_>,
    file_id: FileId,
    dek: &Dek,
    slot: &WrapSlot,
) -> (LayerDescription, Bytes) {
    // D5: the file id ends the name, so no name is ever written twice.
    let name = store::names::layer(keys, lsns, file_id);
    let spec = ObjectSpec {
        kind: match kind {
            LayerKind::Image => ObjectKind::ImageLayer,
            LayerKind::Delta => ObjectKind::DeltaLayer,
        },
        tenant: place.tenant,
        timeline: place.timeline,
        generation: place.generation,
        name: format!("{}{name}", place.folder),
        aux: lsns.1.0,
        created_unix: place.created_unix,
        file_id,
    };
    let sealed = object::seal(&spec, dek, slot, &writer.finish());
    let description = LayerDescription {
        kind,
        name,
        file_id,
        sealed_len: sealed.len() as u64,
        first_key: keys.0,
        last_key: keys.1,
        first_lsn: lsns.0,
        last_lsn: lsns.1,
    };
    (description, sealed)
}
