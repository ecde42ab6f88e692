//! Takes WAL from the safekeepers of a timeline, one at a time, and turns it into values.
//!
//! Any safekeeper has the same committed WAL, so that one that is silent, gone or behind is left
//! for the next, and so is one that sends damaged WAL. What a majority sends damaged is the WAL
//! itself: it ends ingest for good, as a record does that is not supported. No record is skipped.

mod damage;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use api::timeline::NodeAddress;
use ids::{Lsn, NodeId};
use service::libpq::WireError;
use service::libpq::client::{Client, CopyStream};
use tokio::time::timeout;

use crate::backoff::Backoff;
use crate::ingest::{IngestStop, IngestStream, LoadError, Standing};
use crate::tenants::{Attached, Node};
use damage::{Damage, Suspects, Verdict};
use stream::Stream;

/// A safekeeper that does not let us in by then is left.
const CONNECT: Duration = Duration::from_secs(5);

/// One that does not answer by then has nothing.
const ASK: Duration = Duration::from_secs(2);

/// Why one stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    /// The connection.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The file of our token.
    #[error("the token for safekeepers cannot be read: {0}")]
    Token(#[source] std::io::Error),
    /// A message that is none.
    #[error("not a message of a WAL stream: {0}")]
    Message(#[from] pg::wire::WireError),
    /// Nothing was heard.
    #[error("the safekeeper was silent for {0:?}")]
    Silent(Duration),
    /// It did not take a message in time.
    #[error("the safekeeper takes no messages")]
    Stuck,
    /// WAL is missing between what we have and what came.
    #[error("WAL from {expected} was asked for, and {got} came")]
    Gap { expected: Lsn, got: Lsn },
    /// No WAL for a while: others are asked whether they have any.
    #[error("no WAL comes")]
    Idle,
    /// Another safekeeper has more.
    #[error("safekeeper {0} has committed WAL that this one has not")]
    Behind(usize),
    /// F1: safekeepers commit whole records, so that a record which stays unfinished has a length
    /// that is not its own.
    #[error("the record at {0} does not end where the committed WAL does")]
    Unfinished(Lsn),
    /// The safekeepers are others now.
    #[error("the safekeepers were replaced")]
    Replaced,
    /// What came cannot be taken in.
    #[error(transparent)]
    Stopped(#[from] IngestStop),
    /// What the timeline holds cannot be read, so that nothing can be added.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Receives until the timeline is closed, or ingest has stopped.
pub(crate) async fn run(attached: Arc<Attached>, node: Arc<Node>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut safekeepers = attached.safekeepers.subscribe();
    let (mut ingest, mut turn, mut said) = (None::<IngestStream>, 0_usize, String::new());
    let mut suspects = Suspects::default();
    loop {
        let members = safekeepers.borrow_and_update().members.clone();
        if members.is_empty() {
            if safekeepers.changed().await.is_err() {
                return;
            }
            continue;
        }
        let source = Source {
            node: &node,
            attached: &attached,
            members: &members,
            current: turn % members.len(),
        };
        let ended = match &mut ingest {
            Some(ingest) => {
                let received = source.receive(ingest, &mut safekeepers, &mut backoff);
                received.await
            }
            None => match begin(&node, &attached).await {
                Ok(begun) => {
                    ingest = Some(begun);
                    continue;
                }
                Err(error) => error.into(),
            },
        };
        if attached.serving().is_err() {
            return;
        }
        if let Some(damage) = Damage::of(&ended) {
            // What was taken in is in the timeline: from there on the others are asked.
            ingest = None;
            if let Err(stop) = source.suspect(damage, &mut suspects) {
                return attached.stop_ingest(stop);
            }
            turn = turn.wrapping_add(1);
            tokio::time::sleep(backoff.next()).await;
            continue;
        }
        let timeline = attached.timeline.id();
        match ended {
            StreamEnd::Stopped(stop) if stop.standing() == Standing::ForGood => {
                return attached.stop_ingest(stop.to_string());
            }
            StreamEnd::Stopped(stop) => {
                tracing::warn!(%timeline, error = %stop, "ingest begins anew");
                ingest = None;
                tokio::time::sleep(backoff.next()).await;
            }
            StreamEnd::Replaced => turn = 0,
            StreamEnd::Behind(next) => {
                tracing::info!(%timeline, "another safekeeper has more");
                turn = next;
            }
            error => {
                let error = error.to_string();
                // A timeline whose WAL nobody has yet is asked for every few seconds.
                if said != error {
                    tracing::warn!(%timeline, error, "a stream of WAL ended");
                }
                said = error;
                turn = turn.wrapping_add(1);
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

/// The safekeeper whose turn it is.
struct Source<'a> {
    node: &'a Node,
    attached: &'a Attached,
    members: &'a [NodeAddress],
    current: usize,
}

type Safekeepers = tokio::sync::watch::Receiver<api::timeline::SafekeeperSet>;

impl Source<'_> {
    /// Receives from this safekeeper as long as that can be.
    async fn receive(
        &self,
        ingest: &mut IngestStream,
        safekeepers: &mut Safekeepers,
        backoff: &mut Backoff,
    ) -> StreamEnd {
        let Some(member) = self.members.get(self.current) else {
            return StreamEnd::Replaced;
        };
        let connected = timeout(CONNECT, self.start(member, ingest.position())).await;
        let copy = match connected {
            Ok(Ok(copy)) => copy,
            Ok(Err(error)) => return error,
            Err(_) => return StreamEnd::Silent(CONNECT),
        };
        tracing::info!(
            timeline = %self.attached.timeline.id(),
            safekeeper = %member.node,
            from = %ingest.position(),
            "receives WAL"
        );
        let mut stream = Stream::new(self.node, self.attached, copy, ingest);
        loop {
            let ended = stream.run(safekeepers, backoff).await;
            let StreamEnd::Idle = ended else {
                return ended;
            };
            if let Some(begun) = stream.unfinished() {
                return StreamEnd::Unfinished(begun);
            }
            if let Some(next) = self.who_has_more(stream.position()).await {
                return StreamEnd::Behind(next);
            }
        }
    }

    /// This safekeeper sent damaged WAL; an error, which says why, where it is the WAL itself.
    fn suspect(&self, damage: Damage, suspects: &mut Suspects) -> Result<(), String> {
        // A timeline that serves no more ends the receiver anyway.
        let (Some(member), Ok(after)) = (
            self.members.get(self.current),
            self.attached.timeline.last_lsn(),
        ) else {
            return Ok(());
        };
        let reason = damage.reason.clone();
        let note = reason.clone();
        self.attached.note_damaged(member.node, after, note);
        let members: Vec<NodeId> = self.members.iter().map(|member| member.node).collect();
        match suspects.sent(member.node, after, damage, &members) {
            Verdict::AskOthers => Ok(()),
            Verdict::OfTheWal { same } => {
                let all = members.len();
                Err(format!(
                    "{reason}; {same} of {all} safekeepers sent the same"
                ))
            }
        }
    }

    async fn start(&self, member: &NodeAddress, from: Lsn) -> Result<CopyStream, StreamEnd> {
        let client = self.connect(member).await?;
        let command = format!("START_REPLICATION PHYSICAL {from}");
        Ok(client.query_copy_both(&command).await?)
    }

    async fn connect(&self, member: &NodeAddress) -> Result<Client, StreamEnd> {
        // Read each time: tokens end, and the file is replaced before.
        let token = match &self.node.settings.token {
            Some(path) => tokio::fs::read_to_string(path).await,
            None => Ok(String::new()),
        };
        let token = token.map_err(StreamEnd::Token)?;
        let timeline = &self.attached.timeline;
        let (tenant, timeline) = (timeline.tenant().to_string(), timeline.id().to_string());
        let name = format!("pageserver-{}", self.node.id);
        let options = [
            ("application_name", name.as_str()),
            ("tenant_id", tenant.as_str()),
            ("timeline_id", timeline.as_str()),
        ];
        Ok(Client::connect(&member.libpq, &options, token.trim()).await?)
    }

    /// Another safekeeper that has committed WAL behind `position`. One that is cut off from the
    /// others goes on to say that it is there, and would be listened to for ever.
    async fn who_has_more(&self, position: Lsn) -> Option<usize> {
        let others = (1..self.members.len()).map(|step| (self.current + step) % self.members.len());
        for other in others {
            let commit = timeout(ASK, self.commit_of(self.members.get(other)?)).await;
            if commit.is_ok_and(|commit| commit.is_some_and(|commit| commit > position)) {
                return Some(other);
            }
        }
        None
    }

    async fn commit_of(&self, member: &NodeAddress) -> Option<Lsn> {
        let mut client = self.connect(member).await.ok()?;
        let rows = client.simple_query("TIMELINE_STATUS").await.ok()?;
        let commit = rows.into_iter().next()?.into_iter().nth(1)??;
        std::str::from_utf8(&commit).ok()?.parse().ok()
    }
}

/// A stream that goes on where the timeline is.
async fn begin(node: &Node, attached: &Attached) -> Result<IngestStream, LoadError> {
    let skipped = Arc::clone(&node.settings.custom_rmgrs_to_skip);
    IngestStream::new(Arc::clone(&attached.timeline), skipped).await
}
