//! The keymanager's process.

use clap::Parser;
use keymanager::service::{config::Config, router};
use service::task::Shutdown;
use service::tls::TlsIdentity;

/// Leases data keys to nodes while the customers' KMS says yes.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    configuration: service::config::Source,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    service::init();
    service::log::init();
    let arguments = Arguments::parse();
    let config: Config = arguments.configuration.load()?;
    let identity = config
        .identity
        .as_deref()
        .map(TlsIdentity::load)
        .transpose()?;
    let keymanager = config.open().await?;
    let shutdown = Shutdown::on_signals()?;
    keymanager.begin(&shutdown);
    service::http::readiness().set(Ok(()));
    let served = service::http::serve(
        config.listen,
        router(keymanager),
        identity,
        shutdown.clone(),
    );
    let ended = served.await;
    shutdown.request();
    shutdown.finished().await;
    Ok(ended?)
}
