//! `compute run`: one PostgreSQL at a time, for as long as there is a lease.
//!
//!   R1  an agent never goes on with a PostgreSQL that lost its term, its lease, its disk or its
//!       standby: all of it ends at once, and the next one starts from a new backup (C1, K6). One
//!       that ended by itself is followed by the next one too, never by its own recovery;
//!   R2  a fence does not end the agent: it answers at the door, and starts again by itself.

mod after;
mod boot;

pub(crate) use boot::extend;

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use service::clock::boottime;
use service::listen::Listen;
use service::task::Shutdown;
use service::tls::TlsIdentity;

use after::{Crashes, FAST_MAX, Next};

use crate::config::{Config, Owner};
use crate::door;
use crate::door::first::Refusal;
use crate::failure::Failure;
use crate::lease::{Leases, refusal};
use crate::proposer::Quorum;
use crate::sandbox::{Directory, SandboxError};
use crate::status::{Board, Phase};
use crate::storage::Storage;

/// Between two attempts to get a lease, or to start.
const PAUSE: Duration = Duration::from_secs(1);
/// How long what serves clients may take to end.
const END: Duration = Duration::from_secs(5);

/// What stays the same over all starts.
struct Agent {
    config: Config,
    owner: Owner,
    token: String,
    storage: Storage,
    leases: Leases,
    board: Board,
    /// This program, as the watchdog is started from it.
    program: PathBuf,
    /// The settings of `ALTER SYSTEM` with which PostgreSQL did not start (N3).
    unusable: Mutex<Option<Vec<u8>>>,
    /// Those that the last start had, where it may have failed by them.
    suspected: Mutex<Option<Vec<u8>>>,
}

/// Runs until SIGTERM, or until something that is not repaired by another start.
///
/// # Errors
/// See [`Failure`].
pub async fn run(config: Config, program: PathBuf) -> Result<(), Failure> {
    config.check()?;
    let owner = config.check_machine(true)?;
    refuse_swap(&config)?;
    if config.development {
        tracing::warn!("INSECURE: development is set: no revocation ends this compute");
    }
    let shutdown = Shutdown::on_signals().map_err(|source| Failure::Io {
        what: "cannot listen to signals",
        source,
    })?;
    let token = config.read_token()?;
    let agent = Agent {
        storage: Storage::new(&config, &token)?,
        leases: Leases::new(&config, &token)?,
        board: Board::default(),
        owner,
        token,
        program,
        config,
        unusable: Mutex::new(None),
        suspected: Mutex::new(None),
    };
    agent.listen(&shutdown).await?;
    let ended = agent.live(&shutdown).await;
    shutdown.request();
    if tokio::time::timeout(END, shutdown.finished())
        .await
        .is_err()
    {
        tracing::warn!("clients or listeners did not end in time");
    }
    ended
}

/// C6. What cannot be read is taken for a machine without swap.
pub(crate) fn refuse_swap(config: &Config) -> Result<(), Failure> {
    let table = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let swaps = table.lines().skip(1).any(|line| !line.trim().is_empty());
    match (swaps, config.danger_swap) {
        (true, false) => Err(Failure::Swap),
        (true, true) => {
            tracing::warn!("INSECURE: this machine swaps, perhaps to a disk in plain text");
            Ok(())
        }
        (false, _) => Ok(()),
    }
}

impl Agent {
    async fn listen(&self, shutdown: &Shutdown) -> Result<(), Failure> {
        let listen = Listen {
            addr: self.config.listen,
            beyond_loopback: self.config.beyond_loopback,
        };
        let door = door::serve(listen.bind().await?, self.board.door(), shutdown.clone());
        drop(shutdown.spawn("door", door));
        let identity = self.config.identity.as_deref().map(TlsIdentity::load);
        let identity = identity.transpose()?;
        let listen = Listen {
            addr: self.config.http,
            beyond_loopback: identity.is_some(),
        };
        let listener = listen.bind().await?;
        tracing::info!(http = ?listener.local_addr().ok(), door = %self.config.listen, "listening");
        let router = self.board.router();
        let http = service::http::serve_on(listener, router, identity, shutdown.clone());
        drop(shutdown.spawn("http", http));
        Ok(())
    }

    async fn live(&self, shutdown: &Shutdown) -> Result<(), Failure> {
        let directory = Directory::take(&self.config.directory).map_err(SandboxError::from)?;
        let mut crashes = Crashes::default();
        while !shutdown.is_requested() {
            let boot = Boot::default();
            let Err(failure) = self.once(&directory, shutdown, &boot).await else {
                break;
            };
            let mut pause = PAUSE;
            let phase = self.board.status().phase;
            let next = match !shutdown.is_requested() && self.blames(&failure, phase, &boot) {
                true => Next::Again,
                false => after::next(&failure, phase),
            };
            match (next, failure) {
                (Next::Fenced, Failure::Key(why)) => {
                    if self.board.status().reason.as_ref() != Some(&why.to_string()) {
                        tracing::error!(reason = %why, "fenced");
                    }
                    self.board
                        .close(Phase::Fenced, refusal(&why), why.to_string());
                }
                (Next::Again, failure) => {
                    tracing::warn!(reason = %failure, "the start failed, trying again");
                    let said = Refusal::starting(format!("the last start failed: {failure}"));
                    self.board.close(Phase::Failed, said, failure.to_string());
                }
                (Next::Anew, failure) if !shutdown.is_requested() => {
                    let Some(wait) = crashes.count(boot.was_open()) else {
                        let (fast, last) = (FAST_MAX, Box::new(failure));
                        return Err(self.end(Failure::GaveUp { fast, last }));
                    };
                    pause = wait;
                    tracing::error!(reason = %failure, again_in = ?wait, "PostgreSQL ended by itself");
                    let said = format!("{failure}; it starts anew in {} s", wait.as_secs());
                    let refusal = Refusal::starting(&said);
                    self.board.close(Phase::Failed, refusal, said);
                }
                (_, failure) => return Err(self.end(failure)),
            }
            tokio::select! {
                () = shutdown.requested() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }

    /// Whether this start may have failed by the settings of `ALTER SYSTEM`. Where two in a row did,
    /// the next does without them: one alone may have had another reason.
    fn blames(&self, failure: &Failure, phase: Phase, boot: &Boot) -> bool {
        let blamed = boot.settings.get();
        let blamed = blamed.filter(|_| after::blames_settings(failure, phase));
        let mut suspected = self
            .suspected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(settings) = blamed.filter(|settings| suspected.as_ref() == Some(*settings)) {
            tracing::error!(reason = %failure, "PostgreSQL does not start: sets ALTER SYSTEM aside");
            let mut unusable = self.unusable.lock().unwrap_or_else(PoisonError::into_inner);
            *unusable = Some(settings.clone());
        }
        *suspected = blamed.cloned();
        blamed.is_some()
    }

    fn end(&self, failure: Failure) -> Failure {
        let said = Refusal::ended(&failure);
        self.board.close(Phase::Failed, said, failure.to_string());
        failure
    }
}

/// What is known of one start.
#[derive(Default)]
struct Boot {
    /// Of this start alone: everything of it ends with it (R1).
    tasks: Shutdown,
    quorum: OnceLock<Quorum>,
    /// The settings of `ALTER SYSTEM` that it has.
    settings: OnceLock<Vec<u8>>,
    opened: OnceLock<Duration>,
}

impl Boot {
    fn was_open(&self) -> Duration {
        let opened = self.opened.get();
        opened.map_or(Duration::ZERO, |opened| boottime().saturating_sub(*opened))
    }
}
