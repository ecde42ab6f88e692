//! The agent's process.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use compute::inside;

/// The agent beside one stock PostgreSQL.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The watchdog, started by the agent itself.
    #[command(hide = true)]
    Inside(inside::Arguments),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Inside(arguments) => match inside::run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("compute inside: {error}");
                ExitCode::FAILURE
            }
        },
    }
}
