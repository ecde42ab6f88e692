//! The HTTP client of every process: mutual TLS, JSON, graded errors.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Body, Certificate, Identity, Method, RequestBuilder, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{ErrorBody, Grade};

/// The longest answer that is taken, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The base URL cannot be used.
    #[error("{0:?} is not a URL that can be used")]
    BadUrl(String),
    /// A file of the identity cannot be used.
    #[error("cannot use {path} as identity: {reason}")]
    BadIdentity {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// No answer, or a broken one. The request may have been carried out.
    #[error("no answer from {url}: {source}")]
    NoAnswer {
        /// Where it went.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The answer is longer than this client takes.
    #[error("the answer of {0} is too long")]
    TooLong(String),
    /// The answer is not what the contract says.
    #[error("cannot read the answer of {url}: {reason}")]
    Malformed {
        /// Where it came from.
        url: String,
        /// Why.
        reason: String,
    },
    /// The other side refused.
    #[error("{body} [{status}]")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        body: ErrorBody,
    },
}

impl ClientError {
    /// How a caller should take it.
    #[must_use]
    pub const fn grade(&self) -> Grade {
        match self {
            Self::BadUrl(_) | Self::BadIdentity { .. } => Grade::FixRequest,
            Self::NoAnswer { .. } => Grade::RetryElsewhere,
            Self::TooLong(_) | Self::Malformed { .. } => Grade::Bug,
            Self::Refused { body, .. } => body.grade,
        }
    }
}

/// A client of one base URL.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

impl Client {
    /// A client of `base` that trusts only `identity/ca.pem` and shows `identity/cert.pem`
    /// with `identity/key.pem`. Without an identity it speaks plain HTTP.
    ///
    /// # Errors
    /// A base that is no URL; files that are missing or no PEM.
    pub fn new(base: &str, identity: Option<&Path>) -> Result<Self, ClientError> {
        let base = Url::parse(base).map_err(|_| ClientError::BadUrl(base.to_owned()))?;
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(3))
            .timeout(Duration::from_secs(60));
        if let Some(directory) = identity {
            builder = with_identity(builder, directory)?;
        } else if base.scheme() != "http" {
            return Err(ClientError::BadUrl(format!("{base} without an identity")));
        }
        let http = builder.build().map_err(|source| ClientError::NoAnswer {
            url: base.to_string(),
            source,
        })?;
        Ok(Self {
            http,
            base,
            token: None,
        })
    }

    /// Sends `token` as bearer with every request.
    #[must_use]
    pub fn with_token(mut self, token: String) -> Self {
        self.token = Some(token);
        self
    }

    /// `GET` of JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.parse(path, &self.send(Method::GET, path, None).await?)
    }

    /// `POST` of JSON, answered by JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.parse(path, &self.post_bytes(path, body).await?)
    }

    /// `POST` of JSON, answered by bytes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_bytes<B: Serialize + Sync>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<Bytes, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| self.malformed(path, e))?;
        self.send(Method::POST, path, Some(body)).await
    }

    /// `PUT` of JSON, answered by JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| self.malformed(path, e))?;
        self.parse(path, &self.send(Method::PUT, path, Some(body)).await?)
    }

    /// `DELETE`; the answer's body is dropped.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, path, None).await.map(drop)
    }

    /// `POST` of a body that is sent as it comes, answered by JSON. It may take `longest`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_stream<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Body,
        longest: Duration,
    ) -> Result<T, ClientError> {
        let request = self
            .request(Method::POST, path)?
            .timeout(longest)
            .header("content-type", "application/x-tar")
            .body(body);
        self.parse(path, &self.answer(path, request).await?)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Bytes, ClientError> {
        let mut request = self.request(method, path)?;
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        self.answer(path, request).await
    }

    fn url(&self, path: &str) -> Result<Url, ClientError> {
        self.base
            .join(path)
            .map_err(|_| ClientError::BadUrl(path.to_owned()))
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, ClientError> {
        let request = self.http.request(method, self.url(path)?);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    async fn answer(&self, path: &str, request: RequestBuilder) -> Result<Bytes, ClientError> {
        let url = self.url(path)?;
        let lost = |source| ClientError::NoAnswer {
            url: url.to_string(),
            source,
        };
        let mut answer = request.send().await.map_err(lost)?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(lost)? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(ClientError::TooLong(url.to_string()));
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() {
            Ok(bytes.into())
        } else {
            Err(refusal(status, &bytes))
        }
    }

    fn parse<T: DeserializeOwned>(&self, path: &str, bytes: &[u8]) -> Result<T, ClientError> {
        // An empty answer is `null`, so that `()` can be asked for.
        let bytes = if bytes.is_empty() { b"null" } else { bytes };
        serde_json::from_slice(bytes).map_err(|e| self.malformed(path, e))
    }

    fn malformed(&self, path: &str, e: serde_json::Error) -> ClientError {
        ClientError::Malformed {
            url: format!("{}{path}", self.base),
            reason: e.to_string(),
        }
    }
}

/// What a refusal says; one that does not come from us is graded by its status.
fn refusal(status: StatusCode, bytes: &[u8]) -> ClientError {
    let body = serde_json::from_slice(bytes).unwrap_or_else(|_| ErrorBody {
        error: String::from_utf8_lossy(bytes.get(..200).unwrap_or(bytes)).into_owned(),
        grade: if status.is_server_error() {
            Grade::Retry
        } else {
            Grade::FixRequest
        },
        hint: None,
    });
    ClientError::Refused {
        status: status.as_u16(),
        body,
    }
}

fn with_identity(
    builder: reqwest::ClientBuilder,
    directory: &Path,
) -> Result<reqwest::ClientBuilder, ClientError> {
    let bad = |name: &str, reason: String| ClientError::BadIdentity {
        path: directory.join(name).display().to_string(),
        reason,
    };
    let read =
        |name: &str| std::fs::read(directory.join(name)).map_err(|e| bad(name, e.to_string()));
    let ca = Certificate::from_pem(&read("ca.pem")?).map_err(|e| bad("ca.pem", e.to_string()))?;
    let mut own = read("key.pem")?;
    own.push(b'\n');
    own.extend_from_slice(&read("cert.pem")?);
    let identity = Identity::from_pem(&own).map_err(|e| bad("cert.pem", e.to_string()))?;
    Ok(builder
        .tls_certs_only([ca])
        .identity(identity)
        .https_only(true))
}
