//! Commands for one process, key or branch, as drills and tests need them.

use std::io::Write;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use nix::sys::signal::Signal;

use super::up::{compute_up, start_compute, write_files};
use crate::exit::Failure;
use crate::local::branch;
use crate::local::home::Directory;
use crate::local::launch::{self, until_ready};
use crate::local::master_key::{self, Fault, KeyState, set_fault, set_state};
use crate::local::node::Operator;
use crate::local::pid::Pid;
use crate::local::postgres;
use crate::local::programs;
use crate::local::system::MAIN;

#[derive(Args)]
pub(crate) struct KillOptions {
    /// The process, as `redoubt dev status` names it.
    name: String,
    #[command(flatten)]
    directory: Directory,
    /// Which signal.
    #[arg(long, value_enum, ignore_case = true, default_value_t = KillSignal::Kill)]
    signal: KillSignal,
}

/// Signals that make sense here.
#[derive(Clone, Copy, ValueEnum)]
enum KillSignal {
    Kill,
    Stop,
    Cont,
    Term,
}

pub(crate) fn kill(options: &KillOptions, out: &mut impl Write) -> Result<(), Failure> {
    let (home, system) = options.directory.open()?;
    let program = programs::named(&system, &options.name)?;
    let (pid, state) = launch::state(&home, &program)?;
    let Some(pid) = pid.filter(|_| state.lives()) else {
        let name = &program.name;
        return Err(Failure::fix(format_args!("{name} does not run")));
    };
    let (signal, ends) = match options.signal {
        KillSignal::Kill => (Signal::SIGKILL, true),
        KillSignal::Term => (Signal::SIGTERM, true),
        KillSignal::Stop => (Signal::SIGSTOP, false),
        KillSignal::Cont => (Signal::SIGCONT, false),
    };
    pid.signal(signal)?;
    if ends && !pid.gone_within(Duration::from_secs(20)) {
        return Err(Failure::retry(format_args!(
            "{} lives on after {signal}",
            program.name
        )));
    }
    writeln!(out, "{}: {signal} to process {}", program.name, pid.number)?;
    Ok(())
}

#[derive(Args)]
pub(crate) struct StartOptions {
    /// The process, as `redoubt dev status` names it.
    name: String,
    #[command(flatten)]
    directory: Directory,
    /// Do not wait until it can work.
    #[arg(long)]
    no_wait: bool,
}

pub(crate) fn start(options: &StartOptions, out: &mut impl Write) -> Result<(), Failure> {
    let (home, mut system) = options.directory.open()?;
    let _lock = home.lock()?;
    let program = programs::named(&system, &options.name)?;
    write_files(&home, &system)?;
    let begin = Instant::now();
    let operator = Operator::of(&home)?;
    match &program.branch {
        Some(branch) if !options.no_wait => {
            compute_up(&home, &mut system, &operator, &program, branch)?;
        }
        Some(branch) => start_compute(&home, &mut system, &program, branch)?,
        None => {
            launch::start(&home, &program)?;
            if !options.no_wait {
                until_ready(&home, &program, &operator, Duration::from_secs(60))?;
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    writeln!(out, "{}: started after {seconds:.1} s", program.name)?;
    Ok(())
}

#[derive(Args)]
pub(crate) struct KeyOptions {
    #[command(flatten)]
    directory: Directory,
    /// The state of the master key.
    #[arg(long, value_enum, required_unless_present = "fault")]
    state: Option<KeyState>,
    /// What its KMS does instead of answering.
    #[arg(long, value_enum)]
    fault: Option<Fault>,
}

pub(crate) fn key(options: &KeyOptions, out: &mut impl Write) -> Result<(), Failure> {
    let (home, system) = options.directory.open()?;
    master_key::require_local(&system)?;
    if let Some(state) = options.state {
        set_state(&home, state)?;
    }
    if let Some(fault) = options.fault {
        set_fault(&home, fault)?;
    }
    writeln!(out, "set; the keymanager sees it at its next call")?;
    Ok(())
}

#[derive(Args)]
pub(crate) struct BranchOptions {
    #[command(flatten)]
    directory: Directory,
    /// The branch.
    #[arg(long, default_value = MAIN)]
    branch: String,
}

pub(crate) fn flush(options: &BranchOptions, out: &mut impl Write) -> Result<(), Failure> {
    let (home, system) = options.directory.open()?;
    let operator = Operator::of(&home)?;
    let wanted = system.branch(&options.branch)?;
    branch::until_ingested(&system, &operator, wanted)?;
    let status = branch::flush(&operator, &system, wanted.timeline)?;
    let lsn = status.remote_consistent_lsn;
    writeln!(out, "{}: in the bucket up to {lsn}", wanted.name)?;
    Ok(())
}

#[derive(Args)]
pub(crate) struct PostgresOptions {
    #[command(flatten)]
    directory: Directory,
    /// The branch.
    #[arg(long, default_value = MAIN)]
    branch: String,
    /// Show nothing; end with 5 where none runs.
    #[arg(long)]
    running: bool,
}

pub(crate) fn postgres(options: &PostgresOptions, out: &mut impl Write) -> Result<(), Failure> {
    let (home, system) = options.directory.open()?;
    let name = system.branch(&options.branch)?.compute();
    let agent = Pid::load(&home.pid(&name))?;
    let found = postgres::processes(&home.data(&name), agent.as_ref());
    if !options.running {
        for pid in &found {
            writeln!(out, "{pid}")?;
        }
    }
    if found.is_empty() {
        return Err(Failure::retry(format_args!("no Postgres of {name} runs")));
    }
    Ok(())
}
