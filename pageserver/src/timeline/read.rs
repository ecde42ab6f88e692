//! Reading one key: memory, layers from new to old, then the branch's ancestors.

use std::sync::Arc;

use api::Grade;
use bytes::Bytes;
use ids::{Key, Lsn};
use keyring::KeyError;
use pg::{PgMajor, UnsupportedVersion};
use store::SealedGetError;

use super::{Closed, Stale, Timeline, lock};
use crate::layer::collect::Collected;
use crate::layer::map::{LayerDescription, LayerKind};
use crate::layer::sealed_file::{LayerStore, SealedLayer, SealedLayerError};
use crate::metrics;
use crate::rebuild::{RebuildError, rebuild};
use crate::value::Value;

/// A key was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The tenant's keys may not be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What happened at that LSN has not come yet.
    #[error("{lsn} was asked for, and the timeline has come to {last}")]
    Ahead { lsn: Lsn, last: Lsn },
    /// A layer that the read needs; the error names it.
    #[error("{key} cannot be read at {lsn}: {source}")]
    Layer {
        key: Key,
        lsn: Lsn,
        #[source]
        source: SealedLayerError,
    },
    /// The values were read, and no content comes of them.
    #[error("{key} cannot be rebuilt at {lsn}: {source}")]
    Rebuild {
        key: Key,
        lsn: Lsn,
        #[source]
        source: RebuildError,
    },
    /// The manifest names a PostgreSQL that this program does not know.
    #[error(transparent)]
    Version(#[from] UnsupportedVersion),
}

impl From<Closed> for ReadError {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Stale(stale) => Self::Stale(stale),
            Closed::Fenced(error) => Self::Key(error),
        }
    }
}

impl ReadError {
    /// What became of a layer: without a key nothing is said about it.
    pub(super) fn of_layer(key: Key, lsn: Lsn, source: SealedLayerError) -> Self {
        match source.into_key_error() {
            Ok(error) => Self::Key(error),
            Err(source) => Self::Layer { key, lsn, source },
        }
    }

    /// How a caller should take it.
    pub(crate) const fn grade(&self) -> Grade {
        match self {
            Self::Stale(_) => Grade::RetryElsewhere,
            Self::Key(error) => error.grade(),
            Self::Ahead { .. } => Grade::Retry,
            Self::Layer { source, .. } => source.grade(),
            Self::Rebuild { .. } => Grade::DataDamaged,
            Self::Version(_) => Grade::FixRequest,
        }
    }
}

impl Timeline {
    /// What `key` is at `lsn`; `None` where it names nothing.
    pub(crate) async fn content(&self, key: Key, lsn: Lsn) -> Result<Option<Bytes>, ReadError> {
        let keys = self.home.keyring.tenant(self.home.tenant).await?;
        let _operation = keys.begin()?;
        let values = self.read(key, lsn).await?;
        let version = PgMajor::from_number(self.state().manifest.postgres_major)?;
        let content = rebuild(version, &values).map_err(|source| {
            metrics::unreadable(self.home.tenant, self.home.timeline);
            ReadError::Rebuild { key, lsn, source }
        })?;
        // Redo takes its time: asked again when the answer leaves (D1, K5).
        self.serving()?;
        keys.check()?;
        Ok(content)
    }

    /// The values that make `key` at `lsn`, in the order in which they apply.
    pub(crate) async fn read(&self, key: Key, lsn: Lsn) -> Result<Vec<(Lsn, Value)>, ReadError> {
        let mut values = self.read_key(key, lsn).await?;
        // What was copied has come about before the copy: this ends.
        while let Some((_, Value::CopyOf { key, at })) = values.first() {
            let mut copied = self.read_key(*key, *at).await?;
            copied.extend(values.drain(1..));
            values = copied;
        }
        Ok(values)
    }

    /// What the key itself holds.
    async fn read_key(&self, key: Key, lsn: Lsn) -> Result<Vec<(Lsn, Value)>, ReadError> {
        loop {
            let manifests = self.manifests();
            let mut read = self.read_once(key, lsn).await;
            if matches!(read, Err(ReadError::Key(_))) {
                // A layer was opened under a lease that has ended; there may be a new one.
                read = self.read_once(key, lsn).await;
            }
            if !matches!(read, Err(ReadError::Layer { .. })) {
                return read;
            }
            // Layers that were retired meanwhile, here or by whom this lost to, are not missing.
            self.look_for_newer().await?;
            if manifests == self.manifests() {
                return read;
            }
        }
    }

    /// The nonces of the manifests that a read goes by.
    fn manifests(&self) -> Vec<String> {
        std::iter::successors(Some(self), |timeline| timeline.parent.as_deref())
            .map(|timeline| timeline.state().manifest.nonce.clone())
            .collect()
    }

    async fn read_once(&self, key: Key, lsn: Lsn) -> Result<Vec<(Lsn, Value)>, ReadError> {
        let keys = self.home.keyring.tenant(self.home.tenant).await?;
        let _operation = keys.begin()?;
        let store = self.home.layer_store(&keys);
        let mut into = Collected::default();
        let mut next = Some((self, lsn));
        while let Some((timeline, lsn)) = next {
            timeline.collect(key, lsn, &store, &mut into).await?;
            if into.is_complete() {
                break;
            }
            let ancestor = timeline.state().manifest.ancestor;
            // What the parent did after the branch point is none of the branch's business.
            next = timeline
                .parent
                .as_deref()
                .zip(ancestor)
                .map(|(parent, ancestor)| (parent, lsn.min(ancestor.lsn)));
        }
        // Asked when the answer leaves, not only when it is begun (D1, K5).
        self.serving()?;
        keys.check()?;
        Ok(into.into_oldest_first())
    }

    /// Collects what this timeline itself has.
    async fn collect(
        &self,
        key: Key,
        lsn: Lsn,
        store: &LayerStore,
        into: &mut Collected,
    ) -> Result<(), ReadError> {
        self.serving()?;
        for description in self.collect_memory(key, lsn, into)? {
            if into.is_complete() {
                break;
            }
            let read = async {
                let layer = self.layer(&description, store).await?;
                layer.collect(key, lsn, into).await
            };
            if let Err(source) = read.await {
                // Opened anew next time: the key that it was opened with may be gone.
                lock(&self.open_layers).remove(&description.name);
                return Err(ReadError::of_layer(key, lsn, source));
            }
            if description.kind == LayerKind::Image {
                // It holds every key of its range that named anything.
                into.end_of_image();
            }
        }
        Ok(())
    }

    /// Collects from memory, and says which layers to ask for the rest. Both under one lock: a
    /// flush in between would move values from the one to the other.
    fn collect_memory(
        &self,
        key: Key,
        lsn: Lsn,
        into: &mut Collected,
    ) -> Result<Vec<Arc<LayerDescription>>, ReadError> {
        let state = self.state();
        if lsn > state.last {
            let last = state.last;
            return Err(ReadError::Ahead { lsn, last });
        }
        state.memory.collect(key, lsn, into);
        if let Some(frozen) = &state.frozen {
            frozen.memory.collect(key, lsn, into);
        }
        Ok(match into.is_complete() {
            true => Vec::new(),
            false => state.layers.candidates(key, lsn),
        })
    }

    /// An open layer; opened once, however many ask for it at a time.
    pub(super) async fn layer(
        &self,
        description: &LayerDescription,
        store: &LayerStore,
    ) -> Result<Arc<SealedLayer>, SealedLayerError> {
        let cell = {
            let mut open = lock(&self.open_layers);
            // Under the lock: a fence that dropped the layers stays the last word (K6).
            if let Some(why) = self.fenced() {
                let layer = description.name.clone();
                let source = SealedGetError::Key(why.clone());
                return Err(SealedLayerError::Sealed { layer, source });
            }
            open.get(&description.name)
        };
        let folder = self.home.layers();
        let place = self.home.place(self.generation, &folder);
        let opened = cell
            .get_or_try_init(async || {
                let layer = SealedLayer::open(description, place, store).await?;
                Ok(Arc::new(layer))
            })
            .await?;
        Ok(Arc::clone(opened))
    }
}
