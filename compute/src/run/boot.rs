//! One start: from a lease to an open door, and to its end.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use api::timeline::PageserverStatus;
use bytes::Bytes;
use ids::Lsn;
use nix::sys::signal::Signal;
use service::clock::{boottime, unix_seconds};
use service::entropy::OsEntropy;
use service::libpq::WireError;
use service::libpq::client::Client;
use service::task::Shutdown;
use tokio::sync::watch;

use super::after::{self, Next};
use super::{Agent, Boot};
use crate::boot::shutdown::SyntheticShutdown;
use crate::deadline::RESERVE;
use crate::door::Way;
use crate::door::first::Refusal;
use crate::failure::Failure;
use crate::keep::Keeper;
use crate::keep::restore::{self, Restored, Source, Target};
use crate::lease::Lease;
use crate::place;
use crate::postgres::settings::{self, AGENT_ROLE, Places};
use crate::proposer::{Elected, Quorum, QuorumConfig};
use crate::sandbox::{Directory, Leash, Sandbox, SandboxError, Start};
use crate::standby::{Standby, StandbyConfig};
use crate::status::{Board, Phase};

/// How long the signs of one end may lie apart.
const SETTLE: Duration = Duration::from_millis(200);
/// How long the quorum has to say that the term is lost; it is asked twice in this time.
const TERM_CHECK: Duration = Duration::from_secs(1);
/// How often the watchdog's deadline is moved.
const EXTEND: Duration = Duration::from_secs(1);
/// How often the pageserver is asked whether it still ingests.
const WATCH: Duration = Duration::from_secs(1);
/// How long PostgreSQL may take to start, and to shut down.
const PATIENCE: Duration = Duration::from_secs(60);

/// A PostgreSQL that runs.
struct Running<'a> {
    sandbox: &'a Sandbox,
    program: u32,
    quorum: &'a Quorum,
    standby: StandbyConfig,
    keeper: Keeper,
}

/// A PostgreSQL that is starting.
struct Prepared {
    quorum: Quorum,
    program: u32,
    standby: StandbyConfig,
    keeper: Keeper,
}

impl Agent {
    /// From a lease to the end of it all.
    pub(super) async fn once(
        &self,
        directory: &Directory,
        shutdown: &Shutdown,
        boot: &Boot,
    ) -> Result<(), Failure> {
        if self.board.status().phase != Phase::Fenced {
            self.board.step(Phase::Lease, "asks for a lease");
        }
        let lease = self.leases.take().await?;
        self.board.step(Phase::Disk, "makes the sealed disk");
        let start = Start {
            program: self.program.clone(),
            owner: self.owner,
            deadline: lease.deadline().unwrap_or_default(),
            postgres_bin: self.config.postgres_bin.clone(),
            guard: Some(self.config.guard.clone()),
            network: self.config.network,
            danger_plain_log: self.config.danger_plain_log,
        };
        let mut sandbox = Sandbox::start(directory, &start).await?;
        let leash = sandbox.leash();
        let ended = tokio::select! {
            ended = self.start(&mut sandbox, boot, shutdown) => ended,
            why = lease.closed() => Err(why.into()),
            () = extend(&leash, &lease) => Err(lease.closed().await.into()),
        };
        // The door first, so that nobody talks to what is dying; `Open` is left for `live` to see.
        self.shut_door(&ended);
        // When the watchdog ends, PostgreSQL and the standby fail too: that is the reason then.
        let gone = tokio::time::timeout(SETTLE, sandbox.ended()).await.is_ok();
        sandbox.kill().await;
        let ended = match ended {
            Err(failure) if gone && !matches!(failure, Failure::Key(_)) => {
                // The watchdog acts before the lease is over (W1): was that its reason?
                let closed = tokio::time::timeout(2 * RESERVE, lease.closed()).await;
                Err(closed.map_or(SandboxError::Ended.into(), Failure::Key))
            }
            ended => ended,
        };
        let ended = match (ended, boot.quorum.get()) {
            (Err(failure), Some(quorum)) => self.judge(failure, quorum, &lease, shutdown).await,
            (ended, _) => ended,
        };
        boot.tasks.request();
        boot.tasks.finished().await;
        if let Err(error) = directory.wipe() {
            tracing::warn!(%error, "cannot remove sealed bytes whose key is gone");
        }
        ended
    }

    fn shut_door(&self, ended: &Result<(), Failure>) {
        let (phase, refusal) = match ended {
            Ok(()) => (
                Phase::Stop,
                Refusal::starting("the database was asked to stop"),
            ),
            Err(Failure::Key(why)) => (Phase::Fenced, crate::lease::refusal(why)),
            Err(failure) => {
                let phase = self.board.status().phase;
                let refusal = match after::next(failure, phase) {
                    Next::End => Refusal::ended(failure),
                    _ => Refusal::starting(format!("the database has ended: {failure}")),
                };
                (phase, refusal)
            }
        };
        let reason = refusal.message.clone();
        self.board.close(phase, refusal, reason);
    }

    /// Nothing runs any more. C1: whether another start may follow, the term decides, which must
    /// still be ours: to elect ourselves anew would end the compute that has won it.
    async fn judge(
        &self,
        failure: Failure,
        quorum: &Quorum,
        lease: &Lease,
        shutdown: &Shutdown,
    ) -> Result<(), Failure> {
        if matches!(failure, Failure::Key(_) | Failure::Lost(_)) || shutdown.is_requested() {
            return Err(failure);
        }
        if matches!(failure, Failure::Silence { .. }) {
            tokio::select! {
                lost = quorum.lost() => return Err(lost.into()),
                why = lease.closed() => return Err(why.into()),
                () = shutdown.requested() => return Ok(()),
                () = quorum.answered() => {}
                never = self.tell_silence(quorum, "waits for a majority") => match never {},
            }
        }
        let lost = tokio::time::timeout(TERM_CHECK, quorum.lost()).await;
        Err(lost.map_or(failure, Failure::from))
    }

    /// Says which safekeepers do not answer while no majority does.
    async fn tell_silence(&self, quorum: &Quorum, doing: &str) -> Infallible {
        let mut roll = quorum.roll();
        loop {
            let silent = roll.borrow_and_update().without_majority();
            let doing = silent.map_or(doing.to_owned(), |silent| format!("{doing}: {silent}"));
            self.board.step(Phase::Election, doing);
            if roll.changed().await.is_err() {
                return std::future::pending().await; // it is lost, which ends us
            }
        }
    }

    async fn start(
        &self,
        sandbox: &mut Sandbox,
        boot: &Boot,
        shutdown: &Shutdown,
    ) -> Result<(), Failure> {
        tokio::select! {
            // Before PostgreSQL runs there is nothing to end in order.
            () = shutdown.requested() => Ok(()),
            running = self.prepare(sandbox, boot) => {
                let Prepared { quorum, program, standby, keeper } = running?;
                let running = Running { sandbox, program, quorum: &quorum, standby, keeper };
                self.serve(running, boot, shutdown).await
            }
        }
    }

    /// Everything up to a PostgreSQL that is starting.
    async fn prepare(&self, sandbox: &mut Sandbox, boot: &Boot) -> Result<Prepared, Failure> {
        let board = &self.board;
        board.step(Phase::Election, "asks the pageserver what the timeline is");
        let known = self.storage.describe().await?;
        board.step(Phase::Election, "asks the safekeepers for their votes");
        let quorum = Quorum::start(
            QuorumConfig {
                tenant: self.config.tenant,
                timeline: self.config.timeline,
                pg_version: self.config.pg_major * 10_000,
                system_id: known.system_id,
                wal_segment_bytes: u32::try_from(known.wal_segment_bytes).unwrap_or(u32::MAX),
                safekeepers: self.config.safekeepers.clone(),
                token: self.token.clone(),
                endpoint_epoch: self.config.endpoint_epoch,
                start: known.lsn,
            },
            boot.tasks.clone(),
        );
        // So that it outlives what is killed, and says whether the term is still ours.
        drop(boot.quorum.set(quorum.clone()));
        let Elected { term, start } = tokio::select! {
            won = quorum.elected() => won?,
            never = self.tell_silence(&quorum, "asks the safekeepers for their votes") => {
                match never {}
            }
        };
        board.elected(term, start);

        board.step(Phase::Ingest, "waits for the pageserver");
        let progress = |how_far| board.step(Phase::Ingest, how_far);
        self.storage.reaches(start, progress).await?;
        board.step(Phase::Backup, "unpacks the base backup");
        let disk = sandbox.disk();
        let backup = self.storage.unpack(start, disk.clone(), self.owner).await?;
        let made = SyntheticShutdown::after(&backup, unix_seconds())?;
        commit(&quorum, &made).await?;
        board.committed(made.laid.end);
        let (owner, first) = (self.owner, made.clone());
        let writing = tokio::task::spawn_blocking(move || first.write(&disk.data(), owner));
        let control = writing
            .await
            .map_err(|_| Failure::Task)?
            .map_err(Failure::from)?;
        let is_new_branch = backup.previous_record == Lsn::INVALID;
        let restored = self.restore(sandbox, &made, is_new_branch, boot).await?;

        board.step(Phase::Start, "PostgreSQL starts");
        let name = standby_name();
        for (file, text) in [
            ("postgresql.conf", ""),
            ("pg_hba.conf", settings::HBA),
            ("pg_ident.conf", settings::IDENT),
        ] {
            sandbox.write_etc(file, text)?;
        }
        let places = Places {
            data: &place::data(),
            etc: &place::etc(),
            run: &place::run(),
            guard: Some(&place::guard()),
            standby: Some(&name),
        };
        let (own, kept) = (&self.config.settings, &restored.settings);
        let arguments = settings::arguments(&places, &control, own, kept);
        let program = sandbox.launch(&self.postgres(), arguments, String::new());
        let standby = StandbyConfig {
            socket_dir: sandbox.sockets(),
            port: settings::PORT,
            application_name: name,
            from: made.laid.end,
            shape: made.shape,
        };
        let socket = standby.socket_dir.join(settings::socket_name());
        let keeper = Keeper::new(sandbox.disk(), socket, restored.kept);
        Ok(Prepared {
            quorum,
            program,
            standby,
            keeper,
        })
    }

    /// C7
    async fn restore(
        &self,
        sandbox: &Sandbox,
        made: &SyntheticShutdown,
        is_new_branch: bool,
        boot: &Boot,
    ) -> Result<Restored, Failure> {
        let source = Source {
            safekeepers: self.config.safekeepers.members.clone(),
            tenant: self.config.tenant,
            timeline: self.config.timeline,
            token: self.token.clone(),
        };
        let target = Target {
            disk: sandbox.disk(),
            owner: self.owner,
            shape: made.shape,
        };
        let unusable = self
            .unusable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let begin = restore::Boot {
            unusable,
            is_new_branch,
            end: made.from,
            wal_bytes_max: self.config.slot_wal_bytes_max,
        };
        let mut restored = restore::restore(&source, &target, begin).await?;
        if restored.has_slots {
            let (name, level) = ("wal_level".to_owned(), "logical".to_owned());
            restored.settings.insert(name, level);
        }
        if let Some(settings) = restored.in_use.take() {
            drop(boot.settings.set(settings)); // once per boot
        }
        self.board.restored(std::mem::take(&mut restored.said));
        Ok(restored)
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.config.postgres_bin.join("postgres")
    }

    /// From a PostgreSQL that is starting to one that has ended.
    async fn serve(
        &self,
        running: Running<'_>,
        boot: &Boot,
        shutdown: &Shutdown,
    ) -> Result<(), Failure> {
        let socket = running.standby.socket_dir.join(settings::socket_name());
        tokio::select! {
            entered = enter(&socket) => entered?,
            code = running.exited() => return Err(Failure::Ended { code: code? }),
        }
        let (on_sync, synced) = watch::channel(false);
        let (held, hold) = watch::channel(None);
        let standby = running.standby.clone();
        let standby = Standby::run(standby, running.quorum, on_sync, hold, boot.tasks.clone());
        let limit = Duration::from_millis(self.config.quorum_silence_ms);
        tokio::select! {
            code = running.exited() => running.judge(code?, shutdown),
            ended = standby => match ended {
                // Everything is acknowledged: what is left of a shutdown is a moment.
                Ok(()) => running.end(shutdown).await,
                Err(error) if shutdown.is_requested() => {
                    running.end(shutdown).await.map_err(|_| error.into())
                }
                Err(error) => Err(error.into()),
            },
            lost = running.quorum.lost() => Err(lost.into()),
            // C1: who only reads must not go on beside a compute that has taken over unheard.
            () = running.quorum.silent(limit) => Err(Failure::Silence { limit }),
            () = running.stop_in_order(shutdown) => Err(Failure::Slow),
            never = self.look_after(&running, synced.clone(), held, socket.clone(), boot) => match never {},
            never = keep(&running.keeper, synced, &self.board) => match never {},
        }
    }

    /// Opens the door once commits are durable, and holds WAL back while storage cannot take it.
    async fn look_after(
        &self,
        running: &Running<'_>,
        mut synced: watch::Receiver<bool>,
        held: watch::Sender<Option<String>>,
        socket: PathBuf,
        boot: &Boot,
    ) -> Infallible {
        if synced.wait_for(|synced| *synced).await.is_err() {
            return std::future::pending().await; // the standby has ended, which ends us
        }
        let _ = boot.opened.set(boottime()); // once per boot
        let until = running.sandbox.leash().until();
        self.board.open(Way { socket, until });
        let committed = running.quorum.committed();
        loop {
            let now = *committed.borrow();
            self.board.committed(now);
            match self.storage.status().await {
                Ok(status) => {
                    let longest = self.config.pageserver_lag_bytes_max;
                    let reason = why_held(now, &status, longest);
                    if *held.borrow() != reason {
                        held.send_replace(reason);
                    }
                }
                // What it said last counts: a pageserver that is away for a moment stops nobody.
                Err(error) => tracing::debug!(%error, "the pageserver does not say where it is"),
            }
            let silent = running.quorum.roll().borrow().without_majority();
            let silent = silent.map(|silent| format!("commits wait for a majority: {silent}"));
            let reason = held.borrow().clone().or(silent);
            if self.board.status().reason != reason {
                self.board.hold(reason);
            }
            tokio::time::sleep(WATCH).await;
        }
    }
}

impl Running<'_> {
    async fn exited(&self) -> Result<Option<i32>, SandboxError> {
        self.sandbox.exited(self.program).await
    }

    fn judge(&self, code: Option<i32>, shutdown: &Shutdown) -> Result<(), Failure> {
        match code {
            Some(0) if shutdown.is_requested() => Ok(()),
            code => Err(Failure::Ended { code }),
        }
    }

    /// The end of a PostgreSQL whose stream has ended.
    async fn end(&self, shutdown: &Shutdown) -> Result<(), Failure> {
        match tokio::time::timeout(PATIENCE, self.exited()).await {
            Ok(code) => self.judge(code?, shutdown),
            Err(_) => Err(Failure::Slow),
        }
    }

    /// Once asked to stop: a fast shutdown, which waits until the quorum has all WAL. Returns
    /// where that takes too long.
    async fn stop_in_order(&self, shutdown: &Shutdown) {
        shutdown.requested().await;
        self.keeper.last().await;
        tracing::info!("asked to stop: PostgreSQL shuts down");
        self.sandbox.signal(self.program, Signal::SIGINT);
        tokio::time::sleep(PATIENCE).await;
    }
}

/// C7, once commits are durable.
async fn keep(keeper: &Keeper, mut synced: watch::Receiver<bool>, board: &Board) -> Infallible {
    if synced.wait_for(|synced| *synced).await.is_err() {
        return std::future::pending().await; // the standby has ended, which ends us
    }
    keeper.run(board).await
}

/// Nothing is acknowledged that cannot be read back: why WAL is held, if it is.
fn why_held(committed: Lsn, status: &PageserverStatus, longest: u64) -> Option<String> {
    if let Some(why) = &status.stopped {
        return Some(format!("the pageserver has stopped ingest: {why}"));
    }
    let behind = committed.checked_sub(status.last_record_lsn)?;
    (behind > longest)
        .then(|| format!("the pageserver is {behind} bytes behind, more than {longest}"))
}

/// Moves the watchdog's deadline while the lease runs.
pub(crate) async fn extend(leash: &Leash, lease: &Lease) {
    while let Some(until) = lease.deadline() {
        leash.extend(until);
        tokio::time::sleep(EXTEND).await;
    }
}

/// C3: PostgreSQL does not start before a quorum has the record that it starts from.
async fn commit(quorum: &Quorum, made: &SyntheticShutdown) -> Result<(), Failure> {
    let bytes = Bytes::copy_from_slice(&made.laid.bytes);
    quorum.offer(made.from, bytes).await?;
    let mut committed = quorum.committed();
    tokio::select! {
        lost = quorum.lost() => Err(lost.into()),
        done = committed.wait_for(|lsn| *lsn >= made.laid.end) => match done {
            Ok(_) => Ok(()),
            Err(_) => Err(quorum.lost().await.into()),
        },
    }
}

/// Returns once PostgreSQL lets the agent in.
async fn enter(socket: &Path) -> Result<(), Failure> {
    let entered = tokio::time::timeout(PATIENCE, knock(socket)).await;
    // Also where PostgreSQL takes the connection and then says nothing.
    entered.unwrap_or(Err(Failure::Slow))
}

async fn knock(socket: &Path) -> Result<(), Failure> {
    let options = [("user", AGENT_ROLE), ("database", "postgres")];
    loop {
        match Client::connect_unix(socket, &options, "").await {
            Ok(_) => return Ok(()),
            Err(error @ WireError::Server { .. }) if !is_starting(&error) => {
                return Err(Failure::NotLetIn(error));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn is_starting(error: &WireError) -> bool {
    matches!(error, WireError::Server { sqlstate, .. } if sqlstate == "57P03")
}

/// Random, so that nobody else guesses the name that makes a standby count (C2).
fn standby_name() -> String {
    format!("redoubt_{}", hex::encode(OsEntropy::bytes::<8>()))
}

#[cfg(test)]
mod tests {
    use ids::{Generation, NodeId};

    use super::*;

    #[test]
    fn wal_is_held_while_storage_cannot_take_it() {
        let status = |at, stopped: Option<&str>| PageserverStatus {
            node: NodeId(1),
            generation: Generation(1),
            last_record_lsn: Lsn(at),
            remote_consistent_lsn: Lsn(0),
            stopped: stopped.map(str::to_owned),
            damaged: Vec::new(),
        };
        assert_eq!(why_held(Lsn(1000), &status(500, None), 500), None);
        assert_eq!(
            why_held(Lsn(1000), &status(2000, None), 500),
            None,
            "it is ahead"
        );
        assert!(why_held(Lsn(1001), &status(500, None), 500).is_some());
        let stopped = why_held(Lsn(1000), &status(1000, Some("rmgr 128")), 500);
        assert!(stopped.unwrap().contains("rmgr 128"));
    }

    #[test]
    fn names_of_standbys_need_no_quotes_and_differ() {
        let (one, other) = (standby_name(), standby_name());
        assert_ne!(one, other);
        assert!(
            one.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        );
    }
}
