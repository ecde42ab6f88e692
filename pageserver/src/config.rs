//! The page server's configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ids::NodeId;
use keyring::{ConnectError, Keyring, KeyringConfig};
use serde::Deserialize;
use service::listen::Listen;
use service::tls::{TlsError, TlsIdentity};
use service::token::{TokenError, Verifier};
use store::BucketConfig;

/// The longest that anything stays out of the bucket (D8).
const FLUSH_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// What the file says. It has no `Debug`: it may carry a key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node's id, which no other node ever has.
    pub node_id: u64,
    /// Where computes connect.
    #[serde(default = "default_libpq")]
    pub listen: SocketAddr,
    /// Where the control plane asks.
    #[serde(default = "default_http")]
    pub http: SocketAddr,
    /// The directory of the node's own state; everything in it can be had again from the bucket
    /// but the list of what is attached.
    pub data_directory: PathBuf,
    /// The cell in the bucket.
    #[serde(default = "default_cell")]
    pub cell: String,
    /// The directory of `ca.pem`, `cert.pem` and `key.pem`. Without it only this machine can ask.
    pub identity: Option<PathBuf>,
    /// The public key of tokens. Without it everybody is believed, from this machine only.
    pub token_key: Option<PathBuf>,
    /// The file of the token that is shown to safekeepers and keymanagers.
    pub token: Option<PathBuf>,
    /// The URLs of the keymanagers.
    #[serde(default)]
    pub keymanagers: Vec<String>,
    /// INSECURE: a key of 64 hexadecimal digits that wraps the keys of all tenants.
    pub development_kek: Option<String>,
    /// Where layers and manifests are.
    pub bucket: BucketConfig,
    /// How old the open layer may become before it is brought into the bucket (D8).
    #[serde(default = "default_flush_interval_ms")]
    pub flush_interval_ms: u64,
    /// How large the open layer may become before it is brought into the bucket.
    #[serde(default = "default_flush_bytes")]
    pub flush_bytes: usize,
    /// How much of the local disk sealed layers may take, beside the bucket.
    #[serde(default = "default_cache_disk_bytes")]
    pub cache_disk_bytes: u64,
    /// How much memory opened blocks of layers may take.
    #[serde(default = "default_cache_memory_bytes")]
    pub cache_memory_bytes: usize,
    /// How long a read waits for WAL that has not come yet.
    #[serde(default = "default_read_wait_ms")]
    pub read_wait_ms: u64,
    /// The longest archive that is imported.
    #[serde(default = "default_import_bytes_max")]
    pub import_bytes_max: u64,
    /// Custom resource managers (128 to 255) whose records are passed over where they name no page.
    /// Such a record of any other stops ingest: nobody knows what it does.
    #[serde(default)]
    pub custom_rmgrs_to_skip: Vec<u8>,
    /// Between two renewals of a lease (K2).
    #[serde(default = "default_lease_renew_ms")]
    pub lease_renew_ms: u64,
    /// How long a fence waits for running operations (K2).
    #[serde(default = "default_lease_drain_ms")]
    pub lease_drain_ms: u64,
}

fn default_libpq() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 64000))
}

fn default_http() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9898))
}

fn default_cell() -> String {
    "dev".to_owned()
}

const fn default_flush_interval_ms() -> u64 {
    30_000
}

const fn default_flush_bytes() -> usize {
    64 << 20
}

const fn default_cache_disk_bytes() -> u64 {
    10 << 30
}

const fn default_cache_memory_bytes() -> usize {
    128 << 20
}

const fn default_read_wait_ms() -> u64 {
    60_000
}

const fn default_import_bytes_max() -> u64 {
    16 << 30
}

const fn default_lease_renew_ms() -> u64 {
    10_000
}

const fn default_lease_drain_ms() -> u64 {
    5_000
}

/// A configuration that is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigRefused {
    /// Neither keymanagers nor a key for development.
    #[error("name keymanagers, or development_kek for development")]
    NoKey,
    /// Both.
    #[error("keymanagers and development_kek exclude each other")]
    TwoKeys,
    /// It is not a key.
    #[error("development_kek is not 64 hexadecimal digits")]
    BadKey,
    /// Everybody shares a key.
    #[error("development_kek is insecure: with it, {0} must be a loopback address")]
    DevelopmentBeyondLoopback(SocketAddr),
    /// Nobody is asked who they are.
    #[error("{0} is reached from other machines: set token_key, so that tokens are asked for")]
    NoTokenKey(SocketAddr),
    /// Everybody on the way could read along.
    #[error("{0} is reached from other machines: set identity, so that HTTP is under TLS")]
    NoIdentity(SocketAddr),
    /// Data keys would travel in the clear.
    #[error("{0} is not on this machine: keys come from there only under TLS, set identity")]
    PlainKeymanager(String),
    /// What is acknowledged must reach the bucket within a minute.
    #[error("flush_interval_ms is {0}, and must be from 1 to 60000")]
    FlushInterval(u64),
    /// The URLs cannot be used.
    #[error("the keymanagers cannot be used: {0}")]
    Keymanagers(#[source] Box<ConnectError>),
    /// The token cannot be read.
    #[error("cannot read the token {path}: {source}")]
    Token {
        /// Its file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] TlsError),
    /// The key of tokens cannot be used.
    #[error(transparent)]
    TokenKey(#[from] TokenError),
}

impl Config {
    /// This node.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        NodeId(self.node_id)
    }

    /// How old the open layer may become (D8).
    #[must_use]
    pub const fn flush_interval(&self) -> Duration {
        Duration::from_millis(self.flush_interval_ms)
    }

    /// Where both listeners listen: beyond loopback only where callers are told apart.
    ///
    /// # Errors
    /// [`ConfigRefused`].
    pub fn listeners(&self) -> Result<(Listen, Listen), ConfigRefused> {
        if self.flush_interval().is_zero() || self.flush_interval() > FLUSH_INTERVAL_MAX {
            return Err(ConfigRefused::FlushInterval(self.flush_interval_ms));
        }
        for addr in [self.listen, self.http] {
            if addr.ip().is_loopback() {
                continue;
            }
            if self.development_kek.is_some() {
                return Err(ConfigRefused::DevelopmentBeyondLoopback(addr));
            }
            if self.token_key.is_none() {
                return Err(ConfigRefused::NoTokenKey(addr));
            }
        }
        if !self.http.ip().is_loopback() && self.identity.is_none() {
            return Err(ConfigRefused::NoIdentity(self.http));
        }
        let beyond_loopback = true;
        let listen = |addr| Listen {
            addr,
            beyond_loopback,
        };
        Ok((listen(self.listen), listen(self.http)))
    }

    /// The keys of all tenants.
    ///
    /// # Errors
    /// [`ConfigRefused`].
    pub fn keyring(&self) -> Result<Keyring, ConfigRefused> {
        match (&self.development_kek, self.keymanagers.is_empty()) {
            (None, true) => Err(ConfigRefused::NoKey),
            (Some(_), false) => Err(ConfigRefused::TwoKeys),
            (Some(text), true) => {
                self.listeners()?;
                let mut kek = [0; 32];
                hex::decode_to_slice(text, &mut kek).map_err(|_| ConfigRefused::BadKey)?;
                tracing::warn!("INSECURE: development_kek is in use; for development only");
                Ok(Keyring::fixed(kek))
            }
            (None, false) => self.remote_keyring(),
        }
    }

    fn remote_keyring(&self) -> Result<Keyring, ConfigRefused> {
        if self.identity.is_none() {
            let far = self.keymanagers.iter().find(|url| !is_local(url));
            if let Some(far) = far {
                return Err(ConfigRefused::PlainKeymanager(far.clone()));
            }
        }
        let mut config = KeyringConfig::new(self.node(), self.keymanagers.clone());
        config.identity_dir.clone_from(&self.identity);
        config.renew = Duration::from_millis(self.lease_renew_ms);
        config.drain = Duration::from_millis(self.lease_drain_ms);
        if let Some(path) = &self.token {
            let token = std::fs::read_to_string(path);
            let token = token.map_err(|source| ConfigRefused::Token {
                path: path.clone(),
                source,
            })?;
            config.token = Some(token.trim().to_owned());
        }
        Keyring::connect(config).map_err(|e| ConfigRefused::Keymanagers(Box::new(e)))
    }

    /// Who this process is, where it says so.
    ///
    /// # Errors
    /// [`ConfigRefused::Identity`].
    pub fn tls(&self) -> Result<Option<TlsIdentity>, ConfigRefused> {
        Ok(self.identity.as_ref().map(TlsIdentity::load).transpose()?)
    }

    /// Who checks tokens, where they are checked.
    ///
    /// # Errors
    /// [`ConfigRefused::TokenKey`].
    pub fn verifier(&self) -> Result<Option<Verifier>, ConfigRefused> {
        Ok(self.token_key.as_ref().map(Verifier::load).transpose()?)
    }
}

fn is_local(url: &str) -> bool {
    let host = url.strip_prefix("http://").unwrap_or_default();
    let host = host.split('/').next().unwrap_or_default();
    ["127.0.0.1", "[::1]", "localhost"]
        .iter()
        .any(|local| host == *local || host.starts_with(&format!("{local}:")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config {
            node_id: 1,
            listen: default_libpq(),
            http: default_http(),
            data_directory: PathBuf::new(),
            cell: "dev".to_owned(),
            identity: None,
            token_key: None,
            token: None,
            keymanagers: Vec::new(),
            development_kek: None,
            bucket: BucketConfig::directory("/bucket".as_ref()),
            flush_interval_ms: default_flush_interval_ms(),
            flush_bytes: default_flush_bytes(),
            cache_disk_bytes: default_cache_disk_bytes(),
            cache_memory_bytes: default_cache_memory_bytes(),
            read_wait_ms: default_read_wait_ms(),
            import_bytes_max: default_import_bytes_max(),
            custom_rmgrs_to_skip: Vec::new(),
            lease_renew_ms: default_lease_renew_ms(),
            lease_drain_ms: default_lease_drain_ms(),
        };
        change(&mut config);
        config
    }

    #[test]
    fn the_development_key_stays_on_loopback_and_alone() {
        let key = || Some("ab".repeat(32));
        assert!(config(|c| c.development_kek = key()).keyring().is_ok());
        let beyond = config(|c| {
            c.development_kek = key();
            c.http = SocketAddr::from(([0, 0, 0, 0], 1));
        });
        assert!(matches!(
            beyond.keyring().err(),
            Some(ConfigRefused::DevelopmentBeyondLoopback(_))
        ));
        let two = config(|c| {
            c.development_kek = key();
            c.keymanagers = vec!["http://127.0.0.1:1".to_owned()];
        });
        assert!(matches!(two.keyring().err(), Some(ConfigRefused::TwoKeys)));
        let none = config(|_| {}).keyring().err();
        assert!(matches!(none, Some(ConfigRefused::NoKey)));
    }

    #[test]
    fn other_machines_need_tokens_and_tls() {
        let everywhere = SocketAddr::from(([0, 0, 0, 0], 1));
        let bare = config(|c| c.listen = everywhere).listeners().err();
        assert!(matches!(bare, Some(ConfigRefused::NoTokenKey(_))));
        let plain = config(|c| {
            c.http = everywhere;
            c.token_key = Some(PathBuf::from("key"));
        });
        let plain = plain.listeners().err();
        assert!(matches!(plain, Some(ConfigRefused::NoIdentity(_))));
    }

    #[test]
    fn keys_travel_in_the_clear_on_this_machine_only() {
        service::init();
        for url in [
            "http://10.0.0.1:1",
            "http://127.0.0.1.example:1",
            "http://localhosts",
        ] {
            let refused = config(|c| c.keymanagers = vec![url.to_owned()]).keyring();
            let refused = refused.err();
            assert!(matches!(refused, Some(ConfigRefused::PlainKeymanager(_))));
        }
        let near = config(|c| c.keymanagers = vec!["http://127.0.0.1:7800".to_owned()]);
        assert!(near.keyring().is_ok());
    }

    #[test]
    fn a_minute_is_the_longest_flush_interval() {
        for ms in [0, 60_001] {
            let refused = config(|c| c.flush_interval_ms = ms).listeners().err();
            assert!(matches!(refused, Some(ConfigRefused::FlushInterval(_))));
        }
    }
}
