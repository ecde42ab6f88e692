//! Revocations by request: numbered documents beside the KEKs, so that they outlive every
//! keymanager and each of them obeys the newest (K7).

use api::keys::{Request, Requested};
use bytes::Bytes;
use ids::TenantId;
use serde::{Deserialize, Serialize};
use service::entropy::OsEntropy;
use store::Bucket;
use store::documents::{PutNextError, Series, latest, put_next};
use store::names::Cell;

const FORMAT: u32 = 1;
const FIRST: u64 = 1;
/// How often a put is repeated that another writer won, or whose answer was lost.
const TRIES: u32 = 4;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    tenant: TenantId,
    /// Random, so that a writer knows its own document again (D3).
    nonce: String,
    requested: Requested,
}

/// Why a request is not known, or not written.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The bucket does not answer.
    #[error("the requests of tenant {tenant}: {reason}")]
    Bucket {
        /// The tenant.
        tenant: TenantId,
        /// Why.
        reason: String,
    },
    /// The newest document does not say what it has to.
    #[error("the newest request of tenant {tenant}, number {number}, is damaged")]
    Damaged {
        /// The tenant.
        tenant: TenantId,
        /// Its number.
        number: u64,
    },
}

/// The requests of one tenant.
pub struct Requests {
    bucket: Bucket,
    series: Series,
    tenant: TenantId,
}

impl Requests {
    /// Those of `tenant` in `cell`.
    #[must_use]
    pub fn new(bucket: Bucket, cell: &Cell, tenant: TenantId) -> Self {
        Self {
            bucket,
            series: Series::new(cell.keys(tenant), "request", ".json"),
            tenant,
        }
    }

    /// The newest request; `None` where there was never one.
    ///
    /// # Errors
    /// [`RequestError`]: then nothing may be concluded, least of all that there is none.
    pub async fn newest(&self) -> Result<Option<Requested>, RequestError> {
        Ok(self.newest_document().await?.map(|found| found.requested))
    }

    /// Writes a request behind all others and reads back what stands there then. Where the newest
    /// already says the same, nothing is written.
    ///
    /// # Errors
    /// [`RequestError`]; the request may stand there nevertheless.
    pub async fn write(
        &self,
        revoked: bool,
        request: &Request,
        at_ms: u64,
    ) -> Result<Option<Requested>, RequestError> {
        let nonce = hex::encode(OsEntropy::bytes::<16>());
        let mut last = None;
        for _ in 0..TRIES {
            let newest = self.newest_document().await?;
            let now = newest.as_ref().is_some_and(|d| d.requested.revoked);
            if now == revoked {
                // Ours from a try before, or somebody else's: it is in force either way.
                return Ok(newest.map(|found| found.requested));
            }
            let number = newest.map_or(FIRST, |found| found.requested.number + 1);
            let document = Document {
                format: FORMAT,
                tenant: self.tenant,
                nonce: nonce.clone(),
                requested: Requested {
                    number,
                    revoked,
                    reason: request.reason.clone(),
                    by: request.by.clone(),
                    at_ms,
                },
            };
            let bytes = serde_json::to_vec_pretty(&document).map_err(|e| self.failed(e))?;
            match put_next(&self.bucket, &self.series, number, Bytes::from(bytes)).await {
                Ok(()) => return Ok(Some(document.requested)),
                Err(PutNextError::Refused(reason)) => return Err(self.failed(reason)),
                Err(error) => last = Some(self.failed(error)),
            }
        }
        Err(last.unwrap_or_else(|| self.failed("other writers were faster")))
    }

    async fn newest_document(&self) -> Result<Option<Document>, RequestError> {
        let found = latest(&self.bucket, &self.series).await;
        let Some((number, bytes)) = found.map_err(|e| self.failed(e))? else {
            return Ok(None);
        };
        let tenant = self.tenant;
        match serde_json::from_slice::<Document>(&bytes) {
            Ok(document)
                if (document.format, document.tenant, document.requested.number)
                    == (FORMAT, tenant, number) =>
            {
                Ok(Some(document))
            }
            _ => Err(RequestError::Damaged { tenant, number }),
        }
    }

    fn failed(&self, reason: impl ToString) -> RequestError {
        RequestError::Bucket {
            tenant: self.tenant,
            reason: reason.to_string(),
        }
    }
}
