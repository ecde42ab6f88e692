//! Where a process listens: on loopback, unless its configuration says otherwise in words.

use std::net::SocketAddr;

use serde::Deserialize;
use tokio::net::TcpListener;

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port.
    pub addr: SocketAddr,
    /// Whether the address may be one that other machines reach.
    #[serde(default)]
    pub beyond_loopback: bool,
}

impl From<SocketAddr> for Listen {
    fn from(addr: SocketAddr) -> Self {
        Self {
            addr,
            beyond_loopback: false,
        }
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Other machines could connect, and nobody allowed that.
    #[error("{0} is reached from other machines: set beyond_loopback = true if that is meant")]
    BeyondLoopback(SocketAddr),
    /// The operating system refused.
    #[error("cannot listen on {addr}: {source}")]
    Refused {
        /// The address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Listen {
    /// Begins to listen.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub async fn bind(self) -> Result<TcpListener, ListenError> {
        if !self.addr.ip().is_loopback() && !self.beyond_loopback {
            return Err(ListenError::BeyondLoopback(self.addr));
        }
        TcpListener::bind(self.addr)
            .await
            .map_err(|source| ListenError::Refused {
                addr: self.addr,
                source,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn other_machines_are_let_in_only_by_configuration() {
        let everywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
        let refused = Listen::from(everywhere).bind().await;
        assert!(matches!(refused, Err(ListenError::BeyondLoopback(_))));
        assert!(
            Listen::from("127.0.0.1:0".parse::<SocketAddr>().unwrap())
                .bind()
                .await
                .is_ok()
        );
    }
}
