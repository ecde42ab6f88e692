//! The safekeeper's process.

use std::path::PathBuf;

use clap::Parser;

/// Keeps WAL of many timelines, sealed, and votes on who may write it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration, a TOML file.
    #[arg(long)]
    config: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    anyhow::bail!(
        "cannot serve with {}: this build of the safekeeper keeps WAL on disk, but its server is \
         not built yet",
        arguments.config.display()
    )
}
