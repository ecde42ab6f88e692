//! A bucket, opened: puts that are settled, reads, lists in order.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::RetryConfig;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use serde::Deserialize;

use crate::backend::{Backend, GetError, Object, RawPutError};
use crate::fault::{Faults, Faulty};

/// Where the bucket is. Without keys here they come from the environment (`AWS_...`).
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketConfig {
    /// `file:///directory` or `s3://bucket`.
    pub url: String,
    /// Of an S3 server that is not AWS.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Region.
    #[serde(default)]
    pub region: Option<String>,
    /// Access key.
    #[serde(default)]
    pub access_key: Option<String>,
    /// Its secret.
    #[serde(default)]
    pub secret_key: Option<String>,
}

impl BucketConfig {
    /// The directory `path` as bucket.
    #[must_use]
    pub fn directory(path: &std::path::Path) -> Self {
        Self {
            url: format!("file://{}", path.display()),
            endpoint: None,
            region: None,
            access_key: None,
            secret_key: None,
        }
    }
}

/// A bucket that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenBucketError {
    /// Neither `file:///directory` nor `s3://bucket`.
    #[error("{0:?} is no bucket: expected file:///directory or s3://bucket")]
    BadUrl(String),
    /// The directory or the settings cannot be used.
    #[error("cannot open the bucket {url}: {reason}")]
    Refused {
        /// Which.
        url: String,
        /// Why not.
        reason: String,
    },
}

/// A put that did not make the object.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PutError {
    /// The object is not ours: somebody else's is there, or the bucket refused.
    #[error("{name} was not put: {reason}")]
    NotApplied {
        /// The name.
        name: String,
        /// Whether another object has the name.
        exists: bool,
        /// Why.
        reason: String,
    },
    /// The object may be there, now or later.
    #[error("nobody knows whether {name} was put: {reason}")]
    Unknown {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
}

/// An open bucket. Clones are the same.
#[derive(Clone)]
pub struct Bucket {
    backend: Arc<dyn Backend>,
}

impl Bucket {
    /// Opens the bucket of `config`. [`Bucket::probe`] says whether it can be written to.
    ///
    /// # Errors
    /// See [`OpenBucketError`].
    pub fn open(config: &BucketConfig) -> Result<Self, OpenBucketError> {
        let url = config.url.as_str();
        let refused = |reason: String| OpenBucketError::Refused {
            url: url.to_owned(),
            reason,
        };
        if let Some(directory) = url.strip_prefix("file://").filter(|d| d.starts_with('/')) {
            let directory = PathBuf::from(directory);
            std::fs::create_dir_all(&directory).map_err(|e| refused(e.to_string()))?;
            let files = LocalFileSystem::new_with_prefix(directory)
                .map_err(|e| refused(e.to_string()))?
                .with_fsync(true);
            return Ok(Self {
                backend: Arc::new(files),
            });
        }
        let bucket = url
            .strip_prefix("s3://")
            .map(|name| name.trim_end_matches('/'))
            .filter(|name| !name.is_empty() && !name.contains('/'))
            .ok_or_else(|| OpenBucketError::BadUrl(url.to_owned()))?;
        let s3 = s3_builder(config, bucket)
            .build()
            .map_err(|e| refused(e.to_string()))?;
        Ok(Self {
            backend: Arc::new(s3),
        })
    }

    /// The same bucket, with errors where `faults` says so: for tests.
    #[must_use]
    pub fn with_faults(&self, faults: Faults) -> Self {
        Self {
            backend: Arc::new(Faulty::new(self.backend.clone(), faults)),
        }
    }

    /// Puts an object unless the name is taken. The bytes have to be ones that nobody else
    /// writes (a file id, a nonce): "exists" and lost answers are settled by reading back and
    /// comparing, so that a retried put meets itself (D3).
    ///
    /// # Errors
    /// See [`PutError`].
    pub async fn put_if_absent(&self, name: &str, bytes: Bytes) -> Result<(), PutError> {
        let (exists, reason) = match self.backend.put_if_absent(name, bytes.clone()).await {
            Ok(()) => return Ok(()),
            Err(RawPutError::Refused(reason)) => {
                return Err(PutError::NotApplied {
                    name: name.to_owned(),
                    exists: false,
                    reason,
                });
            }
            Err(RawPutError::Exists) => (true, "another object has the name".to_owned()),
            Err(RawPutError::Unknown(reason)) => (false, reason),
        };
        match self.backend.get(name, None).await {
            Ok(found) if found == bytes => Ok(()),
            Ok(_) => Err(PutError::NotApplied {
                name: name.to_owned(),
                exists: true,
                reason: "another object has the name".to_owned(),
            }),
            // Taken, and gone in the meantime: whose it was cannot be told any more.
            Err(GetError::NotFound(_)) if exists => Err(PutError::Unknown {
                name: name.to_owned(),
                reason: "the name was taken and is free again".to_owned(),
            }),
            // A put that is not there yet may still arrive.
            Err(GetError::NotFound(_)) => Err(PutError::Unknown {
                name: name.to_owned(),
                reason,
            }),
            Err(e) => Err(PutError::Unknown {
                name: name.to_owned(),
                reason: format!("{reason}; and reading back failed: {e}"),
            }),
        }
    }

    /// One put and its plain answer, for the probe.
    pub(crate) async fn put_once(&self, name: &str, bytes: Bytes) -> Result<(), RawPutError> {
        self.backend.put_if_absent(name, bytes).await
    }

    /// The whole object.
    ///
    /// # Errors
    /// See [`GetError`].
    pub async fn get(&self, name: &str) -> Result<Bytes, GetError> {
        self.backend.get(name, None).await
    }

    /// Exactly the bytes of `range`.
    ///
    /// # Errors
    /// See [`GetError`]; an object that ends before the range does is one.
    pub async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, GetError> {
        let wanted = range.end.saturating_sub(range.start);
        let bytes = self.backend.get(name, Some(range)).await?;
        if bytes.len() as u64 == wanted {
            return Ok(bytes);
        }
        let reason = format!("{} bytes came of {wanted}", bytes.len());
        Err(GetError::Unavailable {
            name: name.to_owned(),
            reason,
        })
    }

    /// The length of an object.
    ///
    /// # Errors
    /// See [`GetError`].
    pub async fn head(&self, name: &str) -> Result<u64, GetError> {
        self.backend.head(name).await
    }

    /// Everything below `directory`, at any depth, in the order of the names.
    ///
    /// # Errors
    /// See [`GetError`].
    pub async fn list(&self, directory: &str) -> Result<Vec<Object>, GetError> {
        let mut found = self.backend.list(directory, true).await?;
        found.sort();
        Ok(found)
    }

    /// What is directly in `directory`, in the order of the names.
    ///
    /// # Errors
    /// See [`GetError`].
    pub async fn list_directory(&self, directory: &str) -> Result<Vec<Object>, GetError> {
        let mut found = self.backend.list(directory, false).await?;
        found.sort();
        Ok(found)
    }

    /// Deletes an object; one that is not there is no error.
    ///
    /// # Errors
    /// [`GetError::Unavailable`].
    pub async fn delete(&self, name: &str) -> Result<(), GetError> {
        self.backend.delete(name).await
    }
}

fn s3_builder(config: &BucketConfig, bucket: &str) -> AmazonS3Builder {
    let retry = RetryConfig {
        max_retries: 4,
        retry_timeout: Duration::from_secs(30),
        ..RetryConfig::default()
    };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(retry);
    if let Some(endpoint) = &config.endpoint {
        builder = builder
            .with_endpoint(endpoint)
            .with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    if let Some(key) = &config.access_key {
        builder = builder.with_access_key_id(key);
    }
    if let Some(secret) = &config.secret_key {
        builder = builder.with_secret_access_key(secret);
    }
    builder
}
