//! `redoubt psql`: psql, connected to a branch.

use std::io::Write;
use std::os::unix::process::CommandExt;

use clap::Args;

use crate::exit::Failure;
use crate::local::home::Directory;
use crate::local::postgres;
use crate::local::system::MAIN;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    directory: Directory,
    /// The branch.
    #[arg(long, default_value = MAIN)]
    branch: String,
    /// Show the connection string, password included, and connect to nothing.
    #[arg(long)]
    print_url: bool,
    /// Arguments of psql, behind `--`.
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options, out: &mut impl Write) -> Result<(), Failure> {
    let (home, system) = options.directory.open()?;
    let branch = system.branch(&options.branch)?;
    if options.print_url {
        writeln!(out, "{}", postgres::url(&home, &system, branch)?)?;
        return Ok(());
    }
    let mut psql = postgres::client("psql", &home, &system, branch)?;
    psql.args(&options.arguments);
    // Comes back only where psql could not be started.
    Err(Failure::fix(format_args!(
        "cannot run psql: {}",
        psql.exec()
    )))
}
