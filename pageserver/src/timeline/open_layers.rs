//! The layers of a timeline that are open: each holds a file and an index, so not all of them are.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::layer::sealed_file::SealedLayer;

/// As many stay open. An index takes a few hundred kilobytes at most.
const OPEN_MAX: usize = 256;

/// A layer that is open, or is being opened by the first who asked.
pub(super) type Opening = Arc<OnceCell<Arc<SealedLayer>>>;

/// Open layers by name.
#[derive(Default)]
pub(super) struct OpenLayers {
    open: HashMap<String, (Opening, u64)>,
    uses: u64,
}

impl OpenLayers {
    /// The layer `name`, opened or to be opened by the caller. Those that were used least lately
    /// make room; whoever reads one reads on.
    pub(super) fn get(&mut self, name: &str) -> Opening {
        self.uses += 1;
        if let Some((opening, used)) = self.open.get_mut(name) {
            *used = self.uses;
            return Arc::clone(opening);
        }
        if self.open.len() >= OPEN_MAX {
            self.make_room();
        }
        let opening = Opening::default();
        let entry = (Arc::clone(&opening), self.uses);
        self.open.insert(name.to_owned(), entry);
        opening
    }

    /// An eighth at a time: looking for the oldest goes through all.
    fn make_room(&mut self) {
        let mut uses: Vec<u64> = self.open.values().map(|(_, used)| *used).collect();
        let (_, oldest, _) = uses.select_nth_unstable(OPEN_MAX / 8);
        let oldest = *oldest;
        self.open.retain(|_, (_, used)| *used > oldest);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.open.remove(name);
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_used_stay_and_the_number_is_bounded() {
        let mut layers = OpenLayers::default();
        let used = layers.get("used");
        for n in 0..10 * OPEN_MAX {
            let _ = layers.get(&format!("layer {n}"));
            assert!(Arc::ptr_eq(&used, &layers.get("used")), "{n}");
            assert!(layers.open.len() <= OPEN_MAX);
        }
        layers.remove("used");
        assert!(!Arc::ptr_eq(&used, &layers.get("used")));
    }
}
