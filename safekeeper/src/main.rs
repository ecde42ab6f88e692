//! The safekeeper's process.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use safekeeper::config::Config;
use safekeeper::timelines::Timelines;
use safekeeper::wal_push::Commands;
use service::task::Shutdown;

/// Keeps WAL of many timelines, sealed, and votes on who may write it.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
The configuration names node_id, listen, data_directory and development_kek.
INSECURE: development_kek, 64 hexadecimal digits, wraps the keys of all tenants from a file in
plain text, and clients are not authenticated. It is for development only, and is refused unless
listen is a loopback address. No other keyring is built yet."
)]
struct Arguments {
    /// The configuration, a TOML file.
    #[arg(long)]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    service::log::init();
    let config: Config = service::config::load(&arguments.config)?;
    let ring = config.keyring()?;
    tracing::warn!("INSECURE: development_kek is in use; for development only");
    let shutdown = Shutdown::on_signals()?;
    std::fs::create_dir_all(&config.data_directory)?;
    let root = config.data_directory.clone();
    let timelines = Timelines::new(config.node(), root, ring, shutdown.clone())?;
    let commands = Commands(Arc::new(timelines));
    service::libpq::serve(config.listen, commands, shutdown.clone()).await?;
    shutdown.finished().await;
    Ok(())
}
