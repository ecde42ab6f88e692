//! The way of one read from new to old: memory, layer files, then the branch's ancestors.

use ids::{Key, Lsn};

use crate::layer::collect::Collected;
use crate::layer::map::{LayerDescription, LayerMap};
use crate::layer::memory::MemoryLayer;

/// What one timeline has, and where it left its parent.
pub(crate) struct History<'a> {
    /// Newest first.
    pub(crate) memory: Vec<&'a MemoryLayer>,
    pub(crate) layers: &'a LayerMap,
    pub(crate) ancestor: Option<(&'a History<'a>, Lsn)>,
}

impl<'a> History<'a> {
    /// Collects what `key` held at `lsn`; `read_layer` asks one layer file.
    pub(crate) fn collect<E>(
        &self,
        key: Key,
        lsn: Lsn,
        mut read_layer: impl FnMut(&LayerDescription, Lsn, &mut Collected) -> Result<(), E>,
    ) -> Result<Collected, E> {
        let mut into = Collected::default();
        let mut next: Option<(&History<'a>, Lsn)> = Some((self, lsn));
        while let Some((timeline, lsn)) = next {
            for memory in &timeline.memory {
                memory.collect(key, lsn, &mut into);
            }
            for layer in timeline.layers.candidates(key, lsn) {
                if into.is_complete() {
                    return Ok(into);
                }
                read_layer(layer, lsn, &mut into)?;
            }
            // What the parent did after the branch point is none of the branch's business.
            next = timeline
                .ancestor
                .map(|(parent, branched)| (parent, lsn.min(branched)));
            if into.is_complete() {
                return Ok(into);
            }
        }
        Ok(into)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use ids::KeyKind;

    use super::*;
    use crate::value::Value;

    #[test]
    fn a_branch_sees_its_parent_as_of_the_branch_point_and_no_later() {
        let key = Key::new(KeyKind::ReplOrigin(1));
        let image = |n: u8| Value::Image(Bytes::copy_from_slice(&[n]));
        let (mut old, mut new, none) = (
            MemoryLayer::default(),
            MemoryLayer::default(),
            LayerMap::default(),
        );
        old.put(key, Lsn(10), image(1));
        old.put(key, Lsn(30), image(3));
        new.put(key, Lsn(40), image(4));
        let parent = History {
            memory: vec![&old],
            layers: &none,
            ancestor: None,
        };
        let branch = History {
            memory: vec![&new],
            layers: &none,
            ancestor: Some((&parent, Lsn(20))),
        };
        for (lsn, expected) in [(5, None), (10, Some(1)), (39, Some(1)), (40, Some(4))] {
            let read = branch.collect(key, Lsn(lsn), |_, _, _| Ok::<(), Infallible>(()));
            let newest = read.unwrap().into_oldest_first().pop();
            assert_eq!(newest.map(|(_, v)| v), expected.map(image), "at {lsn}");
        }
    }
}
