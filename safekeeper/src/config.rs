//! The safekeeper's configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ids::NodeId;
use keyring::{ConnectError, Keyring, KeyringConfig};
use serde::Deserialize;
use service::listen::Listen;
use service::tls::{TlsError, TlsIdentity};
use service::token::{TokenError, Verifier};
use store::names::{BadCell, Cell};
use store::{Bucket, BucketConfig, OpenBucketError};

use crate::archive::Archive;

/// With what some nodes wait in addition, and an upload, this is a minute (D8).
const TAIL_MS_MAX: u64 = 40_000;

/// What the file says. It has no `Debug`: it may carry a key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node's id, which no other node ever has.
    pub node_id: u64,
    /// Where computes and pageservers connect.
    #[serde(default = "defaults::listen")]
    pub listen: SocketAddr,
    /// Where status and metrics are asked for.
    #[serde(default = "defaults::http")]
    pub http: SocketAddr,
    /// The directory of the WAL and of the state.
    pub data_directory: PathBuf,
    /// The cell in the bucket.
    #[serde(default = "defaults::cell")]
    pub cell: String,
    /// The directory of `ca.pem`, `cert.pem` and `key.pem`, for HTTP and towards keymanagers.
    pub identity: Option<PathBuf>,
    /// The public key of tokens. Without it everybody on this machine is believed.
    pub token_key: Option<PathBuf>,
    /// The file of this node's own token, which is shown to keymanagers (K4).
    pub token: Option<PathBuf>,
    /// The URLs of the keymanagers.
    #[serde(default)]
    pub keymanagers: Vec<String>,
    /// INSECURE: a key of 64 hexadecimal digits that wraps the keys of all tenants.
    pub development_kek: Option<String>,
    /// Where finished segments go. Without it WAL stays on this node, all of it.
    pub bucket: Option<BucketConfig>,
    /// How long committed WAL waits for its segment to be finished before its beginning goes to
    /// the bucket (D8).
    #[serde(default = "defaults::tail_ms")]
    pub tail_ms: u64,
    /// Between two renewals of a lease (K2).
    #[serde(default = "defaults::lease_renew_ms")]
    pub lease_renew_ms: u64,
    /// How long a fence waits for what runs (K2).
    #[serde(default = "defaults::lease_drain_ms")]
    pub lease_drain_ms: u64,
}

mod defaults {
    use std::net::{Ipv4Addr, SocketAddr};

    pub(super) fn listen() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 5454).into()
    }

    pub(super) fn http() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 7676).into()
    }

    pub(super) fn cell() -> String {
        "dev".to_owned()
    }

    pub(super) const fn tail_ms() -> u64 {
        30_000
    }

    pub(super) const fn lease_renew_ms() -> u64 {
        10_000
    }

    pub(super) const fn lease_drain_ms() -> u64 {
        5_000
    }
}

/// A configuration that is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigRefused {
    /// Nobody gives keys.
    #[error("keymanagers is empty, and there is no development_kek")]
    NoKey,
    /// Two sources of keys.
    #[error("either keymanagers or development_kek, not both")]
    TwoKeys,
    /// It is not a key.
    #[error("development_kek is not 64 hexadecimal digits")]
    BadKey,
    /// Everybody shares a key.
    #[error("development_kek is insecure: with it, {0} has to be a loopback address")]
    DevelopmentKey(SocketAddr),
    /// Everybody would be believed.
    #[error("without token_key everybody is believed: {0} has to be a loopback address")]
    NoTokens(SocketAddr),
    /// Tokens would travel in the clear.
    #[error("without identity HTTP is not under TLS: {0} has to be a loopback address")]
    NoTls(SocketAddr),
    /// Data keys would travel in the clear.
    #[error("without identity keys come over plain HTTP: {0} has to be on this machine")]
    FarKeymanager(String),
    /// The keymanagers.
    #[error("keymanagers cannot be used: {0}")]
    Keymanagers(#[source] Box<ConnectError>),
    /// Committed WAL would be on safekeepers alone for too long.
    #[error("tail_ms {0} is too long: {TAIL_MS_MAX} at most")]
    Tail(u64),
    /// The identity.
    #[error(transparent)]
    Identity(#[from] TlsError),
    /// The node's own token.
    #[error("cannot read the token {path}: {source}")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The key of tokens.
    #[error(transparent)]
    TokenKey(#[from] TokenError),
    /// The cell.
    #[error(transparent)]
    Cell(#[from] BadCell),
    /// The bucket.
    #[error(transparent)]
    Bucket(#[from] OpenBucketError),
}

impl Config {
    /// This node.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        NodeId(self.node_id)
    }

    /// The libpq and the HTTP listener. Beyond loopback only where callers prove who they are.
    ///
    /// # Errors
    /// [`ConfigRefused`].
    pub fn listeners(&self) -> Result<(Listen, Listen), ConfigRefused> {
        let far = |addr: &&SocketAddr| !addr.ip().is_loopback();
        if let Some(addr) = [&self.listen, &self.http].into_iter().find(far) {
            if self.development_kek.is_some() {
                return Err(ConfigRefused::DevelopmentKey(*addr));
            }
            if self.token_key.is_none() {
                return Err(ConfigRefused::NoTokens(*addr));
            }
        }
        if far(&&self.http) && self.identity.is_none() {
            return Err(ConfigRefused::NoTls(self.http));
        }
        let listen = |addr| Listen {
            addr,
            beyond_loopback: true,
        };
        Ok((listen(self.listen), listen(self.http)))
    }

    /// See `tail_ms`.
    ///
    /// # Errors
    /// [`ConfigRefused::Tail`].
    pub fn tail(&self) -> Result<Duration, ConfigRefused> {
        match self.tail_ms <= TAIL_MS_MAX {
            true => Ok(Duration::from_millis(self.tail_ms)),
            false => Err(ConfigRefused::Tail(self.tail_ms)),
        }
    }

    /// The keys of all tenants.
    ///
    /// # Errors
    /// [`ConfigRefused`].
    pub fn keyring(&self) -> Result<Keyring, ConfigRefused> {
        let Some(text) = &self.development_kek else {
            return self.leased_keys();
        };
        if !self.keymanagers.is_empty() {
            return Err(ConfigRefused::TwoKeys);
        }
        self.listeners()?;
        let mut kek = [0; 32];
        hex::decode_to_slice(text, &mut kek).map_err(|_| ConfigRefused::BadKey)?;
        tracing::warn!("INSECURE: development_kek is in use; for development only");
        Ok(Keyring::fixed(kek))
    }

    fn leased_keys(&self) -> Result<Keyring, ConfigRefused> {
        if self.keymanagers.is_empty() {
            return Err(ConfigRefused::NoKey);
        }
        let far = self.keymanagers.iter().find(|url| !on_this_machine(url));
        if let (None, Some(url)) = (&self.identity, far) {
            return Err(ConfigRefused::FarKeymanager(url.clone()));
        }
        let connected = Keyring::connect(KeyringConfig {
            keymanagers: self.keymanagers.clone(),
            identity_dir: self.identity.clone(),
            node: self.node(),
            renew: Duration::from_millis(self.lease_renew_ms),
            drain: Duration::from_millis(self.lease_drain_ms),
            token: self.own_token()?,
        });
        connected.map_err(|error| ConfigRefused::Keymanagers(Box::new(error)))
    }

    fn own_token(&self) -> Result<Option<String>, ConfigRefused> {
        let Some(path) = &self.token else {
            return Ok(None);
        };
        let read = std::fs::read_to_string(path).map_err(|source| ConfigRefused::Token {
            path: path.clone(),
            source,
        })?;
        Ok(Some(read.trim().to_owned()))
    }

    /// Who this process is, where it says so.
    ///
    /// # Errors
    /// [`ConfigRefused::Identity`].
    pub fn tls(&self) -> Result<Option<TlsIdentity>, ConfigRefused> {
        let loaded = self.identity.as_ref().map(TlsIdentity::load);
        Ok(loaded.transpose()?)
    }

    /// Who checks tokens, where they are checked.
    ///
    /// # Errors
    /// [`ConfigRefused::TokenKey`].
    pub fn verifier(&self) -> Result<Option<Verifier>, ConfigRefused> {
        let loaded = self.token_key.as_ref().map(Verifier::load);
        Ok(loaded.transpose()?)
    }

    /// Where finished segments go.
    ///
    /// # Errors
    /// [`ConfigRefused::Bucket`], [`ConfigRefused::Cell`].
    pub fn archive(&self) -> Result<Option<Archive>, ConfigRefused> {
        let cell = Cell::new(&self.cell)?;
        let Some(bucket) = &self.bucket else {
            return Ok(None);
        };
        Ok(Some(Archive::new(Bucket::open(bucket)?, cell)))
    }
}

fn on_this_machine(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(h, _)| h);
    matches!(host, "127.0.0.1" | "localhost" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let text = format!("node_id = 1\ndata_directory = \"/nowhere\"\n{text}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        service::config::load(file.path()).unwrap()
    }

    fn key() -> String {
        format!("development_kek = \"{}\"\n", "ab".repeat(32))
    }

    #[test]
    fn the_development_key_stays_on_loopback_and_alone() {
        assert!(config(&key()).keyring().is_ok());
        for far in ["listen = \"0.0.0.0:1\"", "http = \"[::]:1\""] {
            let refused = config(&format!("{}{far}", key())).keyring().err();
            assert!(matches!(refused, Some(ConfigRefused::DevelopmentKey(_))));
        }
        let two = config(&format!("{}keymanagers = [\"http://127.0.0.1:1\"]", key()));
        assert!(matches!(two.keyring().err(), Some(ConfigRefused::TwoKeys)));
        let bad = config("development_kek = \"ab\"").keyring().err();
        assert!(matches!(bad, Some(ConfigRefused::BadKey)));
        let none = config("").keyring().err();
        assert!(matches!(none, Some(ConfigRefused::NoKey)));
    }

    #[test]
    fn who_listens_beyond_loopback_asks_for_tokens_under_tls() {
        let bare = config("listen = \"10.0.0.1:1\"").listeners().err();
        assert!(matches!(bare, Some(ConfigRefused::NoTokens(_))));
        let plain = config("http = \"10.0.0.1:1\"\ntoken_key = \"k\"");
        let plain = plain.listeners().err();
        assert!(matches!(plain, Some(ConfigRefused::NoTls(_))));
    }

    #[test]
    fn keys_travel_in_the_clear_on_this_machine_only() {
        service::init();
        for far in ["http://10.0.0.1:7800", "http://127.0.0.1.example:7800/"] {
            let refused = config(&format!("keymanagers = [\"{far}\"]")).keyring();
            let refused = refused.err();
            assert!(matches!(refused, Some(ConfigRefused::FarKeymanager(_))));
        }
        let near = config("keymanagers = [\"http://127.0.0.1:7800\"]");
        assert!(near.keyring().is_ok());
    }
}
