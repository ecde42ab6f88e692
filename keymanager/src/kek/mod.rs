//! KEKs: documents in the bucket that hold them wrapped, and the opened ones in memory (K9, K10).
//!
//! A KEK reaches memory in one way only: its document is read from the bucket and opened by the
//! KMS. That holds for one that was minted a moment ago, too, so nothing is ever wrapped under a
//! KEK whose document is not there.

mod document;
mod documents;
mod ring;
#[cfg(test)]
mod tests;

pub use document::{BadDocument, Document};
pub use documents::{KekDocuments, Provider};
pub use ring::{KekRing, Opened};

use ids::{KekVersion, TenantId};
use locked::NoLockedMemory;

use crate::kms::KmsError;

/// Why there is no KEK.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// The KMS refused, cannot be asked, or cannot open the document.
    #[error("KEK version {version} of tenant {tenant}: {source}")]
    Kms {
        /// The tenant.
        tenant: TenantId,
        /// The version that was asked for.
        version: KekVersion,
        /// What the KMS said.
        #[source]
        source: KmsError,
    },
    /// The document does not say what it has to.
    #[error("the KEK document {name} is damaged: {source}")]
    Damaged {
        /// Its name in the bucket.
        name: String,
        /// What is wrong.
        #[source]
        source: BadDocument,
    },
    /// The KMS cannot open a document that it once wrapped.
    #[error("the KEK document {name} does not open: {source}")]
    DoesNotOpen {
        /// Its name in the bucket.
        name: String,
        /// What the KMS said.
        #[source]
        source: KmsError,
    },
    /// The bucket has no document of this version.
    #[error("tenant {tenant} has no KEK of version {version}")]
    Missing {
        /// The tenant.
        tenant: TenantId,
        /// The version.
        version: KekVersion,
    },
    /// The version is below the lowest that is accepted, or the bucket went back in time (K10).
    #[error("KEK version {version} of tenant {tenant} is below {bound}")]
    TooLow {
        /// The tenant.
        tenant: TenantId,
        /// The version.
        version: KekVersion,
        /// What it has to reach.
        bound: KekVersion,
    },
    /// There is no version above this one.
    #[error("tenant {0} has used up the versions of its KEK")]
    UsedUp(TenantId),
    /// The bucket does not answer, or nobody knows whether the document was put.
    #[error("the KEK documents of tenant {tenant}: {reason}")]
    Bucket {
        /// The tenant.
        tenant: TenantId,
        /// Why.
        reason: String,
    },
    /// It would have no place (K9).
    #[error("a KEK has no place: {0}")]
    NoMemory(#[source] NoLockedMemory),
    /// The tenant was fenced while its KEK was opened: the KEK is gone again.
    #[error("tenant {0} was fenced in the meantime")]
    Fenced(TenantId),
}
