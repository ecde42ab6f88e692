//! A bucket that fails where a test wants it to.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::backend::{Backend, GetError, Object, RawPutError};

/// What is asked of the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A put.
    Put,
    /// A read, of a whole object or a range.
    Get,
    /// A length.
    Head,
    /// A list.
    List,
    /// A deletion.
    Delete,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not at all.
    None,
    /// Nothing reaches the bucket.
    Lost,
    /// The bucket acts, and its answer is lost.
    AnswerLost,
    /// Puts only: the condition is ignored, as by servers that do not know it. The bucket says
    /// yes whatever is there.
    ConditionIgnored,
}

/// Decides for each operation and name.
pub type Faults = Arc<dyn Fn(Operation, &str) -> Fault + Send + Sync>;

pub(crate) struct Faulty {
    inner: Arc<dyn Backend>,
    faults: Faults,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn Backend>, faults: Faults) -> Self {
        Self { inner, faults }
    }

    async fn read<T>(
        &self,
        operation: Operation,
        name: &str,
        act: impl Future<Output = Result<T, GetError>> + Send,
    ) -> Result<T, GetError> {
        let fault = (self.faults)(operation, name);
        if fault == Fault::AnswerLost {
            drop(act.await);
        } else if fault != Fault::Lost {
            return act.await;
        }
        Err(GetError::Unavailable {
            name: name.to_owned(),
            reason: "injected".to_owned(),
        })
    }
}

#[async_trait]
impl Backend for Faulty {
    async fn put_if_absent(&self, name: &str, bytes: Bytes) -> Result<(), RawPutError> {
        let lost = || Err(RawPutError::Unknown("injected".to_owned()));
        match (self.faults)(Operation::Put, name) {
            Fault::None => self.inner.put_if_absent(name, bytes).await,
            Fault::Lost => lost(),
            Fault::AnswerLost => {
                drop(self.inner.put_if_absent(name, bytes).await);
                lost()
            }
            Fault::ConditionIgnored => match self.inner.put_if_absent(name, bytes).await {
                Err(RawPutError::Exists) => Ok(()),
                other => other,
            },
        }
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, GetError> {
        self.read(Operation::Get, name, self.inner.get(name, range))
            .await
    }

    async fn head(&self, name: &str) -> Result<u64, GetError> {
        self.read(Operation::Head, name, self.inner.head(name))
            .await
    }

    async fn list(&self, directory: &str, deep: bool) -> Result<Vec<Object>, GetError> {
        self.read(Operation::List, directory, self.inner.list(directory, deep))
            .await
    }

    async fn delete(&self, name: &str) -> Result<(), GetError> {
        self.read(Operation::Delete, name, self.inner.delete(name))
            .await
    }
}
