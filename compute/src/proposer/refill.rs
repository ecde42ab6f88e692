//! WAL of before the term, from a safekeeper that has it to one that lacks it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ids::{Lsn, NodeId, Term};
use pg::wire::replication::FromSender;
use service::libpq::WireError;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::Reach;
use super::owner::Event;

/// Pieces that are read but not written to the one that lacks them.
const PIECES: usize = 8;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A donor that sends nothing for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Why a donor did not give.
#[derive(Debug, thiserror::Error)]
enum RefillError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Message(#[from] pg::wire::WireError),
    #[error("the donor sends WAL at {got} where {expected} was expected")]
    Gap { expected: Lsn, got: Lsn },
    #[error("the donor sends nothing")]
    Silent,
    #[error("the donor ended the copy")]
    Ended,
}

/// What is to be brought.
pub(super) struct Request {
    pub(super) to: NodeId,
    /// The one that the proposer names first.
    pub(super) donors: Vec<NodeId>,
    pub(super) range: Range<Lsn>,
    pub(super) term: Term,
    /// Tries before this one without a byte.
    pub(super) failures: u32,
}

/// A task that reads; it ends with this.
pub(super) struct Refill {
    /// What comes next.
    pub(super) next: Lsn,
    /// Tries without a byte, this one included once it is over.
    pub(super) failures: u32,
    from: Lsn,
    task: JoinHandle<()>,
    over: bool,
}

/// Who may be asked. With the term in the request only those answer that have taken the history of
/// this term over, so what they hold below its start is the same.
pub(super) fn donors(reach: &Reach, to: NodeId, first: NodeId) -> Vec<NodeId> {
    let others = reach.addresses.keys().copied();
    let others = others.filter(|n| *n != to && *n != first);
    std::iter::once(first).chain(others).collect()
}

impl Refill {
    pub(super) fn start(request: Request, reach: Arc<Reach>, events: mpsc::Sender<Event>) -> Self {
        let (next, failures) = (request.range.start, request.failures);
        let task = service::task::spawn("refill", async move {
            let to = request.to;
            if let Err(error) = bring(request, &reach, &events).await {
                tracing::info!(%to, %error, "a donor gave no WAL");
                drop(events.send(Event::NotRefilled { to }).await);
            }
        });
        Self {
            next,
            failures,
            from: next,
            task,
            over: false,
        }
    }

    pub(super) fn running(&self) -> bool {
        !self.over
    }

    /// This try is over without all of its WAL.
    pub(super) fn over(&mut self) {
        self.over = true;
        let progress = self.next > self.from;
        self.failures = if progress { 0 } else { self.failures + 1 };
    }
}

impl Drop for Refill {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn bring(
    request: Request,
    reach: &Reach,
    events: &mpsc::Sender<Event>,
) -> Result<(), RefillError> {
    let Request {
        to,
        donors,
        range,
        term,
        failures,
    } = request;
    if failures > 0 {
        let backoff = BACKOFF_MIN * 2u32.saturating_pow(failures.min(8) - 1);
        tokio::time::sleep(backoff.min(BACKOFF_MAX)).await;
    }
    let turn = failures as usize % donors.len().max(1);
    let donor = donors.get(turn).copied().ok_or(RefillError::Ended)?;
    let sql = format!("START_REPLICATION PHYSICAL {} (term='{term}')", range.start);
    let start = async { reach.client(donor).await?.query_copy_both(&sql).await };
    let mut copy = patient(start).await??;
    let pieces = Arc::new(Semaphore::new(PIECES));
    let mut at = range.start;
    while at < range.end {
        let bytes = patient(copy.read_copy()).await??;
        let FromSender::XLogData { start, wal, .. } =
            FromSender::decode(bytes.ok_or(RefillError::Ended)?)?
        else {
            continue;
        };
        if start != at {
            return Err(RefillError::Gap {
                expected: at,
                got: start,
            });
        }
        // A donor may have more: what follows is the proposer's own.
        let wanted = (range.end - at).min(wal.len() as u64) as usize;
        for wal in split(wal.slice(..wanted)) {
            let Ok(permit) = Arc::clone(&pieces).acquire_owned().await else {
                return Ok(());
            };
            let after = at + wal.len() as u64;
            let refilled = Event::Refilled {
                to,
                at,
                wal,
                permit,
            };
            if events.send(refilled).await.is_err() {
                return Ok(());
            }
            at = after;
        }
    }
    Ok(())
}

/// One append each, since the permit goes with one message.
fn split(wal: Bytes) -> impl Iterator<Item = Bytes> {
    let most = pg::wire::wal_push::APPEND_BYTES_MAX;
    (0..wal.len())
        .step_by(most)
        .map(move |at| wal.slice(at..wal.len().min(at + most)))
}

async fn patient<F: Future>(answer: F) -> Result<F::Output, RefillError> {
    let answer = tokio::time::timeout(SILENCE_MAX, answer).await;
    answer.map_err(|_| RefillError::Silent)
}
