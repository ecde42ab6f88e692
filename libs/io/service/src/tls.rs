//! Mutual TLS: both sides show a certificate of the cell's own authority.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// An identity that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or no PEM.
    #[error("cannot use {path}: {reason}")]
    BadFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The certificates are not accepted.
    #[error("the identity in {path} is not accepted: {reason}")]
    Rejected {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// Who this process is towards others: `ca.pem`, `cert.pem` and `key.pem` of one directory.
#[derive(Clone)]
pub struct TlsIdentity {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl TlsIdentity {
    /// Reads the three files of `directory`.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(directory: impl AsRef<Path>) -> Result<Self, TlsError> {
        crate::init();
        let directory = directory.as_ref();
        let rejected = |reason: String| TlsError::Rejected {
            path: directory.to_owned(),
            reason,
        };

        let mut roots = RootCertStore::empty();
        for ca in certificates(&directory.join("ca.pem"))? {
            roots.add(ca).map_err(|e| rejected(e.to_string()))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&directory.join("cert.pem"))?;
        let key_path = directory.join("key.pem");
        let key = || {
            PrivateKeyDer::from_pem_file(&key_path).map_err(|e| TlsError::BadFile {
                path: key_path.clone(),
                reason: e.to_string(),
            })
        };

        let clients = WebPkiClientVerifier::builder(roots.clone())
            .build()
            .map_err(|e| rejected(e.to_string()))?;
        let mut server = ServerConfig::builder()
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key()?)
            .map_err(|e| rejected(e.to_string()))?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key()?)
            .map_err(|e| rejected(e.to_string()))?;
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }

    /// For listening: clients have to show a certificate of the authority.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// For connecting: only servers of the authority are believed.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |reason: String| TlsError::BadFile {
        path: path.to_owned(),
        reason,
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| bad(e.to_string()))?;
    if found.is_empty() {
        Err(bad("no certificate in it".to_owned()))
    } else {
        Ok(found)
    }
}
