//! Taking a timeline up from the disk, or making it.

use ids::{Lsn, NodeId, Term};
use keyring::TenantKeys;
use quorum::{Acceptor, Action, Durable, Ticket};
use sealed::log::Anchor;

use super::TimelineError;
use super::task::Task;
use crate::acceptor_record::{AcceptorRecord, Progress, RecordFile};
use crate::exposure::Exposure;
use crate::framing::Framing;
use crate::wal_store::{OpenError, Place, StoreAnchor, WalStore, WriteError};

/// The anchor of a timeline whose log has not begun: epochs of a log count from 1.
pub(super) const NO_LOG: StoreAnchor = StoreAnchor {
    segment: 0,
    log: Anchor {
        epoch: 0,
        epoch_salt: [0; 32],
        term: Term(0),
        commit_lsn: Lsn::INVALID,
    },
};

impl Task {
    pub(super) async fn open(
        place: Place,
        framing: Framing,
        state: state::State,
        keys: TenantKeys,
        anew: bool,
    ) -> Result<Self, TimelineError> {
        let (node, timeline) = (place.node, place.timeline);
        // A fence waits until what is opened here is dropped again (K6).
        let operation = keys.begin()?;
        let loaded = RecordFile::load(state.clone(), node, timeline, &keys).await?;
        let (record, kept) = match loaded {
            Some((mut record, kept)) if anew => {
                let begun = begin_anew(&place, &keys, &mut record, &kept).await?;
                (record, begun)
            }
            Some(loaded) => loaded,
            None if anew => return Err(TimelineError::NotInDoubt),
            None => {
                let first = AcceptorRecord {
                    durable: Durable::default(),
                    anchor: NO_LOG,
                    progress: Progress::default(),
                };
                let made = RecordFile::create(state, node, timeline, &keys, &first).await?;
                (made, first)
            }
        };
        let store = match open_log(&place, &keys, &kept).await {
            Ok(store) => store,
            Err(error) => {
                if error.is_damage() {
                    store_doubt(node, record, kept).await?;
                }
                return Err(error);
            }
        };
        let flush = store.as_ref().and_then(WalStore::end_lsn);
        let flush = flush.unwrap_or(Lsn::INVALID);
        let mut task = Self {
            acceptor: Acceptor::restore(node, kept.durable, flush, false),
            framing,
            record,
            store,
            durable: Ticket(0),
            anchor: kept.anchor,
            progress: kept.progress,
            progress_stored: kept.progress,
            unmarked: false,
            partial: Lsn::INVALID,
            exposure: Exposure::default(),
            said_exposed: false,
            place,
            keys,
            _operation: operation,
        };
        task.begin().await?;
        Ok(task)
    }
}

async fn open_log(
    place: &Place,
    keys: &TenantKeys,
    kept: &AcceptorRecord,
) -> Result<Option<WalStore>, TimelineError> {
    if kept.anchor == NO_LOG {
        return match unnamed_wal(place, keys).await {
            Some(error) => Err(error.into()),
            None => Ok(None),
        };
    }
    let store = WalStore::open(place.clone(), keys.clone(), Some(&kept.anchor)).await?;
    let begun = kept.durable.history.entries().first().map(|e| e.start);
    let first = store.first_lsn().unwrap_or(Lsn::MAX);
    if first > begun.unwrap_or_default().max(kept.progress.trimmed) {
        return Err(TimelineError::Beheaded { first });
    }
    Ok(Some(store))
}

/// A5: sets the log of a learner aside and begins an empty one, which the others fill. Whatever a
/// crash leaves of this is refused as the old log was, and this can be asked for again.
async fn begin_anew(
    place: &Place,
    keys: &TenantKeys,
    file: &mut RecordFile,
    kept: &AcceptorRecord,
) -> Result<AcceptorRecord, TimelineError> {
    if !kept.durable.learner {
        return Err(TimelineError::NotInDoubt);
    }
    let anew = kept.durable.anew(kept.progress.backup);
    let (durable, at) = anew
        .filter(|_| kept.anchor != NO_LOG)
        .ok_or(TimelineError::PromisesLost)?;
    WalStore::set_aside(place).await?;
    let term = durable.history.last_term();
    let store = WalStore::create(place.clone(), keys.clone(), at, term).await?;
    let record = AcceptorRecord {
        durable,
        anchor: store.anchor(at).ok_or(WriteError::Dead)?,
        progress: Progress {
            trimmed: kept.progress.trimmed.max(at),
            ..kept.progress
        },
    };
    file.save(&record).await?;
    let timeline = place.timeline;
    tracing::warn!(%timeline, %at, "the log is begun anew, to be filled by the proposers");
    Ok(record)
}

/// T3: the log stays as it is, and so does the anchor that it failed.
async fn store_doubt(
    node: NodeId,
    mut file: RecordFile,
    kept: AcceptorRecord,
) -> Result<(), TimelineError> {
    let mut acceptor = Acceptor::restore(node, kept.durable, Lsn::INVALID, true);
    let mut actions = Vec::new();
    acceptor.on_restored(&mut actions);
    for action in actions {
        if let Action::Persist { state, .. } = action {
            let record = AcceptorRecord {
                durable: *state,
                ..kept
            };
            file.save(&record).await?;
        }
    }
    Ok(())
}

/// What forbids to take a timeline without a record of its log for a new one: WAL that lies there
/// says that the record was lost or set back, and a vote without it could lose commits (A5,
/// FORMAT.md part 6). What an interrupted first election left holds no WAL.
async fn unnamed_wal(place: &Place, keys: &TenantKeys) -> Option<OpenError> {
    match tokio::fs::try_exists(&place.directory).await {
        Ok(false) => return None,
        Ok(true) => {}
        Err(_) => return Some(OpenError::Exists(place.directory.clone())),
    }
    match WalStore::open(place.clone(), keys.clone(), None).await {
        Ok(store) if store.first_lsn() == store.end_lsn() => None,
        Ok(_) => Some(OpenError::Exists(place.directory.clone())),
        Err(OpenError::Empty(_)) => None,
        Err(error) => Some(error),
    }
}
