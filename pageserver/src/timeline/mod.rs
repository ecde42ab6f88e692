//! A timeline over the bucket. Its disk holds nothing that the bucket does not: a restart attaches
//! again, and the WAL since the newest manifest comes from the safekeepers.
//!
//! Attaching is putting the next manifest (D1). Whoever loses a put is stale, for good: it serves,
//! deletes and reports nothing any more.

mod attach;
mod branch;
mod home;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use ids::{Generation, Lsn, TimelineId};

use crate::layer::map::LayerMap;
use crate::layer::memory::MemoryLayer;
use crate::layer::sealed_file::SealedLayer;
use crate::manifest::Manifest;
use home::Home;

/// Another page server has attached the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timeline {timeline} is attached elsewhere: its manifest {newest} is not from here")]
pub(crate) struct Stale {
    timeline: TimelineId,
    newest: u64,
}

/// An attached timeline.
pub(crate) struct Timeline {
    home: Home,
    /// The number of the manifest that attached it (D1).
    generation: Generation,
    parent: Option<Arc<Timeline>>,
    /// Who changes the manifest holds this.
    writer: tokio::sync::Mutex<Writer>,
    state: Mutex<State>,
    open_layers: Mutex<HashMap<String, Arc<SealedLayer>>>,
    /// Set once, with the number that somebody else put.
    stale: OnceLock<u64>,
}

/// The sequence of manifests, as its writer knows it.
struct Writer {
    /// The last one that was accepted.
    accepted: u64,
    /// One whose put was begun and not answered: nothing else is put before it is settled (D3).
    undecided: Option<Undecided>,
}

struct Undecided {
    number: u64,
    sealed: Bytes,
    manifest: Manifest,
}

struct State {
    /// The content of the last accepted manifest: nothing else is reported (D2).
    manifest: Manifest,
    layers: LayerMap,
    memory: MemoryLayer,
    /// On its way into the bucket.
    frozen: Option<Arc<Frozen>>,
    /// Everything at or below was ingested.
    last: Lsn,
    /// The record that ends at `last`.
    previous: Lsn,
}

struct Frozen {
    memory: MemoryLayer,
    last: Lsn,
    previous: Lsn,
}

impl Timeline {
    /// The generation of this attachment (D1).
    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// What safekeepers may forget the WAL of: it is in layers that an accepted manifest names.
    pub(crate) fn remote_consistent_lsn(&self) -> Result<Lsn, Stale> {
        self.serving()?;
        Ok(self.state().manifest.disk_consistent_lsn)
    }

    /// Up to where it can be read.
    pub(crate) fn last_lsn(&self) -> Result<Lsn, Stale> {
        self.serving()?;
        Ok(self.state().last)
    }

    /// Whether this attachment has not lost a put (D1).
    pub(crate) fn serving(&self) -> Result<(), Stale> {
        match self.stale.get() {
            None => Ok(()),
            Some(&newest) => Err(Stale {
                timeline: self.home.timeline,
                newest,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
