//! The safekeeper's configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use ids::NodeId;
use keyring::Keyring;
use serde::Deserialize;

/// What the file says. It has no `Debug`: it carries a key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node's id, which no other node ever has.
    pub node_id: u64,
    /// Where computes and pageservers connect.
    pub listen: SocketAddr,
    /// The directory of the WAL and of the state.
    pub data_directory: PathBuf,
    /// INSECURE: a key of 64 hexadecimal digits that wraps the keys of all tenants.
    pub development_kek: Option<String>,
}

/// A configuration that is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigRefused {
    /// There is no other keyring yet.
    #[error("development_kek is missing: this build knows no key manager yet")]
    NoKey,
    /// It is not a key.
    #[error("development_kek is not 64 hexadecimal digits")]
    BadKey,
    /// Nobody is authenticated, and everybody shares a key.
    #[error("development_kek is insecure: with it, listen must be a loopback address, not {0}")]
    BeyondLoopback(SocketAddr),
}

impl Config {
    /// This node.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        NodeId(self.node_id)
    }

    /// The keys of all tenants.
    ///
    /// # Errors
    /// [`ConfigRefused`].
    pub fn keyring(&self) -> Result<Keyring, ConfigRefused> {
        let text = self.development_kek.as_ref().ok_or(ConfigRefused::NoKey)?;
        if !self.listen.ip().is_loopback() {
            return Err(ConfigRefused::BeyondLoopback(self.listen));
        }
        let mut kek = [0; 32];
        hex::decode_to_slice(text, &mut kek).map_err(|_| ConfigRefused::BadKey)?;
        Ok(Keyring::fixed(kek))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(listen: &str, kek: Option<&str>) -> Option<ConfigRefused> {
        let config = Config {
            node_id: 1,
            listen: listen.parse().unwrap(),
            data_directory: PathBuf::new(),
            development_kek: kek.map(str::to_owned),
        };
        config.keyring().err()
    }

    #[test]
    fn the_development_key_stays_on_loopback() {
        let key = "ab".repeat(32);
        assert!(refused("127.0.0.1:1", Some(&key)).is_none());
        assert!(refused("[::1]:1", Some(&key)).is_none());
        for beyond in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1"] {
            let refusal = refused(beyond, Some(&key));
            assert!(matches!(refusal, Some(ConfigRefused::BeyondLoopback(_))));
        }
        let bad = refused("127.0.0.1:1", Some("ab"));
        assert!(matches!(bad, Some(ConfigRefused::BadKey)));
        let none = refused("127.0.0.1:1", None);
        assert!(matches!(none, Some(ConfigRefused::NoKey)));
    }
}
