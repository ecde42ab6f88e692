//! The one synchronous standby of the local Postgres: takes its WAL, and acknowledges what the
//! quorum has.

mod cutter;
mod stream;
mod sync_state;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use ids::Lsn;
use pg::wal::{FrameError, WalShape};
use service::libpq::WireError;
use service::task::Shutdown;
use tokio::sync::watch;

use crate::proposer::{ProposerLost, Quorum};

/// The role that the agent is to Postgres; it may replicate and read `pg_stat_replication`.
pub const ROLE: &str = "redoubt_agent";
/// The physical slot that keeps WAL until the quorum has it.
pub const SLOT: &str = "redoubt";

/// Which Postgres, and from where on.
#[derive(Clone, Debug)]
pub struct StandbyConfig {
    /// The directory of the Unix socket.
    pub socket_dir: PathBuf,
    /// The port that the socket is named after.
    pub port: u16,
    /// The name in `synchronous_standby_names`, random per boot (C2).
    pub application_name: String,
    /// Where WAL is taken up: the end of what was offered to the quorum before.
    pub from: Lsn,
    /// The shape of the WAL.
    pub shape: WalShape,
}

/// Why the standby ended. What Postgres has acknowledged from here on is nothing: it has to go.
#[derive(Debug, thiserror::Error)]
pub enum StandbyError {
    /// Postgres cannot be talked to, or went away.
    #[error("Postgres, while {what}: {source}")]
    Postgres {
        /// What was under way.
        what: &'static str,
        /// What happened.
        source: WireError,
    },
    /// A message of Postgres that is not one.
    #[error("message of Postgres: {0}")]
    Message(#[from] pg::wire::WireError),
    /// WAL that does not follow the WAL before.
    #[error("WAL arrives at {got} where {expected} was expected")]
    Gap {
        /// What was expected.
        expected: Lsn,
        /// What arrived.
        got: Lsn,
    },
    /// Bytes that are no WAL.
    #[error("WAL of Postgres: {0}")]
    Wal(#[from] FrameError),
    /// The name of the standby has characters that would need quoting.
    #[error("the standby's name must be made of a-z, 0-9 and _")]
    Name,
    /// The quorum is lost.
    #[error(transparent)]
    Lost(#[from] ProposerLost),
}

/// The standby.
#[derive(Debug)]
pub struct Standby;

impl Standby {
    /// Streams until Postgres has shut down with everything acknowledged (`Ok`), `stop`, or an
    /// error, on which the caller ends Postgres. `on_sync` becomes true once Postgres counts this
    /// standby as its synchronous one. While `hold` says a reason no further WAL is offered, so
    /// that commits wait.
    ///
    /// # Errors
    /// See [`StandbyError`].
    pub async fn run(
        config: StandbyConfig,
        quorum: &Quorum,
        on_sync: watch::Sender<bool>,
        hold: watch::Receiver<Option<String>>,
        stop: Shutdown,
    ) -> Result<(), StandbyError> {
        let name = &config.application_name;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(StandbyError::Name);
        }
        let copy = stream::start(&config).await?;
        tokio::select! {
            () = stop.requested() => Ok(()),
            lost = quorum.lost() => Err(lost.into()),
            ended = stream::run(&config, copy, quorum, hold) => ended,
            failed = sync_state::watch(&config, on_sync) => failed,
        }
    }
}
