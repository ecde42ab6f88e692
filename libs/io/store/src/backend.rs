//! The five operations that a bucket has to know, and their errors.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

/// One object, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// Its full name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Why nothing was read (or listed, or deleted).
#[derive(Debug, Clone, thiserror::Error)]
pub enum GetError {
    /// There is no object of this name.
    #[error("there is no object {0}")]
    NotFound(String),
    /// The bucket cannot be asked, or refuses us.
    #[error("the bucket does not answer for {name}: {reason}")]
    Unavailable {
        /// What was asked for.
        name: String,
        /// Why.
        reason: String,
    },
}

/// One answer to one put; nothing is concluded from it here.
#[derive(Debug, Clone)]
pub(crate) enum RawPutError {
    /// The bucket says that the name is taken.
    Exists,
    /// The bucket says that it did nothing.
    Refused(String),
    /// No answer, or one that does not tell.
    Unknown(String),
}

/// What a bucket has to know.
#[async_trait]
pub(crate) trait Backend: Send + Sync {
    async fn put_if_absent(&self, name: &str, bytes: Bytes) -> Result<(), RawPutError>;
    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, GetError>;
    async fn head(&self, name: &str) -> Result<u64, GetError>;
    /// Everything below `directory`, or only what is directly in it; in no order.
    async fn list(&self, directory: &str, deep: bool) -> Result<Vec<Object>, GetError>;
    /// Deleting what is not there is no error.
    async fn delete(&self, name: &str) -> Result<(), GetError>;
}

#[async_trait]
impl<S: ObjectStore> Backend for S {
    async fn put_if_absent(&self, name: &str, bytes: Bytes) -> Result<(), RawPutError> {
        let path = Path::parse(name).map_err(|e| RawPutError::Refused(e.to_string()))?;
        let options = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        match self.put_opts(&path, bytes.into(), options).await {
            Ok(_) => Ok(()),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                Err(RawPutError::Exists)
            }
            Err(
                e @ (Error::NotSupported { .. }
                | Error::NotImplemented { .. }
                | Error::InvalidPath { .. }
                | Error::PermissionDenied { .. }
                | Error::Unauthenticated { .. }),
            ) => Err(RawPutError::Refused(e.to_string())),
            Err(e) => Err(RawPutError::Unknown(e.to_string())),
        }
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, GetError> {
        let path = parse(name)?;
        let answer = match range {
            // Nothing asked is nothing read: stores differ about empty ranges.
            Some(range) if range.is_empty() => return Ok(Bytes::new()),
            Some(range) => self.get_range(&path, range).await,
            None => match ObjectStoreExt::get(self, &path).await {
                Ok(found) => found.bytes().await,
                Err(e) => Err(e),
            },
        };
        answer.map_err(|e| read_error(name, e))
    }

    async fn head(&self, name: &str) -> Result<u64, GetError> {
        let found = ObjectStoreExt::head(self, &parse(name)?).await;
        found.map(|meta| meta.size).map_err(|e| read_error(name, e))
    }

    async fn list(&self, directory: &str, deep: bool) -> Result<Vec<Object>, GetError> {
        let path = parse(directory)?;
        let found = if deep {
            ObjectStore::list(self, Some(&path)).try_collect().await
        } else {
            self.list_with_delimiter(Some(&path))
                .await
                .map(|found| found.objects)
        };
        let found: Vec<_> = match found {
            Ok(found) => found,
            // A directory that was never made, on a file system.
            Err(Error::NotFound { .. }) => Vec::new(),
            Err(e) => return Err(read_error(directory, e)),
        };
        let object = |meta: object_store::ObjectMeta| Object {
            name: meta.location.to_string(),
            bytes: meta.size,
        };
        Ok(found.into_iter().map(object).collect())
    }

    async fn delete(&self, name: &str) -> Result<(), GetError> {
        match ObjectStoreExt::delete(self, &parse(name)?).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(read_error(name, e)),
        }
    }
}

fn parse(name: &str) -> Result<Path, GetError> {
    Path::parse(name).map_err(|e| GetError::Unavailable {
        name: name.to_owned(),
        reason: e.to_string(),
    })
}

fn read_error(name: &str, error: Error) -> GetError {
    match error {
        Error::NotFound { .. } => GetError::NotFound(name.to_owned()),
        e => GetError::Unavailable {
            name: name.to_owned(),
            reason: e.to_string(),
        },
    }
}
