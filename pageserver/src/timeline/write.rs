//! Taking values in, and bringing them into the bucket.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use api::Grade;
use ids::{Key, Lsn};
use keyring::KeyError;
use service::entropy::OsEntropy;
use store::documents::{self, PutNextError};
use store::{GetError, PutError};

use super::home::{ManifestPutError, nonce};
use super::{Closed, Frozen, Stale, Timeline, Undecided, Writer, lock};
use crate::layer::map::{LayerDescription, LayerMap};
use crate::layer::writer;
use crate::manifest::Manifest;
use crate::value::Value;

/// A record was not taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngestError {
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The tenant's keys may not be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It ends where others were taken in already.
    #[error("a record that ends at {end} comes after {last} was taken in")]
    NotNext { end: Lsn, last: Lsn },
    /// Records between it and the last one are missing.
    #[error(
        "the record at {start} follows one at {prev}, but the last that was taken in is at {last}"
    )]
    Gap { start: Lsn, prev: Lsn, last: Lsn },
}

impl From<Closed> for IngestError {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Stale(stale) => Self::Stale(stale),
            Closed::Fenced(error) => Self::Key(error),
        }
    }
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
    /// Somebody needs it (D6).
    #[error("layer {name} holds what {holder} needs at {lsn}")]
    Pinned {
        name: String,
        holder: String,
        lsn: Lsn,
    },
    /// The manifest names it no more, but the object is there still.
    #[error("layer {name} was not deleted: {source}")]
    Delete {
        name: String,
        #[source]
        source: GetError,
    },
}

impl From<Closed> for WriteError {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Stale(stale) => Self::Stale(stale),
            Closed::Fenced(error) => Self::Key(error),
        }
    }
}

impl WriteError {
    /// How a caller should take it.
    pub(crate) fn grade(&self) -> Grade {
        match self {
            Self::Stale(_) => Grade::RetryElsewhere,
            Self::Key(error) | Self::Manifest(ManifestPutError::Key(error)) => error.grade(),
            Self::Pinned { .. } => Grade::FixRequest,
            Self::Layer(_) | Self::Manifest(_) | Self::Delete { .. } => Grade::Retry,
        }
    }
}

impl Timeline {
    /// Takes in what the record from `start` to `end` does, all of it at once. `prev` is where
    /// the record before it begins, as the record itself says; it must be the last one that was
    /// taken in, or 0 where this timeline has none of its own.
    pub(crate) fn ingest(
        &self,
        prev: Lsn,
        start: Lsn,
        end: Lsn,
        values: impl IntoIterator<Item = (Key, Value)>,
    ) -> Result<(), IngestError> {
        let mut state = self.state();
        // Under the lock: a fence that dropped what was here stays the last word (K6).
        self.serving()?;
        if end <= state.last {
            return Err(IngestError::NotNext {
                end,
                last: state.last,
            });
        }
        if prev != state.previous {
            let last = state.previous;
            return Err(IngestError::Gap { start, prev, last });
        }
        for (key, value) in values {
            state.memory.put(key, end, value);
        }
        (state.last, state.previous) = (end, start);
        // Under the lock, so that those who wait never see it go back.
        self.progress.send_replace(end);
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
            let layers = tokio::select! {
                biased;
                // K6: a bucket that stands still keeps no plaintext, and no drain, waiting.
                closed = self.closed() => return Err(closed.into()),
                layers = self.put_layers(&frozen) => layers?,
            };
            let (last, previous) = (frozen.last, frozen.previous);
            drop(frozen);
            // The layers are in the bucket before a manifest names them.
            self.change(writer, |manifest| {
                manifest.layers.extend(layers);
                manifest.disk_consistent_lsn = last;
                manifest.previous_record = previous;
            })
            .await?;
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
        self.begun.store(number, Ordering::SeqCst);
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
            self.become_stale(newest);
            writer.undecided = None;
            return Ok(self.serving()?);
        }
        put?;
        if let Some(undecided) = writer.undecided.take() {
            writer.accepted = undecided.number;
            self.install(undecided.manifest);
            self.prune_after(writer.accepted).await;
        }
        Ok(())
    }

    /// Stops where the bucket shows a manifest that is not from here (D1). A bucket that does not
    /// answer says nothing.
    pub(crate) async fn look_for_newer(&self) -> Result<(), Closed> {
        let numbers = documents::numbers(&self.home.bucket, &self.home.manifests()).await;
        let newest = numbers.ok().and_then(|numbers| numbers.first().copied());
        // Asked after the list, which then shows nothing from here above it. Readers come here,
        // who must not hold up, or wait for, whoever puts manifests.
        let begun = self.begun.load(Ordering::SeqCst);
        if let Some(newest) = newest.filter(|&newest| newest > begun) {
            self.become_stale(newest);
        }
        self.serving()
    }

    fn become_stale(&self, newest: u64) {
        self.stale.get_or_init(|| newest);
        self.ended.cancel();
        self.progress.send_modify(|_| {});
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
                put: Mutex::default(),
            }));
        }
        state.frozen.clone()
    }

    /// Puts the values of `frozen`.
    async fn put_layers(&self, frozen: &Frozen) -> Result<Vec<LayerDescription>, WriteError> {
        let keys = self.home.keyring.tenant(self.home.tenant).await?;
        let _operation = keys.begin()?;
        let folder = self.home.layers();
        let place = self.home.place(self.generation, &folder);
        let first = Lsn(self.state().manifest.disk_consistent_lsn.0 + 1);
        // What an attempt that failed midway has put is not put again: the parts are the same.
        let known = lock(&frozen.put).len();
        for part in writer::delta_parts(&frozen.memory, DELTA_BYTES).skip(known) {
            let (dek, slot) = keys.mint().await?;
            // D5: every attempt has a name of its own.
            let file = sealed::new_file_id(&mut OsEntropy);
            let lsns = (first, frozen.last);
            let (layer, sealed) =
                dek.with(|dek| writer::seal_delta(part, lsns, place, file, dek, &slot))?;
            // A fence that came while sealing stops the put (K6).
            keys.check()?;
            let name = format!("{folder}{}", layer.name);
            self.home.bucket.put_if_absent(&name, sealed).await?;
            lock(&frozen.put).push(layer);
        }
        Ok(lock(&frozen.put).clone())
    }
}

/// The bytes of one delta layer: it is in memory while it is sealed.
const DELTA_BYTES: usize = 128 << 20;
