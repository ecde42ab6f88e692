//! `redoubt branch`: branches of the project, each with a compute of its own.

use std::io::Write;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::dev::JsonOptions;
use crate::dev::up::{compute_up, write_files};
use crate::exit::Failure;
use crate::local::branch::{At, resolve};
use crate::local::clock::UnixTime;
use crate::local::home::{Directory, Home};
use crate::local::launch;
use crate::local::node::Operator;
use crate::local::pid::State;
use crate::local::postgres;
use crate::local::programs;
use crate::local::system::{MAIN, System};
use crate::local::tokens;

/// What can be done with branches.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Make a branch as of an LSN or a time, and start its compute.
    Create(CreateOptions),
    /// Show the branches.
    List(JsonOptions),
}

#[derive(Args)]
pub(crate) struct CreateOptions {
    /// The name of the new branch.
    name: String,
    #[command(flatten)]
    directory: Directory,
    /// An LSN, a time (2026-11-24T08:30:00Z), or '5 minutes ago'; the last record where nothing
    /// is said.
    #[arg(long)]
    at: Option<String>,
    /// The branch that it begins from.
    #[arg(long, default_value = MAIN)]
    from: String,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// A branch, as it is shown.
#[derive(Serialize)]
struct Shown {
    name: String,
    timeline: ids::TimelineId,
    from: Option<String>,
    at: Option<ids::Lsn>,
    port: u16,
    compute: State,
}

pub(crate) fn run(verb: &Verb, out: &mut impl Write) -> Result<(), Failure> {
    match verb {
        Verb::Create(options) => create(options, out),
        Verb::List(options) => list(options, out),
    }
}

fn create(options: &CreateOptions, out: &mut impl Write) -> Result<(), Failure> {
    // Read at once: `1 minute ago` counts from the command, not from the end of a wait.
    let now = UnixTime::now();
    let at = match &options.at {
        Some(text) => At::parse(text, now)?,
        None => At::End,
    };
    let (home, _) = options.directory.open()?;
    let _lock = home.lock()?;
    let (_, mut system) = options.directory.open()?;
    let operator = Operator::of(&home)?;
    // A branch that was described and not made is gone on with, under the same id.
    let half_made = system
        .branch(&options.name)
        .is_ok_and(|branch| !branch.made);
    if !half_made {
        if system.branch(&options.name).is_ok() {
            return Err(Failure::fix(format_args!(
                "there is a branch {} already",
                options.name
            )));
        }
        let lsn = resolve(&system, &operator, system.branch(&options.from)?, at)?;
        system.add_branch(&options.name, Some(&options.from), lsn)?;
        system.save(&home)?;
    }
    write_files(&home, &system)?;
    let branch = system.branch(&options.name)?.clone();
    if half_made {
        // It has an id and a place already: where it begins is not asked anew.
        eprintln!("{}: goes on with what was begun before", branch.name);
    }
    let program = programs::named(&system, &branch.compute())?;
    if let Err(failure) = compute_up(&home, &mut system, &operator, &program, &branch) {
        if failure.is_final() {
            // Else every later start of the system would be refused the same.
            system.forget_refused(&options.name);
            system.save(&home)?;
            tokens::forget(&home, &program)?;
        }
        return Err(failure);
    }
    let shown: Vec<Shown> = shown(&home, &system)?
        .into_iter()
        .filter(|shown| shown.name == branch.name)
        .collect();
    print(&shown, options.json, out)?;
    if !options.json {
        writeln!(out, "\nconnect    redoubt psql --branch {}", branch.name)?;
        let url = postgres::url(&home, &system, &branch)?;
        writeln!(out, "or         {url}")?;
    }
    Ok(())
}

fn list(options: &JsonOptions, out: &mut impl Write) -> Result<(), Failure> {
    let (home, system) = options.directory.open()?;
    print(&shown(&home, &system)?, options.json, out)
}

fn shown(home: &Home, system: &System) -> Result<Vec<Shown>, Failure> {
    let ports = system.ports()?;
    let branches = system.branches.iter();
    let show = branches.map(|branch| {
        let program = programs::named(system, &branch.compute())?;
        Ok(Shown {
            name: branch.name.clone(),
            timeline: branch.timeline,
            from: branch.parent.clone(),
            at: branch.at,
            port: ports.compute(branch.ordinal),
            compute: launch::state(home, &program)?.1,
        })
    });
    show.collect()
}

fn print(branches: &[Shown], json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if json {
        serde_json::to_writer_pretty(&mut *out, branches).map_err(std::io::Error::from)?;
        writeln!(out)?;
        return Ok(());
    }
    let dash = || "-".to_owned();
    writeln!(
        out,
        "{:24} {:16} {:14} {:>6}  {:8} timeline",
        "branch", "from", "at", "port", "compute"
    )?;
    for branch in branches {
        writeln!(
            out,
            "{:24} {:16} {:14} {:>6}  {:8} {}",
            branch.name,
            branch.from.clone().unwrap_or_else(dash),
            branch.at.map_or_else(dash, |lsn| lsn.to_string()),
            branch.port,
            branch.compute.word(),
            branch.timeline
        )?;
    }
    Ok(())
}
