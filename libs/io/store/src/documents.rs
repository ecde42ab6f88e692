//! Documents that change: sequences of objects, each put if absent (D3).

use bytes::Bytes;

use crate::{Bucket, GetError, PutError};

/// The objects of one document.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Series {
    directory: String,
    stem: String,
    suffix: &'static str,
}

impl Series {
    /// Objects `<directory>/<stem>-<number><suffix>`.
    #[must_use]
    pub fn new(directory: String, stem: impl Into<String>, suffix: &'static str) -> Self {
        Self {
            directory,
            stem: stem.into(),
            suffix,
        }
    }

    /// The name of the object `n`: the first name of a list is the newest.
    #[must_use]
    pub fn name(&self, n: u64) -> String {
        format!(
            "{}/{}-{:016x}{}",
            self.directory,
            self.stem,
            u64::MAX - n,
            self.suffix
        )
    }

    /// The number in a name of this series.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        let digits = name
            .strip_prefix(self.directory.as_str())?
            .strip_prefix('/')?
            .strip_prefix(self.stem.as_str())?
            .strip_prefix('-')?
            .strip_suffix(self.suffix)?;
        let n = u64::MAX - u64::from_str_radix(digits, 16).ok()?;
        // Another text of the same number is not ours.
        (self.name(n) == name).then_some(n)
    }
}

/// A document that was not put.
#[derive(Debug, thiserror::Error)]
pub enum PutNextError {
    /// Somebody else has put this number, or a higher one: stop serving, deleting and reporting
    /// (D1).
    #[error("another writer has put number {newest}")]
    Lost {
        /// The highest number known.
        newest: u64,
    },
    /// Not decided: the document may be there. Ask again with the same number and bytes.
    #[error("nobody knows whether the document was put: {0}")]
    Unknown(String),
    /// The bucket refuses.
    #[error("the bucket refuses the document: {0}")]
    Refused(String),
}

/// The numbers that are there, the newest first.
///
/// # Errors
/// See [`GetError`].
pub async fn numbers(bucket: &Bucket, series: &Series) -> Result<Vec<u64>, GetError> {
    let found = bucket.list_directory(&series.directory).await?;
    Ok(found
        .iter()
        .filter_map(|object| series.number(&object.name))
        .collect())
}

/// The newest object of a document; `None` where it was never put.
///
/// # Errors
/// See [`GetError`].
pub async fn latest(bucket: &Bucket, series: &Series) -> Result<Option<(u64, Bytes)>, GetError> {
    const TRIES: usize = 3;
    let mut last = None;
    for _ in 0..TRIES {
        let Some(&newest) = numbers(bucket, series).await?.first() else {
            return Ok(None);
        };
        match bucket.get(&series.name(newest)).await {
            Ok(bytes) => return Ok(Some((newest, bytes))),
            // A writer that found itself stale has removed it in between.
            Err(e @ GetError::NotFound(_)) => last = Some(e),
            Err(e) => return Err(e),
        }
    }
    last.map_or(Ok(None), Err)
}

/// Puts the object `n`. The bytes carry their writer's nonce. Only after this returned may
/// anything be concluded from the document (D2).
///
/// # Errors
/// See [`PutNextError`].
pub async fn put_next(
    bucket: &Bucket,
    series: &Series,
    n: u64,
    bytes: Bytes,
) -> Result<(), PutNextError> {
    let name = series.name(n);
    match bucket.put_if_absent(&name, bytes).await {
        Ok(()) => {}
        Err(PutError::NotApplied { exists: true, .. }) => {
            let newest = numbers(bucket, series)
                .await
                .ok()
                .and_then(|all| all.first().copied());
            return Err(PutNextError::Lost {
                newest: newest.unwrap_or(n).max(n),
            });
        }
        Err(PutError::NotApplied { reason, .. }) => return Err(PutNextError::Refused(reason)),
        Err(PutError::Unknown { reason, .. }) => return Err(PutNextError::Unknown(reason)),
    }
    // The number may have been free because it was pruned long ago (D3).
    let all = numbers(bucket, series)
        .await
        .map_err(|e| PutNextError::Unknown(e.to_string()))?;
    match all.first() {
        Some(&newest) if newest > n => {
            // Stale is stale, whether or not what was put can be taken back now (D1): a number
            // below the highest is never read as the newest.
            if let Err(error) = bucket.delete(&name).await {
                tracing::warn!(%name, %error, "a stale document stays until it is pruned");
            }
            Err(PutNextError::Lost { newest })
        }
        _ => Ok(()),
    }
}

/// Removes numbers below `keep_from`, but never one of the newest `spare` (at least one).
///
/// # Errors
/// See [`GetError`].
pub async fn prune(
    bucket: &Bucket,
    series: &Series,
    keep_from: u64,
    spare: usize,
) -> Result<usize, GetError> {
    let mut removed = 0;
    for n in numbers(bucket, series)
        .await?
        .into_iter()
        .skip(spare.max(1))
    {
        if n < keep_from {
            bucket.delete(&series.name(n)).await?;
            removed += 1;
        }
    }
    Ok(removed)
}
