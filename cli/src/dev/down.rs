//! `redoubt dev down`.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use crate::exit::Failure;
use crate::local::home::Directory;
use crate::local::launch::{stop, unmount_below};
use crate::local::programs::{self, Kind};
use crate::local::system::System;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    directory: Directory,
    /// Remove the directory of the system too, data and keys with it.
    #[arg(long)]
    purge: bool,
    /// For each kind of process to end by itself; then it is killed.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    wait: u64,
}

pub(crate) fn run(options: &Options, out: &mut impl Write) -> Result<(), Failure> {
    let home = options.directory.home()?;
    if !home.root.exists() {
        writeln!(out, "there is nothing in {}", home.root.display())?;
        return Ok(());
    }
    // Also the guard against purging a directory that is something else.
    let (home, system) = options.directory.open()?;
    let _lock = home.lock()?;
    stop_all(&home, &system, Duration::from_secs(options.wait), out)?;
    if options.purge {
        unmount_below(&home.root)?;
        std::fs::remove_dir_all(&home.root).map_err(Failure::doing(format_args!(
            "remove {}",
            home.root.display()
        )))?;
        writeln!(out, "removed {}", home.root.display())?;
    }
    Ok(())
}

/// Against the order of the start: what needs others ends before them.
fn stop_all(
    home: &crate::local::home::Home,
    system: &System,
    limit: Duration,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let programs = programs::all(system)?;
    for kind in [
        Kind::Compute,
        Kind::Pageserver,
        Kind::Safekeeper,
        Kind::Keymanager,
    ] {
        let of_kind: Vec<_> = programs
            .iter()
            .filter(|p| p.kind == kind)
            .cloned()
            .collect();
        for name in stop(home, &of_kind, limit)? {
            writeln!(out, "{name} did not end by itself and was killed")?;
        }
    }
    writeln!(out, "stopped")?;
    Ok(())
}
