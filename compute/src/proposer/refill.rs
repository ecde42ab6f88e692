//! WAL that the proposer does not hold, from a safekeeper that has it to one that lacks it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ids::{Lsn, NodeId, Term};
use pg::wire::replication::FromSender;
use service::libpq::WireError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Reach;
use super::owner::Event;

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
    /// Tells answers of this request from those of one before.
    pub(super) id: u64,
    pub(super) to: NodeId,
    /// The one that the proposer names.
    pub(super) donor: NodeId,
    pub(super) range: Range<Lsn>,
    pub(super) term: Term,
    /// Requests for `to` that failed since the last one that did not.
    pub(super) failures: u32,
}

/// A task that reads; it ends with this.
pub(super) struct Refill {
    pub(super) id: u64,
    task: JoinHandle<()>,
}

impl Refill {
    pub(super) fn start(request: Request, reach: Arc<Reach>, events: mpsc::Sender<Event>) -> Self {
        let id = request.id;
        let task = service::task::spawn("refill", async move {
            let (to, at) = (request.to, request.range.start);
            let wal = bring(request, &reach).await;
            let wal = wal.inspect_err(|error| tracing::info!(%to, %error, "a donor gave no WAL"));
            let wal = wal.ok();
            let refilled = Event::Refilled { id, to, at, wal };
            // The owner is gone only with the term.
            drop(events.send(refilled).await);
        });
        Self { id, task }
    }
}

impl Drop for Refill {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn bring(request: Request, reach: &Reach) -> Result<Bytes, RefillError> {
    let (range, term, failures) = (&request.range, request.term, request.failures);
    if failures > 0 {
        let backoff = BACKOFF_MIN * 2u32.saturating_pow(failures.min(8) - 1);
        tokio::time::sleep(backoff.min(BACKOFF_MAX)).await;
    }
    let donor = donor(&request, reach).ok_or(RefillError::Ended)?;
    let sql = format!("START_REPLICATION PHYSICAL {} (term='{term}')", range.start);
    let start = async { reach.client(donor).await?.query_copy_both(&sql).await };
    let mut copy = patient(start).await??;
    let (mut at, mut read) = (range.start, BytesMut::new());
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
        // A donor may have more than was asked for.
        let wanted = (range.end - at).min(wal.len() as u64) as usize;
        read.extend_from_slice(&wal[..wanted]);
        at = at + wanted as u64;
    }
    Ok(read.freeze())
}

/// The one that the proposer names, and after a failure the others in turn: the proposer does not
/// know who is gone. With the term in the request only those answer that have taken over this
/// term's history, so what they hold is the same.
fn donor(request: &Request, reach: &Reach) -> Option<NodeId> {
    let others = reach.addresses.keys().copied();
    let others = others.filter(|n| *n != request.to && *n != request.donor);
    let donors: Vec<_> = std::iter::once(request.donor).chain(others).collect();
    let turn = request.failures as usize % donors.len().max(1);
    donors.get(turn).copied()
}

async fn patient<F: Future>(answer: F) -> Result<F::Output, RefillError> {
    let answer = tokio::time::timeout(SILENCE_MAX, answer).await;
    answer.map_err(|_| RefillError::Silent)
}
