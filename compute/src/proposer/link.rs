//! The connection to one safekeeper, made again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ids::NodeId;
use pg::wire::wal_push::{ToAcceptor, ToProposer};
use service::clock;
use service::libpq::client::{Client, CopyStream};
use service::libpq::{CopyWriter, WireError};
use tokio::sync::mpsc;

use super::Reach;
use super::owner::Event;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
const CONNECT: Duration = Duration::from_secs(5);
/// A safekeeper that owes an answer for this long is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(10);
const SILENCE_CHECK: Duration = Duration::from_secs(1);
/// What a safekeeper says that gave a vote to a later start of this endpoint (C1).
const OVERTAKEN: &str = "58R05";

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Message(#[from] pg::wire::WireError),
    #[error("the safekeeper did not let us in within {} s", CONNECT.as_secs())]
    Connect,
    #[error("the safekeeper owes an answer for more than {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the safekeeper ended the copy")]
    Ended,
    #[error("the proposer ended the connection")]
    Dropped,
}

/// Never ends by itself: a safekeeper that is gone may be back at any time.
pub(super) async fn run(node: NodeId, reach: Arc<Reach>, events: mpsc::Sender<Event>) {
    let mut backoff = BACKOFF_MIN;
    for session in 1.. {
        let begun = clock::boottime();
        let ended = converse(node, session, &reach, &events).await;
        if let Some(message) = ended.as_ref().err().and_then(overtaken) {
            // That ends the term, and this with it. An error says that it has ended.
            drop(events.send(Event::Overtaken { node, message }).await);
            return;
        }
        if events.send(Event::Gone { node, session }).await.is_err() {
            return;
        }
        if clock::boottime().saturating_sub(begun) > BACKOFF_MAX {
            backoff = BACKOFF_MIN;
        }
        if let Err(error) = ended {
            tracing::info!(%node, %error, again_in = ?backoff, "connection to a safekeeper ended");
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn converse(
    node: NodeId,
    session: u64,
    reach: &Reach,
    events: &mpsc::Sender<Event>,
) -> Result<(), LinkError> {
    let copy = tokio::time::timeout(CONNECT, start(node, reach)).await;
    let (mut reader, writer) = copy.map_err(|_| LinkError::Connect)??.split();
    let (outbox, inbox) = mpsc::unbounded_channel();
    let connected = Event::Connected {
        node,
        session,
        outbox,
    };
    let gone = |_| LinkError::Dropped;
    events.send(connected).await.map_err(gone)?;
    let owed = Owed::default();
    let hear = async {
        loop {
            let bytes = reader.read_copy().await?.ok_or(LinkError::Ended)?;
            owed.paid();
            let message = ToProposer::decode(bytes)?;
            let said = Event::Said {
                node,
                session,
                message,
            };
            events.send(said).await.map_err(gone)?;
        }
    };
    tokio::select! {
        ended = hear => ended,
        ended = say(inbox, writer, &owed) => ended,
        ended = owed.too_long() => ended,
    }
}

async fn start(node: NodeId, reach: &Reach) -> Result<CopyStream, WireError> {
    let epoch = reach.endpoint_epoch;
    let push = format!(
        "START_WAL_PUSH (proto_version '3', allow_timeline_creation 'true', endpoint_epoch '{epoch}')"
    );
    let copy = reach.client(node).await?.query_copy_both(&push);
    copy.await
}

/// C1: no other connection would end otherwise.
fn overtaken(error: &LinkError) -> Option<String> {
    match error {
        LinkError::Wire(WireError::Server { sqlstate, message }) if sqlstate == OVERTAKEN => {
            Some(message.clone())
        }
        _ => None,
    }
}

/// Writes what there is, then flushes: one flush for many messages.
async fn say(
    mut inbox: mpsc::UnboundedReceiver<ToAcceptor>,
    mut writer: CopyWriter,
    owed: &Owed,
) -> Result<(), LinkError> {
    while let Some(first) = inbox.recv().await {
        let mut next = Some(first);
        while let Some(message) = next {
            if !matches!(message, ToAcceptor::Elected(_)) {
                owed.owe();
            }
            writer.write_copy(&message.encode()).await?;
            next = inbox.try_recv().ok();
        }
        writer.flush().await?;
    }
    Err(LinkError::Dropped)
}

impl Reach {
    /// A connection to `node` that has shown the token.
    pub(super) async fn client(&self, node: NodeId) -> Result<Client, WireError> {
        let unknown = WireError::Violation("a safekeeper without an address");
        let address = self.addresses.get(&node).ok_or(unknown)?;
        let options = [
            ("tenant_id", self.tenant.as_str()),
            ("timeline_id", self.timeline.as_str()),
        ];
        Client::connect(address.as_str(), &options, &self.token).await
    }
}

/// Since when an answer is owed, in milliseconds of BOOTTIME; 0 where none is.
#[derive(Default)]
struct Owed(AtomicU64);

impl Owed {
    fn owe(&self) {
        let (none, now) = (0, Self::now());
        // The first unanswered message counts; a failed exchange means that there is one.
        let _ = self
            .0
            .compare_exchange(none, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn paid(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    async fn too_long(&self) -> Result<(), LinkError> {
        loop {
            tokio::time::sleep(SILENCE_CHECK).await;
            let since = self.0.load(Ordering::Relaxed);
            if since > 0 && Self::now().saturating_sub(since) > SILENCE_MAX.as_millis() as u64 {
                return Err(LinkError::Silent);
            }
        }
    }

    fn now() -> u64 {
        clock::boottime().as_millis() as u64
    }
}
