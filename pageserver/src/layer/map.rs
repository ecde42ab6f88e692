//! Which layer files of a timeline to ask for a key at an LSN.

use std::sync::Arc;

use ids::{FileId, Key, Lsn};
use serde::{Deserialize, Serialize};

/// What a layer file is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LayerKind {
    /// The content of keys at one LSN; nothing older is needed for them.
    Image,
    /// Values of a range of LSNs.
    Delta,
}

/// A layer file as the manifest names it. `file_id` and `sealed_len` make an older file under
/// the same name an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerDescription {
    pub(crate) kind: LayerKind,
    /// The last part of the object's name.
    pub(crate) name: String,
    pub(crate) file_id: FileId,
    pub(crate) sealed_len: u64,
    /// The first key in it.
    pub(crate) first_key: Key,
    /// The last key in it.
    pub(crate) last_key: Key,
    /// Above every LSN of older layers.
    pub(crate) first_lsn: Lsn,
    /// The last LSN in it.
    pub(crate) last_lsn: Lsn,
    /// An image layer of which some keys have no content that could be made: what is below it is
    /// still needed for them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) has_gaps: bool,
}

impl LayerDescription {
    fn covers(&self, key: Key, lsn: Lsn) -> bool {
        self.first_key <= key && key <= self.last_key && self.first_lsn <= lsn
    }
}

/// The layers of one timeline, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LayerMap {
    newest_first: Vec<Arc<LayerDescription>>,
}

impl LayerMap {
    /// A map of these layers.
    pub(crate) fn new(layers: Vec<LayerDescription>) -> Self {
        let mut newest_first: Vec<_> = layers.into_iter().map(Arc::new).collect();
        newest_first.sort_by_key(|l| std::cmp::Reverse((l.last_lsn, l.first_lsn)));
        Self { newest_first }
    }

    /// The layers that may hold `key` at `lsn`, newest first, down to the first image
    /// without gaps: it holds every key of its range that named anything.
    pub(crate) fn candidates(&self, key: Key, lsn: Lsn) -> Vec<Arc<LayerDescription>> {
        let mut found = Vec::new();
        for layer in &self.newest_first {
            if layer.covers(key, lsn) {
                found.push(Arc::clone(layer));
                if layer.kind == LayerKind::Image && !layer.has_gaps {
                    break;
                }
            }
        }
        found
    }

    /// All layers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &LayerDescription> {
        self.newest_first.iter().map(Arc::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(kind: LayerKind, first_lsn: u64, last_lsn: u64) -> LayerDescription {
        LayerDescription {
            kind,
            name: format!("{first_lsn}-{last_lsn}"),
            file_id: FileId([1; 16]),
            sealed_len: 1,
            first_key: Key::MIN,
            last_key: Key::MAX,
            first_lsn: Lsn(first_lsn),
            last_lsn: Lsn(last_lsn),
            has_gaps: false,
        }
    }

    #[test]
    fn candidates_come_newest_first_and_none_is_from_the_future() {
        let map = LayerMap::new(vec![
            layer(LayerKind::Image, 10, 10),
            layer(LayerKind::Delta, 31, 40),
            layer(LayerKind::Delta, 11, 30),
        ]);
        let names = |lsn| -> Vec<String> {
            let found = map.candidates(Key::MIN, Lsn(lsn));
            found.iter().map(|layer| layer.name.clone()).collect()
        };
        assert_eq!(names(40), ["31-40", "11-30", "10-10"]);
        assert_eq!(names(30), ["11-30", "10-10"]);
        assert_eq!(names(9), Vec::<String>::new());
    }

    #[test]
    fn nothing_below_an_image_is_a_candidate() {
        let map = LayerMap::new(vec![
            layer(LayerKind::Delta, 1, 20),
            layer(LayerKind::Image, 20, 20),
            layer(LayerKind::Delta, 21, 30),
        ]);
        let names = |lsn| -> Vec<String> {
            let found = map.candidates(Key::MIN, Lsn(lsn));
            found.iter().map(|layer| layer.name.clone()).collect()
        };
        assert_eq!(names(30), ["21-30", "20-20"]);
        assert_eq!(names(20), ["20-20"]);
        assert_eq!(names(19), ["1-20"]);
    }
}
