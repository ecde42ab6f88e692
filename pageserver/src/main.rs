//! The page server's process.

use std::path::PathBuf;

use clap::Parser;

/// Turns WAL into layers, and answers what any page was at any LSN.
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
        "cannot serve with {}: this build of the page server has layers, but no ingest and no \
         page service yet",
        arguments.config.display()
    )
}
