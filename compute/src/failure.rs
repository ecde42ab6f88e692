//! Why the agent ends, graded: the grade is the exit code (docs/reference/exit-codes.md).

use std::time::Duration;

use api::{ClientError, Grade};
use keyring::{ConnectError, KeyError};
use service::libpq::WireError;
use service::listen::ListenError;

use crate::boot::shutdown::ShutdownError;
use crate::config::ConfigRefused;
use crate::proposer::ProposerLost;
use crate::sandbox::SandboxError;
use crate::standby::StandbyError;
use crate::storage::StorageError;

/// A start or a run that failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration cannot be read.
    #[error(transparent)]
    Unreadable(#[from] service::config::ConfigError),
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigRefused),
    /// The machine swaps, and could write rows to a disk (C6).
    #[error("this machine swaps: swapoff -a, or set danger_swap = true (insecure)")]
    Swap,
    /// A port cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The TLS identity cannot be used.
    #[error(transparent)]
    Identity(#[from] service::tls::TlsError),
    /// An address that cannot be used, or a request that failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The keymanagers cannot be used.
    #[error(transparent)]
    Keyring(#[from] ConnectError),
    /// There is no lease, or it is over.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The sealed disk or the watchdog.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The pageserver.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The first record cannot be made.
    #[error(transparent)]
    Shutdown(#[from] ShutdownError),
    /// What PostgreSQL does not log cannot be restored (C7).
    #[error(transparent)]
    Restore(#[from] crate::keep::restore::RestoreError),
    /// The term is lost: another compute runs, or the safekeepers are others (C1).
    #[error(transparent)]
    Lost(#[from] ProposerLost),
    /// What keeps commits durable ended.
    #[error(transparent)]
    Standby(StandbyError),
    /// PostgreSQL does not take the agent in.
    #[error("PostgreSQL does not let the agent in: {0}")]
    NotLetIn(#[source] WireError),
    /// PostgreSQL ended by itself.
    #[error("PostgreSQL ended by {}; its log says when and with which SQLSTATE", how(*code))]
    Ended {
        /// Its exit code; none where a signal ended it.
        code: Option<i32>,
    },
    /// PostgreSQL ended by itself, soon after each start.
    #[error("gave up after {fast} starts in a row that ended soon; the last one: {last}")]
    GaveUp {
        /// How many.
        fast: u32,
        /// The end of the last one.
        last: Box<Failure>,
    },
    /// Nobody knows whether another compute has taken over (C1).
    #[error("no majority has answered for {} s", limit.as_secs_f32())]
    Silence {
        /// What is borne.
        limit: Duration,
    },
    /// PostgreSQL did not start in time.
    #[error("PostgreSQL did not start in time")]
    Slow,
    /// Something on this machine failed.
    #[error("{what}: {source}")]
    Io {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The task that did it ended.
    #[error("a task of the agent ended before it was done")]
    Task,
}

/// How a program ended; no code where a signal ended it.
pub(crate) fn how(code: Option<i32>) -> String {
    code.map_or("a signal".to_owned(), |code| format!("exit code {code}"))
}

impl From<StandbyError> for Failure {
    fn from(error: StandbyError) -> Self {
        match error {
            StandbyError::Lost(lost) => Self::Lost(lost),
            other => Self::Standby(other),
        }
    }
}

impl Failure {
    /// How a caller should take it.
    #[must_use]
    pub fn grade(&self) -> Grade {
        match self {
            Self::Unreadable(_)
            | Self::Config(_)
            | Self::Swap
            | Self::Listen(_)
            | Self::Identity(_) => Grade::FixRequest,
            Self::Sandbox(SandboxError::Directory(_)) | Self::NotLetIn(_) => Grade::FixRequest,
            Self::Client(error) => error.grade(),
            Self::Keyring(error) => error.grade(),
            Self::Key(error) => error.grade(),
            Self::Storage(error) => error.grade(),
            Self::Shutdown(ShutdownError::Io { .. }) => Grade::Retry,
            Self::Shutdown(_) => Grade::DataDamaged,
            Self::Lost(_) => Grade::RetryElsewhere,
            Self::Sandbox(_)
            | Self::Standby(_)
            | Self::Ended { .. }
            | Self::GaveUp { .. }
            | Self::Silence { .. }
            | Self::Restore(_)
            | Self::Slow
            | Self::Io { .. } => Grade::Retry,
            Self::Task => Grade::Bug,
        }
    }

    /// The exit code, as docs/reference/exit-codes.md lists it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.grade() {
            Grade::FixRequest => 2,
            Grade::DataDamaged => 3,
            Grade::KeyUnavailable => 4,
            Grade::Retry => 5,
            Grade::RetryElsewhere => 6,
            Grade::Bug => 70,
        }
    }
}
