//! Whether a bucket keeps the one promise that everything rests on (D4).

use bytes::Bytes;
use futures_util::future::join_all;
use service::entropy::OsEntropy;

use crate::Bucket;
use crate::backend::{GetError, RawPutError};

const WRITERS: usize = 16;
const ROUNDS: usize = 5;

/// A bucket that must not be written to.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Several writers, or none, were told that they put the same name first.
    #[error(
        "the bucket let {winners} of {WRITERS} writers put the same new name: it does not keep \
         If-None-Match, so two writers would overwrite each other; use a bucket that does"
    )]
    NotConditional {
        /// How many.
        winners: usize,
    },
    /// The object is not the one of the writer that was told so.
    #[error("the bucket kept another object than the one whose put it accepted")]
    WrongWinner,
    /// The bucket refuses puts.
    #[error("the bucket refuses to be written to: {0}")]
    Refused(String),
    /// The bucket does not answer: ask again.
    #[error("the bucket does not answer: {0}")]
    Unavailable(String),
}

impl Bucket {
    /// Lets 16 writers put one new name at the same time, five times: each time exactly one may
    /// win, and its bytes have to be there (D4). Every writer does this when it starts.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub async fn probe(&self) -> Result<(), ProbeError> {
        for _ in 0..ROUNDS {
            let id = u128::from_le_bytes(OsEntropy::bytes());
            let name = format!("probe/{id:032x}");
            let held = self.round(&name).await;
            // Where nobody answered, nothing is known to be there.
            let silent = matches!(held, Err(ProbeError::Unavailable(_)));
            if let (Err(error), false) = (self.delete(&name).await, silent) {
                tracing::warn!(%error, "a probe object stays behind");
            }
            held?;
        }
        Ok(())
    }

    async fn round(&self, name: &str) -> Result<(), ProbeError> {
        let bodies: Vec<Bytes> = (0..WRITERS)
            .map(|_| Bytes::copy_from_slice(&OsEntropy::bytes::<32>()))
            .collect();
        let answers = join_all(bodies.iter().map(|body| self.put_once(name, body.clone()))).await;
        let mut winners = Vec::new();
        for (body, answer) in bodies.iter().zip(answers) {
            match answer {
                Ok(()) => winners.push(body),
                Err(RawPutError::Exists) => {}
                Err(RawPutError::Refused(reason)) => return Err(ProbeError::Refused(reason)),
                Err(RawPutError::Unknown(reason)) => return Err(ProbeError::Unavailable(reason)),
            }
        }
        let found = match self.get(name).await {
            Ok(found) => found,
            Err(GetError::NotFound(_)) => return Err(ProbeError::WrongWinner),
            Err(e) => return Err(ProbeError::Unavailable(e.to_string())),
        };
        match winners[..] {
            [winner] if *winner == found => Ok(()),
            // One put may have been sent twice by the client and have met itself.
            [] if bodies.contains(&found) => Ok(()),
            [_] => Err(ProbeError::WrongWinner),
            _ => Err(ProbeError::NotConditional {
                winners: winners.len(),
            }),
        }
    }
}
