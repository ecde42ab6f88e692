//! What a compaction reads and adds.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ids::{Key, Lsn};
use service::entropy::OsEntropy;

use super::{Closed, ReadError, Timeline, WriteError};
use crate::layer::cache::Block;
use crate::layer::file::LayerWriter;
use crate::layer::map::{LayerDescription, LayerKind};
use crate::layer::sealed_file::SealedLayer;
use crate::layer::writer::seal_image;
use crate::manifest::Manifest;

/// Layers with keys in ascending order that do not overlap, of one timeline.
pub(crate) struct Run<'a> {
    timeline: &'a Timeline,
    pub(crate) layers: Vec<LayerDescription>,
}

/// What lies above the newest images, and what the images hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Where everything is in layers up to.
    pub(crate) end: Lsn,
    /// The layers that a read may have to look through above the images.
    pub(crate) deltas: usize,
    pub(crate) delta_bytes: u64,
    /// The bytes of what is below them.
    pub(crate) image_bytes: u64,
}

impl Run<'_> {
    /// Opens layer `n`.
    pub(crate) async fn open(&self, n: usize) -> Result<Option<Arc<SealedLayer>>, ReadError> {
        let Some(description) = self.layers.get(n) else {
            return Ok(None);
        };
        let home = &self.timeline.home;
        let keys = home.keyring.tenant(home.tenant).await?;
        let _operation = keys.begin()?;
        let store = home.layer_store(&keys);
        let layer = self.timeline.layer(description, &store).await;
        let (key, lsn) = (description.first_key, description.last_lsn);
        layer
            .map(Some)
            .map_err(|source| ReadError::of_layer(key, lsn, source))
    }

    /// Block `n` of a layer of this run.
    pub(crate) async fn block(
        &self,
        layer: &SealedLayer,
        n: usize,
    ) -> Result<Arc<Block>, ReadError> {
        self.timeline.serving()?;
        let (key, lsn) = (Key::MIN, Lsn::MAX);
        let block = layer.block(n).await;
        block.map_err(|source| ReadError::of_layer(key, lsn, source))
    }
}

impl Timeline {
    /// How long the chains are that reads at the end go through.
    pub(crate) fn chain(&self) -> Result<Chain, Closed> {
        self.serving()?;
        let (end, deltas, images) = {
            let manifest = &self.state().manifest;
            let end = manifest.disk_consistent_lsn;
            let image = newest_image(manifest, end);
            (end, above(manifest, image, end), at(manifest, image))
        };
        let mut image_bytes = bytes(&images);
        if images.is_empty()
            && let Some((parent, lsn)) = self.parent_at(end)
        {
            image_bytes = parent.runs(lsn).iter().map(|run| bytes(&run.layers)).sum();
        }
        let flushes: BTreeSet<Lsn> = deltas.iter().map(|layer| layer.first_lsn).collect();
        Ok(Chain {
            end,
            deltas: flushes.len(),
            delta_bytes: bytes(&deltas),
            image_bytes,
        })
    }

    /// Everything in layers that a read at `lsn` may come to, down to the newest images.
    pub(crate) fn runs(&self, lsn: Lsn) -> Vec<Run<'_>> {
        let mut runs = Vec::new();
        let mut next = Some((self, lsn));
        while let Some((timeline, lsn)) = next {
            let manifest = timeline.state().manifest.clone();
            let image = newest_image(&manifest, lsn);
            let mut deltas = above(&manifest, image, lsn);
            deltas.sort_by_key(|layer| (layer.first_lsn, layer.first_key));
            // Those of one flush hold different keys.
            for flushed in deltas.chunk_by(|a, b| a.first_lsn == b.first_lsn) {
                let flushed = disjoint(flushed.to_vec()).into_iter();
                runs.extend(flushed.map(|layers| Run { timeline, layers }));
            }
            let images = disjoint(at(&manifest, image)).into_iter();
            runs.extend(images.map(|layers| Run { timeline, layers }));
            next = match image {
                None => timeline.parent_at(lsn),
                Some(_) => None,
            };
        }
        runs
    }

    fn parent_at(&self, lsn: Lsn) -> Option<(&Self, Lsn)> {
        let ancestor = self.ancestor()?;
        let parent = self.parent.as_deref()?;
        Some((parent, lsn.min(ancestor.lsn)))
    }

    /// Seals and puts an image layer of `keys` at `lsn`; no manifest names it yet.
    pub(crate) async fn put_image(
        &self,
        writer: LayerWriter,
        keys: (Key, Key),
        lsn: Lsn,
        has_gaps: bool,
    ) -> Result<LayerDescription, WriteError> {
        self.serving()?;
        let leased = self.home.keyring.tenant(self.home.tenant).await?;
        let _operation = leased.begin()?;
        let (dek, slot) = leased.mint().await?;
        let folder = self.home.layers();
        let place = self.home.place(self.generation, &folder);
        // D5: every attempt has a name of its own.
        let file = sealed::new_file_id(&mut OsEntropy);
        let (mut layer, sealed): (_, Bytes) =
            dek.with(|dek| seal_image(writer, keys, lsn, place, file, dek, &slot))?;
        // A fence that came while sealing stops the put (K6).
        leased.check()?;
        layer.has_gaps = has_gaps;
        let name = format!("{folder}{}", layer.name);
        self.home.bucket.put_if_absent(&name, sealed).await?;
        Ok(layer)
    }

    /// Makes images, which together hold every key at their LSN, part of the timeline.
    pub(crate) async fn add_images(&self, images: Vec<LayerDescription>) -> Result<(), WriteError> {
        let mut writer = self.writer.lock().await;
        self.serving()?;
        self.settle(&mut writer).await?;
        let there = at(&self.state().manifest, images.first().map(|i| i.first_lsn));
        if !there.is_empty() {
            // The put of an earlier attempt, which nobody had heard the end of, was accepted.
            self.delete_unnamed(&images).await;
            return Ok(());
        }
        self.change(&mut writer, |manifest| manifest.layers.extend(images))
            .await
    }

    /// Makes images, which together hold every key at `end`, the beginning of a timeline that holds
    /// nothing yet: all of them by one manifest, or none (D1). `record` is the one that ends there,
    /// and is to be taken in next.
    pub(crate) async fn begin_with(
        &self,
        images: Vec<LayerDescription>,
        record: Lsn,
        end: Lsn,
    ) -> Result<(), WriteError> {
        let mut writer = self.writer.lock().await;
        self.serving()?;
        self.settle(&mut writer).await?;
        self.change(&mut writer, |manifest| {
            manifest.layers.extend(images);
            manifest.disk_consistent_lsn = end;
            manifest.previous_record = record;
        })
        .await
    }

    /// Deletes layers that no manifest names or will name, as far as that can be done.
    pub(crate) async fn delete_unnamed(&self, layers: &[LayerDescription]) {
        for layer in layers {
            let name = format!("{}{}", self.home.layers(), layer.name);
            if let Err(error) = self.home.bucket.delete(&name).await {
                tracing::warn!(layer = %name, %error, "a layer that nobody needs stays");
            }
        }
    }

    /// Whether pages have checksums, once that was looked up.
    pub(crate) const fn checksums(&self) -> &OnceLock<bool> {
        &self.checksums
    }

    /// Held by who compacts.
    pub(crate) fn compacting(&self) -> &tokio::sync::Mutex<()> {
        &self.compacting
    }
}

/// The LSN of the newest images at or below `lsn`: those of one compaction hold every key.
fn newest_image(manifest: &Manifest, lsn: Lsn) -> Option<Lsn> {
    manifest
        .layers
        .iter()
        .filter(|layer| layer.kind == LayerKind::Image && layer.first_lsn <= lsn)
        .map(|layer| layer.first_lsn)
        .max()
}

fn above(manifest: &Manifest, image: Option<Lsn>, lsn: Lsn) -> Vec<LayerDescription> {
    let is_above = |layer: &&LayerDescription| {
        layer.kind == LayerKind::Delta
            && layer.first_lsn <= lsn
            && image.is_none_or(|image| layer.last_lsn > image)
    };
    manifest.layers.iter().filter(is_above).cloned().collect()
}

fn at(manifest: &Manifest, image: Option<Lsn>) -> Vec<LayerDescription> {
    let is_at = |layer: &&LayerDescription| {
        layer.kind == LayerKind::Image && Some(layer.first_lsn) == image
    };
    let mut images: Vec<_> = manifest.layers.iter().filter(is_at).cloned().collect();
    images.sort_by_key(|layer| layer.first_key);
    images
}

/// Layers, sorted by their keys, in groups inside of which no two overlap: one, as a rule.
fn disjoint(layers: Vec<LayerDescription>) -> Vec<Vec<LayerDescription>> {
    let mut groups: Vec<Vec<LayerDescription>> = Vec::new();
    for layer in layers {
        let ends_before = |group: &&mut Vec<LayerDescription>| {
            group
                .last()
                .is_some_and(|last| last.last_key < layer.first_key)
        };
        match groups.iter_mut().find(ends_before) {
            Some(group) => group.push(layer),
            None => groups.push(vec![layer]),
        }
    }
    groups
}

fn bytes(layers: &[LayerDescription]) -> u64 {
    layers.iter().map(|layer| layer.sealed_len).sum()
}
