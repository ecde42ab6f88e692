//! What the agent is doing, for `GET /v1/status`, `/ready`, the metrics, and who knocks at the
//! door.

use std::sync::OnceLock;

use axum::routing::get;
use axum::{Json, Router};
use ids::{Lsn, Term};
use prometheus::{IntCounter, IntGauge};
use serde::Serialize;
use tokio::sync::watch;

use crate::door::first::Refusal;
use crate::door::{Door, Way};

/// The steps of a start, and the states after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Asks for a lease.
    Lease,
    /// The key is revoked, fenced or cannot be asked for; waits for it.
    Fenced,
    /// Makes the sealed disk.
    Disk,
    /// Asks the safekeepers for their votes.
    Election,
    /// Waits until the pageserver has all WAL.
    Ingest,
    /// Unpacks the base backup.
    Backup,
    /// PostgreSQL starts.
    Start,
    /// Clients are let in.
    Open,
    /// Was asked to stop.
    Stop,
    /// Failed; tries again, or ends.
    Failed,
}

/// What `GET /v1/status` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The step.
    pub phase: Phase,
    /// The term, once it is won.
    pub term: Option<Term>,
    /// Where its WAL starts.
    pub start_lsn: Option<Lsn>,
    /// What the quorum has.
    pub committed_lsn: Lsn,
    /// Why commits wait, or why it is not open.
    pub reason: Option<String>,
    /// What this start found otherwise than it was left: settings, replication slots (C7).
    pub not_as_left: Vec<String>,
    /// What of it is not kept now, and why.
    pub not_kept: Option<String>,
}

/// Where the agent says what it does. Clones are the same.
#[derive(Clone, Debug)]
pub struct Board {
    status: watch::Sender<Status>,
    door: watch::Sender<Door>,
}

impl Default for Board {
    fn default() -> Self {
        let status = Status {
            phase: Phase::Lease,
            term: None,
            start_lsn: None,
            committed_lsn: Lsn::INVALID,
            reason: None,
            not_as_left: Vec::new(),
            not_kept: None,
        };
        Self {
            status: watch::Sender::new(status),
            door: watch::Sender::new(Door::Closed(Refusal::starting("the agent is starting"))),
        }
    }
}

impl Board {
    /// What clients find.
    #[must_use]
    pub fn door(&self) -> watch::Receiver<Door> {
        self.door.subscribe()
    }

    /// What it says now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// On the way to an open door.
    pub fn step(&self, phase: Phase, doing: impl Into<String>) {
        let doing = doing.into();
        if self.status.borrow().phase != phase {
            tracing::info!(?phase, %doing, "next step");
        }
        self.close(
            phase,
            Refusal::starting(format!("the database starts: {doing}")),
            doing,
        );
    }

    /// Nobody is let in, for this reason.
    pub fn close(&self, phase: Phase, refusal: Refusal, reason: impl Into<String>) {
        let reason = reason.into();
        self.door.send_replace(Door::Closed(refusal));
        service::http::readiness().set(Err(reason.clone()));
        metrics().open.set(0);
        self.status.send_modify(|status| {
            status.phase = phase;
            status.reason = Some(reason);
        });
    }

    /// The term is won.
    pub fn elected(&self, term: Term, start: Lsn) {
        tracing::info!(%term, lsn = %start, "elected");
        self.status.send_modify(|status| {
            status.term = Some(term);
            status.start_lsn = Some(start);
        });
    }

    /// The quorum has this.
    pub fn committed(&self, lsn: Lsn) {
        metrics()
            .committed
            .set(i64::try_from(lsn.0).unwrap_or(i64::MAX));
        self.status.send_modify(|status| status.committed_lsn = lsn);
    }

    /// Clients are let in.
    pub fn open(&self, way: Way) {
        self.door.send_replace(Door::Open(way));
        metrics().open.set(1);
        metrics().starts.inc();
        self.status.send_modify(|status| status.phase = Phase::Open);
        self.hold(None);
    }

    /// While it is open: why commits wait, or that they do not.
    pub fn hold(&self, reason: Option<String>) {
        service::http::readiness().set(reason.clone().map_or(Ok(()), Err));
        self.status.send_modify(|status| status.reason = reason);
    }

    /// What this start found otherwise than it was left.
    pub(crate) fn restored(&self, not_as_left: Vec<String>) {
        self.status
            .send_modify(|status| status.not_as_left = not_as_left);
    }

    /// What is not kept, if anything is not.
    pub(crate) fn not_kept(&self, reason: Option<String>) {
        if self.status.borrow().not_kept != reason {
            if let Some(reason) = &reason {
                tracing::warn!(%reason, "not all is kept");
            }
            self.status.send_modify(|status| status.not_kept = reason);
        }
    }

    /// What HTTP answers.
    pub fn router(&self) -> Router {
        let board = self.clone();
        Router::new().route("/v1/status", get(async move || Json(board.status())))
    }
}

struct Metrics {
    open: IntGauge,
    committed: IntGauge,
    starts: IntCounter,
}

fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let gauge = |name, help| {
            IntGauge::new(name, help).expect("the name of a metric of ours is well formed")
        };
        let metrics = Metrics {
            open: gauge("redoubt_compute_open", "1 while clients are let in"),
            committed: gauge(
                "redoubt_compute_committed_lsn",
                "what the quorum has flushed",
            ),
            starts: IntCounter::new("redoubt_compute_starts_total", "starts of PostgreSQL")
                .expect("the name of a metric of ours is well formed"),
        };
        let registry = service::metrics::registry();
        for registered in [
            registry.register(Box::new(metrics.open.clone())),
            registry.register(Box::new(metrics.committed.clone())),
            registry.register(Box::new(metrics.starts.clone())),
        ] {
            // Registered once per process, as this runs once.
            drop(registered);
        }
        metrics
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_and_the_status_say_the_same() {
        let board = Board::default();
        let door = board.door();
        assert!(matches!(&*door.borrow(), Door::Closed(why) if why.sqlstate == "57P03"));
        board.step(Phase::Backup, "half of it is there");
        assert!(matches!(&*door.borrow(), Door::Closed(why) if why.message.contains("half of it")));
        assert_eq!(board.status().phase, Phase::Backup);
        let until = crate::deadline::Shared::new(std::time::Duration::MAX);
        let socket = std::path::PathBuf::from("/run/socket");
        board.open(Way {
            socket: socket.clone(),
            until,
        });
        assert!(matches!(&*door.borrow(), Door::Open(way) if way.socket == socket));
        assert_eq!(board.status().reason, None);
        board.hold(Some("ingest has stopped".to_owned()));
        assert!(matches!(&*door.borrow(), Door::Open(_)), "reads go on");
        assert_eq!(board.status().reason.unwrap(), "ingest has stopped");
    }
}
