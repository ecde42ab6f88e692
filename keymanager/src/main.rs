//! The keymanager's process.

use std::path::PathBuf;

use clap::Parser;

/// Leases data keys to nodes while the customers' KMS says yes.
#[derive(Parser)]
struct Arguments {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
}

fn main() -> anyhow::Result<()> {
    service::init();
    let arguments = Arguments::parse();
    anyhow::bail!(
        "the keymanager does not serve yet ({} was not read)",
        arguments.config.display()
    )
}
