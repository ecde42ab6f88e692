//! `redoubt dev`: a whole system on one machine, for development, drills and tests.

mod down;
mod logs;
mod single;
pub(crate) mod status;
mod tour;
pub(crate) mod up;
mod wanted;

use std::io::Write;

use clap::{Args, Subcommand};

use crate::exit::Failure;
use crate::local::home::Directory;

/// What can be done with a local system.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Make the local system where there is none, start what does not run, wait until it answers.
    Up(Box<wanted::Options>),
    /// Stop it; nothing is lost.
    Down(down::Options),
    /// Show what runs, where, and how far it is.
    Status(JsonOptions),
    /// Show what the processes log.
    Logs(logs::Options),
    /// Walk through what Redoubt does, on this system, with its real output.
    Tour(tour::Options),
    /// Send a signal to one process.
    Kill(single::KillOptions),
    /// Start one process, and wait until it can work.
    Start(single::StartOptions),
    /// Set the state of the local master key, or what its KMS does instead of answering.
    Key(single::KeyOptions),
    /// Bring what is ingested into the bucket.
    Flush(single::BranchOptions),
    /// Show the processes of the Postgres of a branch.
    Postgres(single::PostgresOptions),
}

/// The directory, and JSON or not.
#[derive(Args)]
pub(crate) struct JsonOptions {
    #[command(flatten)]
    pub(crate) directory: Directory,
    /// Answer in JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(verb: &Verb, out: &mut impl Write) -> Result<(), Failure> {
    match verb {
        Verb::Up(options) => up::run(options, out),
        Verb::Down(options) => down::run(options, out),
        Verb::Status(options) => status::run(options, out),
        Verb::Logs(options) => logs::run(options, out),
        Verb::Tour(options) => tour::run(options, out),
        Verb::Kill(options) => single::kill(options, out),
        Verb::Start(options) => single::start(options, out),
        Verb::Key(options) => single::key(options, out),
        Verb::Flush(options) => single::flush(options, out),
        Verb::Postgres(options) => single::postgres(options, out),
    }
}
