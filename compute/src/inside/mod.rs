//! The watchdog: PID 1 of a PID namespace with mounts of its own, in which the sealed disk and
//! PostgreSQL live. When it ends, the kernel ends everything in there, and the key with it (K6).
//!
//!   I1  it ends at its deadline, and at once when the agent's end of its standard input is
//!       gone: a stopped agent does not renew, a dead one has no pipe;
//!   I2  the key of the disk is made here, handed to gocryptfs through a pipe, and wiped;
//!   I3  nothing in here can write but to the sealed disk, to memory, and to sockets, and nothing
//!       of the machine is seen but programs and libraries (C6).

pub mod mount;
pub mod orders;
mod root;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::deadline::Shared;
use crate::postgres::log;
use orders::{Order, Program, Report};

/// How often the deadline is looked at, and children that ended are.
const TICK: Duration = Duration::from_millis(20);

/// What the agent starts the watchdog with.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The agent's directory.
    #[arg(long)]
    pub directory: PathBuf,
    /// The user that programs run as.
    #[arg(long)]
    pub uid: u32,
    /// Its group.
    #[arg(long)]
    pub gid: u32,
    /// Milliseconds of BOOTTIME at which it ends.
    #[arg(long)]
    pub deadline_ms: u64,
    /// The directory of PostgreSQL's programs.
    #[arg(long)]
    pub postgres_bin: PathBuf,
    /// The module that PostgreSQL loads.
    #[arg(long)]
    pub guard: Option<PathBuf>,
    /// There is a network: names are resolved.
    #[arg(long)]
    pub network: bool,
    /// Lets PostgreSQL's log out as it is.
    #[arg(long)]
    pub danger_plain_log: bool,
}

/// Why the watchdog ended.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    /// It was not started by the agent.
    #[error("this is an internal command: it must be process 1 of a PID namespace")]
    NotFirst,
    /// Signals cannot be taken.
    #[error("cannot take signals: {0}")]
    Signals(#[source] nix::Error),
    /// The sealed disk cannot be had.
    #[error(transparent)]
    Mount(#[from] mount::MountError),
}

/// Runs until the deadline, the end of standard input, or the end of the sealed disk.
///
/// # Errors
/// [`InsideError`]; the agent is told the same as [`Report::Failed`].
pub fn run(arguments: &Arguments) -> Result<(), InsideError> {
    if std::process::id() != 1 {
        return Err(InsideError::NotFirst);
    }
    let ready = mount::Ready::listen().map_err(InsideError::Signals)?;
    // Whatever hangs below, these two end it (I1).
    let deadline = Duration::from_millis(arguments.deadline_ms);
    let deadline = Shared::new(deadline);
    let watched = deadline.clone();
    drop(std::thread::spawn(move || watch(&watched)));
    let (sender, orders) = channel();
    drop(std::thread::spawn(move || listen(&deadline, &sender)));

    let disk = mount::seal(arguments, &ready).inspect_err(|error| {
        report(&Report::Failed {
            reason: error.to_string(),
        });
    })?;
    report(&Report::Mounted);
    Keeper::new(arguments.clone(), disk).keep(&orders);
    Ok(())
}

fn watch(deadline: &Shared) {
    loop {
        if deadline.passed() {
            std::process::exit(3);
        }
        std::thread::sleep(TICK);
    }
}

/// Takes orders; extensions at once, the others in turn.
fn listen(deadline: &Shared, orders: &Sender<Order>) {
    for line in BufReader::new(std::io::stdin()).lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(Order::Extend { until_ms }) => {
                let until = Duration::from_millis(until_ms);
                deadline.extend(until); // where it has passed, `watch` ends us
            }
            Ok(Order::End) | Err(_) => break,
            Ok(order) => drop(orders.send(order)),
        }
    }
    std::process::exit(0);
}

/// A line for the agent. Nobody listening is the end, which [`listen`] sees.
fn report(report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        drop(out.write_all(&line).and_then(|()| out.flush()));
    }
}

/// Starts programs and reaps them, and whatever they leave behind.
struct Keeper {
    arguments: Arguments,
    disk: Pid,
    programs: HashMap<Pid, u32>,
}

impl Keeper {
    fn new(arguments: Arguments, disk: Pid) -> Self {
        Self {
            arguments,
            disk,
            programs: HashMap::new(),
        }
    }

    /// Returns when the sealed disk is gone.
    fn keep(&mut self, orders: &Receiver<Order>) {
        loop {
            match orders.recv_timeout(TICK) {
                Ok(order) => self.carry_out(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Children are looked at between orders: a start that fails reaps its own.
            while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                let (pid, code) = match status {
                    WaitStatus::Exited(pid, code) => (pid, Some(code)),
                    WaitStatus::Signaled(pid, ..) => (pid, None),
                    WaitStatus::StillAlive => break,
                    _ => continue,
                };
                if pid == self.disk {
                    return report(&Report::DiskGone);
                }
                if let Some(id) = self.programs.remove(&pid) {
                    report(&Report::Exited { id, code });
                }
            }
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Extend { .. } | Order::End => {} // `listen` has done it
            Order::Start(program) => {
                let id = program.id;
                match self.start(program) {
                    Ok(pid) => drop(self.programs.insert(pid, id)),
                    Err(error) => report(&Report::Failed {
                        reason: format!("cannot start a program: {error}"),
                    }),
                }
            }
            Order::Signal { id, signal } => {
                let to = self.programs.iter().find(|(_, of)| **of == id);
                if let (Some((pid, _)), Ok(signal)) = (to, Signal::try_from(signal)) {
                    // Where it has just ended, its end is reported next.
                    let _ = kill(*pid, signal);
                }
            }
        }
    }

    fn start(&self, program: Program) -> std::io::Result<Pid> {
        let mut child = Command::new(&program.path)
            .args(&program.arguments)
            .env_clear()
            .envs([("LC_ALL", "C"), ("TZ", "GMT"), ("PATH", "/usr/bin:/bin")])
            .current_dir("/")
            .uid(self.arguments.uid)
            .gid(self.arguments.gid)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(stdin) = child.stdin.take() {
            feed(stdin, program.input);
        }
        if let Some(stderr) = child.stderr.take() {
            let (id, plain) = (program.id, self.arguments.danger_plain_log);
            drop(std::thread::spawn(move || {
                let mut lines = BufReader::new(stderr);
                let mut line = Vec::new();
                while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                    pass_on(id, &String::from_utf8_lossy(&line), plain);
                    line.clear();
                }
            }));
        }
        i32::try_from(child.id())
            .map(Pid::from_raw)
            .map_err(std::io::Error::other)
    }
}

/// Gives a program its input; a program that does not read it ends without.
fn feed(mut stdin: ChildStdin, input: String) {
    drop(std::thread::spawn(move || {
        drop(stdin.write_all(input.as_bytes()));
    }));
}

/// What of a line of a program's standard error leaves (C6).
fn pass_on(id: u32, line: &str, plain: bool) {
    let line = line.trim_end();
    if plain {
        let line = line.to_owned();
        return report(&Report::Plain { id, line });
    }
    if let Some(entry) = log::reduce(line) {
        report(&Report::Said {
            id,
            time: entry.time,
            sqlstate: entry.sqlstate,
            severity: entry.severity.to_owned(),
        });
    }
}
