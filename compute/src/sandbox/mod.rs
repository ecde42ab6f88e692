//! The agent's side of the watchdog: starts it, keeps it alive, sends orders, ends it.
//!
//!   S1  what is written to the sealed disk goes through a handle of that very mount: when the
//!       mount is gone the write fails, and never lands on a plain disk;
//!   S2  a boot has a directory of its own, and the one before is removed first (C1).

mod directory;

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::statfs::fstatfs;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};

pub use directory::{Directory, DirectoryError};

use crate::config::Owner;
use crate::deadline::Shared;
use crate::inside::mount::FUSE;
use crate::inside::orders::{Order, Program, Report};
use crate::place;

/// How long the sealed disk may take to appear.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the kernel may take to end a namespace before this is worth a word.
const END: Duration = Duration::from_secs(5);

/// The watchdog cannot be started, or ended.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The agent's directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The watchdog did not start.
    #[error("cannot start the watchdog: {0}")]
    Start(#[source] std::io::Error),
    /// It says why it cannot go on.
    #[error("the watchdog gave up: {0}")]
    Failed(String),
    /// It ended: its deadline passed, or somebody killed it.
    #[error("the watchdog has ended")]
    Ended,
    /// What is there instead of the sealed disk is none (S1).
    #[error("{0} is not the sealed disk")]
    NotSealed(PathBuf),
    /// The sealed disk cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program ended with an error.
    #[error("{program} ended by {}", crate::failure::how(*code))]
    Program {
        /// Its name.
        program: String,
        /// Its exit code; none where a signal ended it.
        code: Option<i32>,
    },
}

/// How to start the watchdog.
#[derive(Clone, Debug)]
pub struct Start {
    /// This program: `compute`.
    pub program: PathBuf,
    /// Who PostgreSQL runs as.
    pub owner: Owner,
    /// When the watchdog ends by itself, on BOOTTIME.
    pub deadline: Duration,
    /// The directory of PostgreSQL's programs.
    pub postgres_bin: PathBuf,
    /// The module that PostgreSQL loads; none for a server without clients.
    pub guard: Option<PathBuf>,
    /// PostgreSQL reaches what the machine reaches, its loopback among it (C6).
    pub network: bool,
    /// INSECURE: whole lines of logs.
    pub danger_plain_log: bool,
}

/// What the watchdog has reported so far.
#[derive(Debug, Default)]
struct Seen {
    mounted: bool,
    failed: Option<String>,
    ended: bool,
    exits: HashMap<u32, Option<i32>>,
}

/// A sealed disk and what runs on it. Dropping it ends all of it.
pub struct Sandbox {
    child: Child,
    orders: mpsc::UnboundedSender<Order>,
    until: Shared,
    seen: watch::Receiver<Seen>,
    disk: Disk,
    etc: File,
    run: File,
    programs: u32,
}

/// Moves the deadline; a clone does the same.
#[derive(Clone, Debug)]
pub struct Leash {
    orders: mpsc::UnboundedSender<Order>,
    until: Shared,
}

impl Leash {
    /// The deadline as this side knows it.
    #[must_use]
    pub fn until(&self) -> Shared {
        self.until.clone()
    }

    /// Moves it to `until`, on BOOTTIME. One that has passed is not moved (W3).
    pub fn extend(&self, until: Duration) {
        if !self.until.extend(until) {
            return;
        }
        let until_ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        // Where the watchdog is gone there is nothing to extend.
        drop(self.orders.send(Order::Extend { until_ms }));
    }
}

/// A handle of the sealed disk (S1).
#[derive(Clone, Debug)]
pub struct Disk(Arc<File>);

impl Disk {
    /// The data directory, for this process. Who uses the path holds the handle meanwhile, or it
    /// would lead somewhere else.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A file beside the data directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        through(&self.0).join(name)
    }
}

impl Sandbox {
    /// A new sealed disk, empty but for a place for the data directory.
    ///
    /// # Errors
    /// See [`SandboxError`].
    pub async fn start(directory: &Directory, start: &Start) -> Result<Self, SandboxError> {
        directory.clear()?; // S2
        let until = Shared::new(start.deadline);
        let mut child = command(directory.path(), start)
            .spawn()
            .map_err(SandboxError::Start)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(SandboxError::Ended);
        };
        let (orders, taken) = mpsc::unbounded_channel();
        let (sender, mut seen) = watch::channel(Seen::default());
        drop(service::task::spawn("orders", send(stdin, taken)));
        drop(service::task::spawn("reports", follow(stdout, sender)));
        let told = seen.wait_for(|seen| seen.mounted || seen.failed.is_some() || seen.ended);
        match tokio::time::timeout(PATIENCE, told).await {
            Err(_) => return Err(SandboxError::Failed("no disk in time".to_owned())),
            Ok(Err(_)) => return Err(SandboxError::Ended),
            Ok(Ok(seen)) => check(&seen)?,
        }
        let root = root_of(child.id()).map_err(SandboxError::Start)?;
        let disk = Disk(Arc::new(open(&root, &place::disk())?));
        let sealed = fstatfs(disk.0.as_ref()).is_ok_and(|found| found.filesystem_type() == FUSE);
        if !sealed {
            return Err(SandboxError::NotSealed(place::disk()));
        }
        let etc = open(&root, &place::etc())?;
        let run = open(&root, &place::run())?;
        Ok(Self {
            child,
            orders,
            until,
            seen,
            disk,
            etc,
            run,
            programs: 0,
        })
    }

    /// What moves the deadline.
    #[must_use]
    pub fn leash(&self) -> Leash {
        Leash {
            orders: self.orders.clone(),
            until: self.until.clone(),
        }
    }

    /// The sealed disk.
    #[must_use]
    pub fn disk(&self) -> Disk {
        self.disk.clone()
    }

    /// The directory of the sockets, as everybody outside sees it while this lives.
    #[must_use]
    pub fn sockets(&self) -> PathBuf {
        let (process, handle) = (std::process::id(), self.run.as_raw_fd());
        PathBuf::from(format!("/proc/{process}/fd/{handle}"))
    }

    /// Writes a file of PostgreSQL's configuration, which PostgreSQL can read and not write.
    ///
    /// # Errors
    /// [`SandboxError::Write`].
    pub fn write_etc(&self, name: &str, text: &str) -> Result<(), SandboxError> {
        let path = through(&self.etc).join(name);
        std::fs::write(&path, text).map_err(|source| SandboxError::Write { path, source })
    }

    /// Starts a program as PostgreSQL's user, with `input` as its standard input.
    pub fn launch(&mut self, path: &Path, arguments: Vec<String>, input: String) -> u32 {
        self.programs += 1;
        let program = Program {
            id: self.programs,
            path: path.to_owned(),
            arguments,
            input,
        };
        drop(self.orders.send(Order::Start(program)));
        self.programs
    }

    /// Sends a signal to a program.
    pub fn signal(&self, id: u32, signal: nix::sys::signal::Signal) {
        let signal = signal as i32;
        drop(self.orders.send(Order::Signal { id, signal }));
    }

    /// The exit code of a program, once it has one; none where a signal ended it.
    ///
    /// # Errors
    /// The watchdog failed or ended first.
    pub async fn exited(&self, id: u32) -> Result<Option<i32>, SandboxError> {
        let mut seen = self.seen.clone();
        let over =
            |seen: &Seen| seen.exits.contains_key(&id) || seen.ended || seen.failed.is_some();
        let seen = seen.wait_for(over).await.map_err(|_| SandboxError::Ended)?;
        match seen.exits.get(&id) {
            Some(code) => Ok(*code),
            None => check(&seen).and(Err(SandboxError::Ended)),
        }
    }

    /// Returns when the watchdog has ended by itself, or by somebody else's hand.
    pub async fn ended(&self) {
        let mut seen = self.seen.clone();
        // Nobody left to report is the end, too.
        drop(seen.wait_for(|seen| seen.ended).await);
    }

    /// Runs a program to its end.
    ///
    /// # Errors
    /// It ended with an error, or the watchdog did.
    pub async fn run(
        &mut self,
        path: &Path,
        arguments: Vec<String>,
        input: String,
    ) -> Result<(), SandboxError> {
        let id = self.launch(path, arguments, input);
        match self.exited(id).await? {
            Some(0) => Ok(()),
            code => Err(SandboxError::Program {
                program: path.display().to_string(),
                code,
            }),
        }
    }

    /// Ends everything in there at once: PostgreSQL, the disk, the key. Returns when it is over.
    pub async fn kill(mut self) {
        // The kernel lets process 1 of a namespace go when everybody else in there is gone, so
        // that the end of `unshare`, which waits for it, is the end of all of them.
        drop(self.orders.send(Order::End));
        if tokio::time::timeout(END, self.child.wait()).await.is_err() {
            tracing::error!("the watchdog does not end: killing it");
            // It dies with the process that started it (`--kill-child`).
            drop(self.child.kill().await);
            let mut seen = self.seen.clone();
            drop(seen.wait_for(|seen| seen.ended).await);
        }
    }
}

fn command(directory: &Path, start: &Start) -> Command {
    let deadline = u64::try_from(start.deadline.as_millis()).unwrap_or(u64::MAX);
    let mut command = Command::new("/usr/bin/unshare");
    command
        .args(["--pid", "--mount", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private"])
        // A network namespace of its own has nothing in it, not even a loopback that is up. The
        // agent's sockets are files, which it does not hide.
        .args((!start.network).then_some("--net"))
        .arg("--")
        .arg(&start.program)
        .arg("inside")
        .arg("--directory")
        .arg(directory)
        .args(["--uid", &start.owner.uid.to_string()])
        .args(["--gid", &start.owner.gid.to_string()])
        .args(["--deadline-ms", &deadline.to_string()])
        .arg("--postgres-bin")
        .arg(&start.postgres_bin)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // A terminal's signals are for the agent: gocryptfs would take the disk away on one, and a
        // stopped watchdog ends nobody.
        .process_group(0)
        .kill_on_drop(true);
    if let Some(guard) = &start.guard {
        command.arg("--guard").arg(guard);
    }
    if start.network {
        command.arg("--network");
    }
    if start.danger_plain_log {
        command.arg("--danger-plain-log");
    }
    command
}

fn check(seen: &Seen) -> Result<(), SandboxError> {
    match &seen.failed {
        Some(reason) => Err(SandboxError::Failed(reason.clone())),
        None if seen.ended => Err(SandboxError::Ended),
        None => Ok(()),
    }
}

async fn send(mut stdin: ChildStdin, mut orders: mpsc::UnboundedReceiver<Order>) {
    while let Some(order) = orders.recv().await {
        let Ok(mut line) = serde_json::to_vec(&order) else {
            return;
        };
        line.push(b'\n');
        if stdin.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// Takes reports until every end of the watchdog's standard output is closed, which is when it
/// has ended.
async fn follow(stdout: ChildStdout, seen: watch::Sender<Seen>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(report) = serde_json::from_str::<Report>(&line) else {
            continue;
        };
        match report {
            Report::Said {
                id,
                time,
                sqlstate,
                severity,
            } => tracing::info!(program = id, %time, %sqlstate, %severity, "PostgreSQL logged"),
            Report::Plain { id, line } => {
                tracing::warn!(program = id, %line, "INSECURE: a line of a log");
            }
            Report::Mounted => seen.send_modify(|seen| seen.mounted = true),
            Report::Failed { reason } => seen.send_modify(|seen| seen.failed = Some(reason)),
            Report::DiskGone => {
                let reason = "the sealed disk is gone".to_owned();
                seen.send_modify(|seen| seen.failed = Some(reason));
            }
            Report::Exited { id, code } => {
                seen.send_modify(|seen| {
                    seen.exits.insert(id, code);
                });
            }
        }
    }
    seen.send_modify(|seen| seen.ended = true);
}

/// What the only child of process `parent` sees as `/`.
fn root_of(parent: Option<u32>) -> std::io::Result<PathBuf> {
    let parent = parent.ok_or(std::io::ErrorKind::NotFound)?;
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let child = children.split_whitespace().next();
    let child = child.ok_or(std::io::ErrorKind::NotFound)?;
    Ok(PathBuf::from(format!("/proc/{child}/root")))
}

fn open(root: &Path, path: &Path) -> Result<File, SandboxError> {
    let below = path.strip_prefix("/").unwrap_or(path);
    File::open(root.join(below)).map_err(SandboxError::Start)
}

fn through(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}
