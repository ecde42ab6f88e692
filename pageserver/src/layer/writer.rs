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

/// Values that become one delta layer.
pub(crate) struct Part {
    writer: LayerWriter,
    keys: (Key, Key),
}

/// The values of `memory` in parts of about `bytes`. A key is never in two of them.
pub(crate) fn delta_parts(memory: &MemoryLayer, bytes: usize) -> impl Iterator<Item = Part> {
    let mut entries = memory.iter().peekable();
    std::iter::from_fn(move || {
        let mut writer = LayerWriter::default();
        let (first, ..) = entries.peek()?;
        let mut keys = (*first, *first);
        let is_full = |writer: &LayerWriter, last, key| writer.len() >= bytes && key != last;
        while let Some((key, lsn, values)) =
            entries.next_if(|(key, ..)| !is_full(&writer, keys.1, *key))
        {
            writer.put(key, lsn, values);
            keys.1 = key;
        }
        Some(Part { writer, keys })
    })
}

/// Seals values, all inside `lsns`, as a delta layer.
pub(crate) fn seal_delta(
    part: Part,
    lsns: (Lsn, Lsn),
    place: Place<'_>,
    file_id: FileId,
    dek: &Dek,
    slot: &WrapSlot,
) -> (LayerDescription, Bytes) {
    let Part { writer, keys } = part;
    assert!(
        writer
            .lsns()
            .is_none_or(|(low, high)| lsns.0 <= low && high <= lsns.1),
        "a layer holds only LSNs of its own range"
    );
    let layer = (LayerKind::Delta, keys, lsns);
    seal(writer, layer, place, file_id, dek, slot)
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
    let pieces = writer.finish();
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
    let sealed = object::seal_pieces(&spec, dek, slot, pieces.bytes() as u64, pieces);
    let description = LayerDescription {
        kind,
        name,
        file_id,
        sealed_len: sealed.len() as u64,
        first_key: keys.0,
        last_key: keys.1,
        first_lsn: lsns.0,
        last_lsn: lsns.1,
        has_gaps: false,
    };
    (description, sealed)
}

#[cfg(test)]
mod tests {
    use ids::KeyKind;

    use super::*;
    use crate::value::Value;

    #[test]
    fn a_key_is_in_one_part_and_parts_are_bounded() {
        let mut memory = MemoryLayer::default();
        for (n, lsn) in (0..40).flat_map(|n| (1..=3).map(move |lsn| (n, lsn))) {
            let value = Value::Patch {
                offset: 0,
                bytes: vec![0; 1000].into(),
            };
            memory.put(Key::new(KeyKind::ReplOrigin(n)), Lsn(lsn), value);
        }
        let parts: Vec<Part> = delta_parts(&memory, 10_000).collect();
        assert!(parts.len() > 8);
        assert!(parts.iter().all(|part| part.writer.len() < 14_000));
        assert!(parts.windows(2).all(|two| two[0].keys.1 < two[1].keys.0));
        assert_eq!(delta_parts(&memory, usize::MAX).count(), 1);
        assert_eq!(delta_parts(&MemoryLayer::default(), 1).count(), 0);
    }
}
