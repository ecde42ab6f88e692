//! Taking layers away.

use std::collections::BTreeSet;

use ids::Lsn;

use super::{Timeline, WriteError, lock};
use crate::layer::map::{LayerDescription, LayerKind};
use crate::manifest::Manifest;

impl Timeline {
    /// Takes layers out of the manifest and, once that was accepted, deletes them (D2). The caller
    /// knows that other layers hold what they held for those who read at the end; what a pin
    /// needs is refused (D6).
    pub(crate) async fn retire(&self, layers: &[LayerDescription]) -> Result<(), WriteError> {
        let mut writer = self.writer.lock().await;
        self.serving()?;
        self.settle(&mut writer).await?;
        check_pins(&self.state().manifest, layers)?;
        self.change(&mut writer, |manifest| {
            manifest.layers.retain(|layer| !layers.contains(layer));
        })
        .await?;
        for layer in layers {
            lock(&self.open_layers).remove(&layer.name);
            let name = format!("{}{}", self.home.layers(), layer.name);
            self.home.cache.remove(&name);
            let deleted = self.home.bucket.delete(&name).await;
            deleted.map_err(|source| WriteError::Delete { name, source })?;
        }
        Ok(())
    }
}

/// Of so many LSNs the newest images stay: computes read a little behind the end (C4).
const IMAGES_KEPT: usize = 4;

impl Timeline {
    /// Images that later ones have made needless: what they hold is made of deltas too, which
    /// stay, so that only reads between them and the next take longer. Those that the reads at a
    /// pin come to stay (D6), and those that the timeline began with: no delta is below them.
    pub(crate) fn superseded_images(&self) -> Vec<LayerDescription> {
        let state = self.state();
        let manifest = &state.manifest;
        let images = || {
            let layers = manifest.layers.iter();
            layers.filter(|layer| layer.kind == LayerKind::Image)
        };
        let lsns: BTreeSet<Lsn> = images().map(|image| image.first_lsn).collect();
        // What cannot be made now may be made by a later version: its history stays.
        let gaps = images().filter(|image| image.has_gaps);
        let needed = gaps.map(|image| image.first_lsn).max();
        let lsns: Vec<Lsn> = lsns.into_iter().collect();
        let deltas = manifest.layers.iter();
        let deltas = deltas.filter(|layer| layer.kind == LayerKind::Delta);
        let first_delta = deltas.map(|delta| delta.first_lsn).min();
        let is_made_of_deltas = |lsn: Lsn| first_delta.is_some_and(|first| first < lsn);
        let is_pinned = |from: Lsn, to: Lsn| {
            let mut pins = manifest.pins.iter();
            pins.any(|pin| (from..to).contains(&pin.lsn))
        };
        let superseded: BTreeSet<Lsn> = lsns
            .windows(2)
            .take(lsns.len().saturating_sub(IMAGES_KEPT))
            .filter(|two| is_made_of_deltas(two[0]))
            .filter(|two| !is_pinned(two[0], two[1]))
            .filter(|two| needed.is_none_or(|needed| two[0] > needed))
            .map(|two| two[0])
            .collect();
        let is_superseded = |image: &&LayerDescription| superseded.contains(&image.first_lsn);
        images().filter(is_superseded).cloned().collect()
    }
}

/// D6: a layer stays that a read at a pin comes to.
fn check_pins(manifest: &Manifest, retired: &[LayerDescription]) -> Result<(), WriteError> {
    let stays: Vec<_> = manifest
        .layers
        .iter()
        .filter(|layer| !retired.contains(layer))
        .collect();
    for pin in &manifest.pins {
        let reached = |layer: &&LayerDescription| {
            layer.first_lsn <= pin.lsn && !is_covered(layer, &stays, pin.lsn)
        };
        if let Some(layer) = retired.iter().find(reached) {
            return Err(WriteError::Pinned {
                name: layer.name.clone(),
                holder: pin.holder.clone(),
                lsn: pin.lsn,
            });
        }
    }
    Ok(())
}

/// Whether a read at `at` stops, for every key of `layer`, at an image that comes before it.
fn is_covered(layer: &LayerDescription, stays: &[&LayerDescription], at: Lsn) -> bool {
    let mut images: Vec<_> = stays
        .iter()
        .filter(|image| {
            image.kind == LayerKind::Image
                && !image.has_gaps
                && layer.last_lsn <= image.first_lsn
                && image.first_lsn <= at
        })
        .map(|image| (image.first_key, image.last_key))
        .collect();
    images.sort();
    let mut next = layer.first_key;
    for (first, last) in images {
        if first > next {
            return false;
        }
        if last >= layer.last_key {
            return true;
        }
        next = next.max(last.next());
    }
    false
}
