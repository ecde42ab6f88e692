//! The customers' key management services.

pub mod aws;
pub mod local;

use async_trait::async_trait;
use ids::{KekId, KekVersion, TenantId};
use sealed::Kek;

use crate::class::ErrorClass;

/// What a wrapped KEK is bound to; stands in clear in the KMS's own log, so nothing of it is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The tenant.
    pub tenant: TenantId,
    /// Its KEK.
    pub kek: KekId,
    /// The version of that KEK.
    pub version: KekVersion,
}

/// A KMS refused, or could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the KMS does not serve the key ({class:?}): {detail}")]
pub struct KmsError {
    /// What it means.
    pub class: ErrorClass,
    /// What the provider said.
    pub detail: String,
}

/// One key of one KMS.
#[async_trait]
pub trait Kms: Send + Sync {
    /// Makes a KEK and hands it out wrapped under the key's current version alone: its plaintext
    /// is seen only when it is opened (K10).
    async fn generate(&self, context: &Context) -> Result<Vec<u8>, KmsError>;

    /// Opens a wrapped KEK; fails where the context is another one.
    async fn unwrap(&self, context: &Context, wrapped: &[u8]) -> Result<Kek, KmsError>;

    /// The state of the key in the provider's words, for people only: it does not see policies.
    async fn describe(&self) -> Result<String, KmsError>;
}
