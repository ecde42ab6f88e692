//! The safekeeper's process.

use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use safekeeper::access::Gate;
use safekeeper::admission;
use safekeeper::config::Config;
use safekeeper::http::router;
use safekeeper::timelines::{Node, Timelines};
use safekeeper::wal_push::Commands;
use service::task::Shutdown;

/// Keeps WAL of many timelines, sealed, and votes on who may write it.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
The configuration names node_id, data_directory, keymanagers and, for other machines to connect,
identity and token_key; with a bucket, finished WAL goes there. docs/operations.md has all of it.
INSECURE: development_kek, 64 hexadecimal digits in place of keymanagers, wraps the keys of all
tenants from a file in plain text. It is refused unless both listeners are on loopback."
)]
struct Arguments {
    #[command(flatten)]
    configuration: service::config::Source,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    service::init();
    let arguments = Arguments::parse();
    service::log::init();
    let config: Config = arguments.configuration.load()?;
    let (libpq, http) = config.listeners()?;
    let gate = Gate(config.verifier()?);
    let identity = config.tls()?;
    let archive = config.archive()?;
    let ring = Arc::new(config.keyring()?);
    if let Some(archive) = &archive {
        // D4
        let begun = admission::begin(archive).await;
        begun.context("the bucket is refused")?;
    }
    let shutdown = Shutdown::on_signals()?;
    std::fs::create_dir_all(&config.data_directory)?;
    let probed = archive.clone();
    let node = Node {
        node: config.node(),
        root: config.data_directory.clone(),
        ring,
        archive,
        tail: config.tail()?,
    };
    let timelines = Arc::new(Timelines::new(node, shutdown.clone())?);
    let commands = Commands::new(Arc::clone(&timelines), gate.clone());
    let (libpq, http_listener) = (libpq.bind().await?, http.bind().await?);
    service::http::readiness().set(Ok(()));
    let (known, stop) = (Arc::clone(&timelines), shutdown.clone());
    drop(shutdown.spawn("timelines", async move {
        tokio::select! {
            () = stop.requested() => {}
            () = known.keep_open() => {}
        }
    }));
    let proving = async {
        let Some(archive) = &probed else {
            return Ok(());
        };
        let ended = admission::keep(archive, admission::EVERY, &shutdown).await;
        if ended.is_err() {
            shutdown.request();
        }
        ended
    };
    let ((), (), admitted) = tokio::join!(
        service::libpq::serve_on(libpq, commands, shutdown.clone()),
        service::http::serve_on(
            http_listener,
            router(timelines, gate),
            identity,
            shutdown.clone()
        ),
        proving,
    );
    shutdown.finished().await;
    admitted.context("the bucket is refused")
}
