//! A timeline over the bucket. Its disk holds nothing that the bucket does not: a restart attaches
//! again, and the WAL since the newest manifest comes from the safekeepers.
//!
//! Attaching is putting the next manifest (D1). Whoever loses a put is stale, for good: it serves,
//! deletes and reports nothing any more. A timeline whose lease closed is fenced, for good too
//! (K6): it has dropped what it held in plaintext, and is attached anew once there are keys again.

mod attach;
mod branch;
mod fence;
mod home;
mod images;
mod known;
mod open_layers;
mod prune;
mod read;
mod retire;
#[cfg(test)]
pub(crate) mod tests;
mod wait;
mod write;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use api::Grade;
use bytes::Bytes;
use ids::{Generation, Lsn, TenantId, TimelineId};
use keyring::KeyError;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::layer::map::{LayerDescription, LayerMap};
use crate::layer::memory::MemoryLayer;
use crate::manifest::{Ancestor, Manifest};

pub(crate) use attach::{AttachError, Attachment, create};
pub(crate) use branch::BranchError;
pub(crate) use home::{Home, ManifestPutError, ManifestReadError};
pub(crate) use images::{Chain, Run};
use open_layers::OpenLayers;
pub(crate) use read::ReadError;
pub(crate) use wait::WaitError;
pub(crate) use write::{IngestError, WriteError};

/// Another page server has attached the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timeline {timeline} is attached elsewhere: its manifest {newest} is not from here")]
pub(crate) struct Stale {
    timeline: TimelineId,
    newest: u64,
}

/// Why this attachment does nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Closed {
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The lease closed under it (K6). To be attached anew.
    #[error("the timeline was fenced: {0}")]
    Fenced(#[from] KeyError),
}

impl Closed {
    /// How a caller should take it.
    pub(crate) const fn grade(&self) -> Grade {
        match self {
            Self::Stale(_) => Grade::RetryElsewhere,
            Self::Fenced(error) => error.grade(),
        }
    }
}

/// An attached timeline.
pub(crate) struct Timeline {
    home: Home,
    /// The number of the manifest that attached it (D1).
    generation: Generation,
    parent: Option<Arc<Timeline>>,
    /// Who changes the manifest holds this.
    writer: tokio::sync::Mutex<Writer>,
    /// The highest number of a manifest whose put was begun here.
    begun: AtomicU64,
    state: Mutex<State>,
    open_layers: Mutex<OpenLayers>,
    /// Set once, with the number that somebody else put.
    stale: OnceLock<u64>,
    /// Set once, when the lease closed (K6).
    fenced: OnceLock<KeyError>,
    /// Set after either.
    ended: CancellationToken,
    /// Up to where it can be read, for those who wait; woken too when nothing more comes.
    progress: watch::Sender<Lsn>,
    /// One compaction at a time.
    compacting: tokio::sync::Mutex<()>,
    /// Whether pages have checksums, once that was looked up.
    checksums: OnceLock<bool>,
    /// Ends the task that watches the lease.
    _watch: DropGuard,
}

/// The newest record of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastRecord {
    /// Its end.
    pub(crate) end: Lsn,
    /// Its start; 0 where the timeline has no record of its own.
    pub(crate) start: Lsn,
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
    /// What of it was put already, in order; no manifest names it yet.
    put: Mutex<Vec<LayerDescription>>,
}

impl Timeline {
    /// The generation of this attachment (D1).
    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// Whose it is.
    pub(crate) fn tenant(&self) -> TenantId {
        self.home.tenant
    }

    /// Which one it is.
    pub(crate) fn id(&self) -> TimelineId {
        self.home.timeline
    }

    /// PostgreSQL's major version.
    pub(crate) fn pg_major(&self) -> u32 {
        self.state().manifest.postgres_major
    }

    /// The branch point.
    pub(crate) fn ancestor(&self) -> Option<Ancestor> {
        self.state().manifest.ancestor
    }

    /// The first LSN at which there is something, for those who ask for a time before it.
    pub(crate) fn beginning(&self) -> Lsn {
        if let Some(parent) = &self.parent {
            return parent.beginning();
        }
        let state = self.state();
        let first = state.layers.iter().map(|layer| layer.last_lsn).min();
        first.unwrap_or(state.last)
    }

    /// The attached parent of a branch.
    pub(crate) fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    /// What safekeepers may forget the WAL of: it is in layers that an accepted manifest names.
    pub(crate) fn remote_consistent_lsn(&self) -> Result<Lsn, Closed> {
        self.serving()?;
        Ok(self.state().manifest.disk_consistent_lsn)
    }

    /// Up to where it can be read.
    pub(crate) fn last_lsn(&self) -> Result<Lsn, Closed> {
        Ok(self.last_record()?.end)
    }

    /// The newest record that was taken in.
    pub(crate) fn last_record(&self) -> Result<LastRecord, Closed> {
        let state = self.state();
        self.serving()?;
        Ok(LastRecord {
            end: state.last,
            start: state.previous,
        })
    }

    /// Roughly, the memory that values take which are not in the bucket yet.
    pub(crate) fn memory_bytes(&self) -> usize {
        let state = self.state();
        let frozen = state.frozen.as_ref().map_or(0, |f| f.memory.bytes());
        state.memory.bytes() + frozen
    }

    /// Whether this attachment has neither lost a put (D1) nor its keys (K6).
    pub(crate) fn serving(&self) -> Result<(), Closed> {
        if let Some(why) = self.fenced.get() {
            return Err(Closed::Fenced(why.clone()));
        }
        match self.stale.get() {
            None => Ok(()),
            Some(&newest) => Err(Closed::Stale(Stale {
                timeline: self.home.timeline,
                newest,
            })),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
