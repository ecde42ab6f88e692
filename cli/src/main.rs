//! The command line of Redoubt. Nouns, then verbs; `--json` for programs; the exit code says
//! what to do next (docs/reference/exit-codes.md).

mod branch;
mod dev;
mod drill;
mod exit;
mod local;
mod psql;
mod sealed_file;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Redoubt: Postgres storage that is sealed under keys which only their owner controls.
#[derive(Parser)]
#[command(name = "redoubt", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Subcommand)]
enum Noun {
    /// Look at sealed files, on a disk or copied from a bucket.
    #[command(subcommand)]
    Sealed(sealed_file::Verb),
    /// Run a whole system on this machine.
    #[command(subcommand)]
    Dev(dev::Verb),
    /// Open psql on a branch of the local system.
    Psql(psql::Options),
    /// Make and show branches of the local system.
    #[command(subcommand)]
    Branch(branch::Verb),
    /// Show on the local system that a promise holds.
    #[command(subcommand)]
    Drill(drill::Verb),
}

fn main() -> ExitCode {
    let noun = Arguments::parse().noun;
    let out = &mut std::io::stdout();
    let result = match &noun {
        Noun::Sealed(verb) => sealed_file::run(verb, out),
        Noun::Dev(verb) => dev::run(verb, out),
        Noun::Psql(options) => psql::run(options, out),
        Noun::Branch(verb) => branch::run(verb, out),
        Noun::Drill(verb) => drill::run(verb, out),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("redoubt: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
