//! The command line of Redoubt. Nouns, then verbs; `--json` for programs; the exit code says
//! what to do next (docs/reference/exit-codes.md).

mod exit;
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
}

fn main() -> ExitCode {
    let result = match Arguments::parse().noun {
        Noun::Sealed(verb) => sealed_file::run(&verb, &mut std::io::stdout().lock()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("redoubt: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
