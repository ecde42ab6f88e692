//! The page server: both of its listeners, and the timelines behind them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keyring::Keyring;
use service::listen::ListenError;
use service::task::Shutdown;
use state::StateError;
use store::names::{BadCell, Cell};
use store::{Bucket, OpenBucketError, ProbeError};

use crate::config::{Config, ConfigRefused};
use crate::http::{self, Routes};
use crate::layer::cache::{CacheConfig, LayerCache};
use crate::page_service::Commands;
use crate::tenants::{Node, Remembered, Settings, Tenants};

/// A page server that does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings.
    #[error(transparent)]
    Config(#[from] ConfigRefused),
    /// The name of the cell.
    #[error(transparent)]
    Cell(#[from] BadCell),
    /// The bucket cannot be opened.
    #[error(transparent)]
    Bucket(#[from] OpenBucketError),
    /// The bucket does not keep what everything rests on (D4).
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The directory of the node cannot be used.
    #[error("cannot use {path}: {source}")]
    Directory {
        /// The directory.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The state does not open.
    #[error(transparent)]
    State(#[from] StateError),
    /// The state is damaged.
    #[error("the list of what is attached cannot be read: {0}")]
    Remembered(String),
    /// An address.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// A page server that runs.
pub struct Server {
    /// Where computes connect.
    pub libpq: SocketAddr,
    /// Where the control plane asks.
    pub http: SocketAddr,
}

impl Server {
    /// Begins to serve. It ends when `shutdown` is asked for; the last flush is done when
    /// [`Shutdown::finished`] returns.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(
        config: &Config,
        keyring: Arc<Keyring>,
        shutdown: &Shutdown,
    ) -> Result<Self, StartError> {
        let (libpq, http) = config.listeners()?;
        let (identity, verifier) = (config.tls()?, config.verifier()?);
        if verifier.is_none() {
            tracing::warn!("without token_key everybody on this machine is believed");
        }
        let (libpq, http) = (libpq.bind().await?, http.bind().await?);
        let address =
            |listener: &tokio::net::TcpListener, asked| listener.local_addr().unwrap_or(asked);
        let server = Self {
            libpq: address(&libpq, config.listen),
            http: address(&http, config.http),
        };
        let bucket = Bucket::open(&config.bucket)?;
        probe(&bucket).await?;
        let node = node(config, bucket, keyring, shutdown)?;
        let tenants = Tenants::begin(node);
        let tenants = Arc::new(tenants.map_err(|e| StartError::Remembered(e.to_string()))?);
        let commands = Commands {
            tenants: Arc::clone(&tenants),
            verifier: verifier.clone(),
        };
        let serve = service::libpq::serve_on(libpq, commands, shutdown.clone());
        drop(shutdown.spawn("page service", serve));
        let router = http::router(Routes { tenants, verifier });
        let serve = service::http::serve_on(http, router, identity, shutdown.clone());
        drop(shutdown.spawn("http", serve));
        service::http::readiness().set(Ok(()));
        tracing::info!(libpq = %server.libpq, http = %server.http, "serves");
        Ok(server)
    }
}

/// D4. A bucket that does not answer yet is asked again for a while: what starts together does
/// not come up together.
async fn probe(bucket: &Bucket) -> Result<(), ProbeError> {
    for _ in 0..30 {
        match bucket.probe().await {
            Err(ProbeError::Unavailable(why)) => {
                tracing::warn!(error = why, "the bucket does not answer");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            probed => return probed,
        }
    }
    bucket.probe().await
}

fn node(
    config: &Config,
    bucket: Bucket,
    keyring: Arc<Keyring>,
    shutdown: &Shutdown,
) -> Result<Node, StartError> {
    let directory = &config.data_directory;
    let unusable = |source| StartError::Directory {
        path: directory.clone(),
        source,
    };
    std::fs::create_dir_all(directory).map_err(unusable)?;
    let cache = LayerCache::open(CacheConfig {
        directory: Some(directory.join("layers")),
        disk_bytes: config.cache_disk_bytes,
        block_bytes: config.cache_memory_bytes,
    });
    Ok(Node {
        id: config.node(),
        bucket,
        cell: Cell::new(&config.cell)?,
        keyring,
        cache: cache.map_err(unusable)?,
        remembered: Remembered::open(directory)?,
        settings: Settings {
            flush_interval: config.flush_interval(),
            flush_bytes: config.flush_bytes,
            read_wait: Duration::from_millis(config.read_wait_ms),
            token: config.token.clone(),
            import_bytes_max: config.import_bytes_max,
            custom_rmgrs_to_skip: config.custom_rmgrs_to_skip.clone().into(),
        },
        shutdown: shutdown.clone(),
    })
}
