//! Creating and attaching timelines.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};

use ids::{Generation, Lsn, TimelineId};
use keyring::KeyError;
use store::documents::PutNextError;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::fence::watch_guard;
use super::home::{FIRST, Home, ManifestPutError, ManifestReadError, nonce};
use super::{State, Timeline, Writer};
use crate::layer::map::LayerMap;
use crate::layer::memory::MemoryLayer;
use crate::manifest::{Ancestor, FORMAT, Manifest};

/// How often attaching is begun anew because another one was first.
const ATTEMPTS: usize = 8;

/// A timeline was not created or attached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// There is no manifest.
    #[error("timeline {0} does not exist")]
    Absent(TimelineId),
    /// There is one already, and it is not the one that was to be created.
    #[error("timeline {0} exists already, and not as asked for")]
    Exists(TimelineId),
    /// The tenant's keys may not be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The newest manifest.
    #[error(transparent)]
    Read(#[from] ManifestReadError),
    /// The next manifest.
    #[error(transparent)]
    Put(#[from] ManifestPutError),
    /// Manifests that are known to have been there are gone.
    #[error("{name} is the newest manifest, but number {known} was accepted: it is gone")]
    RolledBack { name: String, known: u64 },
    /// The parent that was given is not the one that the manifest names.
    #[error("timeline {timeline} needs {needed:?} as its parent")]
    OtherParent {
        timeline: TimelineId,
        needed: Option<TimelineId>,
    },
    /// No number is left, which no honest sequence comes to.
    #[error("{0} leaves no number for the next manifest")]
    NoNumber(String),
    /// Others attached it again and again.
    #[error("timeline {0} was attached by others {ATTEMPTS} times in a row")]
    Contended(TimelineId),
}

/// What is attached.
pub(crate) struct Attachment {
    pub(crate) home: Home,
    /// The attached parent of a branch.
    pub(crate) parent: Option<Arc<Timeline>>,
    /// The highest manifest number that the caller knows to have been accepted: a bucket that was
    /// set back to before it is refused. 0 where nothing is known.
    pub(crate) known: u64,
}

/// Puts the first manifest of a timeline, with nothing in it at or below `start`. To create again
/// what is there already changes nothing.
pub(crate) async fn create(
    home: &Home,
    postgres_major: u32,
    ancestor: Option<Ancestor>,
    start: Lsn,
) -> Result<(), AttachError> {
    let manifest = Manifest {
        format: FORMAT,
        tenant: home.tenant,
        timeline: home.timeline,
        nonce: nonce(),
        postgres_major,
        ancestor,
        disk_consistent_lsn: start,
        previous_record: Lsn(0),
        pins: Vec::new(),
        layers: Vec::new(),
    };
    if home.newest().await?.is_none() {
        let sealed = home.seal(FIRST, Generation(1), &manifest).await?;
        match home.put(FIRST, sealed).await {
            Err(e) if !lost(&e) => return Err(e.into()),
            Ok(()) => return Ok(()),
            Err(_) => {}
        }
    }
    let found = home.newest().await?.map(|(_, found)| found);
    let same = |found: Manifest| (found.ancestor, found.postgres_major);
    if found.map(same) == Some((ancestor, postgres_major)) {
        Ok(())
    } else {
        Err(AttachError::Exists(home.timeline))
    }
}

impl Timeline {
    /// Attaches: the next manifest is put before anything is served (D1).
    pub(crate) async fn attach(attachment: Attachment) -> Result<Arc<Self>, AttachError> {
        let Attachment {
            home,
            parent,
            known,
        } = attachment;
        for _ in 0..ATTEMPTS {
            let keys = home.keyring.tenant(home.tenant).await?;
            let newest = home.newest().await?;
            let (newest, mut manifest) = newest.ok_or(AttachError::Absent(home.timeline))?;
            let name = home.manifests().name(newest);
            if newest < known {
                return Err(AttachError::RolledBack { name, known });
            }
            check_parent(&home, &manifest, parent.as_deref())?;
            let number = newest.checked_add(1);
            let generation = number.and_then(|n| u32::try_from(n).ok()).map(Generation);
            let (Some(number), Some(generation)) = (number, generation) else {
                return Err(AttachError::NoNumber(name));
            };
            manifest.nonce = nonce();
            let sealed = home.seal(number, generation, &manifest).await?;
            match home.put(number, sealed).await {
                Ok(()) => {
                    // Asked before: a lease that closes from here on fences the timeline (K6).
                    keys.check()?;
                    let (guard, stop) = watch_guard();
                    let timeline = Self::new(home, parent, (number, generation), manifest, guard);
                    let timeline = Arc::new(timeline);
                    timeline.watch(keys, stop);
                    return Ok(timeline);
                }
                // Another one was first: what it wrote is read before anything is put again.
                Err(e) if lost(&e) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(AttachError::Contended(home.timeline))
    }

    fn new(
        home: Home,
        parent: Option<Arc<Self>>,
        (accepted, generation): (u64, Generation),
        manifest: Manifest,
        watch: DropGuard,
    ) -> Self {
        let progress = watch::Sender::new(manifest.disk_consistent_lsn);
        let state = State {
            layers: LayerMap::new(manifest.layers.clone()),
            memory: MemoryLayer::default(),
            frozen: None,
            last: manifest.disk_consistent_lsn,
            previous: manifest.previous_record,
            manifest,
        };
        Self {
            home,
            generation,
            parent,
            writer: tokio::sync::Mutex::new(Writer {
                accepted,
                undecided: None,
            }),
            state: Mutex::new(state),
            open_layers: Mutex::default(),
            begun: AtomicU64::new(accepted),
            stale: OnceLock::new(),
            fenced: OnceLock::new(),
            ended: CancellationToken::new(),
            progress,
            compacting: tokio::sync::Mutex::new(()),
            checksums: OnceLock::new(),
            _watch: watch,
        }
    }
}

fn check_parent(
    home: &Home,
    manifest: &Manifest,
    parent: Option<&Timeline>,
) -> Result<(), AttachError> {
    let given = parent.map(|parent| (parent.home.tenant, parent.home.timeline));
    let needed = manifest.ancestor.map(|ancestor| ancestor.timeline);
    if given == needed.map(|timeline| (home.tenant, timeline)) {
        return Ok(());
    }
    Err(AttachError::OtherParent {
        timeline: home.timeline,
        needed,
    })
}

fn lost(error: &ManifestPutError) -> bool {
    let ManifestPutError::Put { source, .. } = error else {
        return false;
    };
    matches!(source, PutNextError::Lost { .. })
}
