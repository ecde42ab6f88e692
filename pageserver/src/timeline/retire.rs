//! Taking layers away.

use ids::Lsn;

use super::{Timeline, WriteError, lock};
use crate::layer::map::{LayerDescription, LayerKind};
use crate::manifest::Manifest;

impl Timeline {
    /// Takes layers out of the manifest and, once that was accepted, deletes them (D2). The caller
    /// knows that other layers hold what they held for those who read at the end; what a pin
    /// needs is refused (D6).
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "nothing is taken away before there is a retention"
        )
    )]
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
            let deleted = self.home.bucket.delete(&name).await;
            deleted.map_err(|source| WriteError::Delete { name, source })?;
        }
        Ok(())
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
