//! The page server's process.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use pageserver::config::Config;
use pageserver::server::Server;
use service::task::Shutdown;

/// Turns WAL into layers, and answers what any page was at any LSN.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Stopped by SIGTERM or SIGINT it brings what it took in into the bucket, and ends.
INSECURE: development_kek, 64 hexadecimal digits, wraps the keys of all tenants from a file in
plain text. It is for development only, and is refused beyond loopback addresses. Without
token_key clients are not authenticated, which is refused beyond loopback addresses too."
)]
struct Arguments {
    #[command(flatten)]
    configuration: service::config::Source,
}

/// For the last flush, and for requests that are under way.
const STOP: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    service::init();
    service::log::init();
    let config: Config = arguments.configuration.load()?;
    let keyring = Arc::new(config.keyring()?);
    let shutdown = Shutdown::on_signals()?;
    Server::start(&config, keyring, &shutdown).await?;
    shutdown.requested().await;
    // A request that does not end, an upload that stands still, must not hold up the end.
    if tokio::time::timeout(STOP, shutdown.finished())
        .await
        .is_err()
    {
        tracing::warn!("ends although something still runs");
    }
    Ok(())
}
