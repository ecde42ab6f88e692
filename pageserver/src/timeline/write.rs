//! Taking values in, and bringing them into the bucket.

use std::sync::Arc;

use ids::{Key, Lsn};
use keyring::KeyError;
use service::entropy::OsEntropy;
use store::documents::{self, PutNextError};
use store::{GetError, PutError};

use super::home::{ManifestPutError, nonce};
use super::{Frozen, Stale, Timeline, Undecided, Writer, lock};
use crate::layer::map::{LayerDescription, LayerMap};
use crate::layer::sealed_file;
use crate::manifest::Manifest;
use crate::value::Value;

/// A record was not taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngestError {
    #[error(transparent)]
    Stale(#[from] Stale),
    /// It ends where others were taken in already.
    #[error("a record that ends at {end} comes after {last} was taken in")]
    NotNext { end: Lsn, last: Lsn },
}

/// The bucket has not got what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Stale(#[from] Stale),
    /// There is no key to seal with.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A layer was not put; its values are still in memory.
    #[error("a layer was not put: {0}")]
    Layer(#[from] PutError),
    /// The manifest was not accepted, or nobody knows: it is put again before any other.
    #[error(transparent)]
    Manifest(#[from] ManifestPutError),
    /// The manifest names it no more, but the object is there still.
    #[error("layer {name} was not deleted: {source}")]
    Delete {
        name: String,
        #[source]
        source: GetError,
    },
}

impl Timeline {
    /// Takes in what the record from `start` to `end` does, all of it at once.
    pub(crate) fn ingest(
        &self,
        start: Lsn,
        end: Lsn,
        values: impl IntoIterator<Item = (Key, Value)>,
    ) -> Result<(), IngestError> {
        self.serving()?;
        let mut state = self.state();
        if end <= state.last {
            return Err(IngestError::NotNext {
                end,
                last: state.last,
            });
        }
        for (key, value) in values {
            state.memory.put(key, end, value);
        }
        (state.last, state.previous) = (end, start);
        Ok(())
    }

    /// Brings what was taken in by now into the bucket. Returns the new remote consistent LSN.
    pub(crate) async fn flush(&self) -> Result<Lsn, WriteError> {
        let mut writer = self.writer.lock().await;
        let target = self.last_lsn()?;
        self.flush_up_to(&mut writer, target).await?;
        Ok(self.remote_consistent_lsn()?)
    }

    /// Flushes until everything at or below `target` is in the bucket.
    pub(super) async fn flush_up_to(
        &self,
        writer: &mut Writer,
        target: Lsn,
    ) -> Result<(), WriteError> {
        self.settle(writer).await?;
        while self.remote_consistent_lsn()? < target {
            let Some(frozen) = self.freeze() else {
                break;
            };
            let layer = self.put_layer(&frozen).await?;
            // The layer is in the bucket before a manifest names it.
            self.change(writer, |manifest| {
                manifest.layers.extend(layer);
                manifest.disk_consistent_lsn = frozen.last;
                manifest.previous_record = frozen.previous;
            })
            .await?;
        }
        Ok(())
    }

    /// Takes layers out of the manifest and, once that was accepted, deletes them (D2). The caller
    /// knows that other layers hold what they held.
    pub(crate) async fn retire(&self, layers: &[LayerDescription]) -> Result<(), WriteError> {
        let mut writer = self.writer.lock().await;
        self.serving()?;
        self.settle(&mut writer).await?;
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

    /// Puts a manifest that differs from the accepted one by `edit`.
    pub(super) async fn change(
        &self,
        writer: &mut Writer,
        edit: impl FnOnce(&mut Manifest),
    ) -> Result<(), WriteError> {
        assert!(writer.undecided.is_none(), "D3: one put after the other");
        let mut manifest = self.state().manifest.clone();
        edit(&mut manifest);
        manifest.nonce = nonce();
        let number = writer.accepted + 1;
        let sealed = self.home.seal(number, self.generation, &manifest).await?;
        // Noted before the put: a caller that goes away in between leaves it to the next one.
        writer.undecided = Some(Undecided {
            number,
            sealed,
            manifest,
        });
        self.settle(writer).await
    }

    /// Puts, again, the manifest whose put nobody has heard the end of.
    pub(super) async fn settle(&self, writer: &mut Writer) -> Result<(), WriteError> {
        let Some(undecided) = &writer.undecided else {
            return Ok(());
        };
        let put = self
            .home
            .put(undecided.number, undecided.sealed.clone())
            .await;
        if let Err(ManifestPutError::Put {
            source: PutNextError::Lost { newest },
            ..
        }) = put
        {
            // D1: from here on this attachment serves, deletes and reports nothing.
            self.stale.get_or_init(|| newest);
            writer.undecided = None;
            return Ok(self.serving()?);
        }
        put?;
        if let Some(undecided) = writer.undecided.take() {
            writer.accepted = undecided.number;
            self.install(undecided.manifest);
        }
        Ok(())
    }

    /// Stops where the bucket shows a manifest that is not from here (D1). A bucket that does not
    /// answer says nothing.
    pub(crate) async fn look_for_newer(&self) -> Result<(), Stale> {
        let writer = self.writer.lock().await;
        let ours = writer.accepted + u64::from(writer.undecided.is_some());
        let numbers = documents::numbers(&self.home.bucket, &self.home.manifests()).await;
        let newest = numbers.ok().and_then(|numbers| numbers.first().copied());
        if let Some(newest) = newest.filter(|&newest| newest > ours) {
            self.stale.get_or_init(|| newest);
        }
        self.serving()
    }

    /// Makes an accepted manifest the one that is served from.
    fn install(&self, manifest: Manifest) {
        let mut state = self.state();
        let consistent = manifest.disk_consistent_lsn;
        if state.frozen.as_ref().is_some_and(|f| f.last <= consistent) {
            state.frozen = None;
        }
        state.layers = LayerMap::new(manifest.layers.clone());
        state.manifest = manifest;
    }

    /// What is to be brought into the bucket next; an earlier one that failed comes first.
    fn freeze(&self) -> Option<Arc<Frozen>> {
        let mut state = self.state();
        if state.frozen.is_none() && state.last > state.manifest.disk_consistent_lsn {
            state.frozen = Some(Arc::new(Frozen {
                memory: std::mem::take(&mut state.memory),
                last: state.last,
                previous: state.previous,
            }));
        }
        state.frozen.clone()
    }

    /// Puts the values of `frozen`; `None` where it has none.
    async fn put_layer(&self, frozen: &Frozen) -> Result<Option<LayerDescription>, WriteError> {
        let keys = self.home.keyring.tenant(self.home.tenant).await?;
        let _operation = keys.begin()?;
        let (dek, slot) = keys.mint().await?;
        let folder = self.home.layers();
        let place = self.home.place(self.generation, &folder);
        let first = Lsn(self.state().manifest.disk_consistent_lsn.0 + 1);
        // D5: every attempt has a name of its own.
        let file = sealed::new_file_id(&mut OsEntropy);
        let lsns = (first, frozen.last);
        let sealed =
            dek.with(|dek| sealed_file::seal_delta(&frozen.memory, place, lsns, file, dek, &slot))?;
        let Some((layer, sealed)) = sealed else {
            return Ok(None);
        };
        // A fence that came while sealing stops the put (K6).
        keys.check()?;
        let name = format!("{folder}{}", layer.name);
        self.home.bucket.put_if_absent(&name, sealed).await?;
        Ok(Some(layer))
    }
}
