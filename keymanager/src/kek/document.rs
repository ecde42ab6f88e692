//! What stands in a KEK document: the wrapped KEK, and in clear whom to ask for it (K10).

use ids::{KekId, KekVersion, TenantId};
use serde::{Deserialize, Serialize};

use crate::kms::Context;

const FORMAT: u32 = 1;

/// A KEK as it was wrapped once. Nothing of it is secret: the wrapped KEK is ciphertext of the
/// customer's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The version of this format.
    format: u32,
    /// The kind of KMS.
    pub provider: String,
    /// The key there, in the provider's words.
    pub key: String,
    /// The tenant.
    pub tenant: TenantId,
    /// The KEK.
    pub kek: KekId,
    /// Its version.
    pub version: KekVersion,
    /// The ciphertext, in hexadecimal digits.
    wrapped: String,
    /// Random, so that no two writers write the same bytes (D3).
    nonce: String,
    /// When it was wrapped, in seconds since 1970.
    pub created_unix: u64,
}

/// Why bytes are no KEK document.
#[derive(Debug, thiserror::Error)]
pub enum BadDocument {
    /// No JSON of this form.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Of a later version.
    #[error("format {0} is not known")]
    Format(u32),
    /// It was put under the name of another one.
    #[error("it is of tenant {tenant}, version {version}")]
    Other {
        /// The tenant that it names.
        tenant: TenantId,
        /// The version that it names.
        version: KekVersion,
    },
    /// The ciphertext is not in hexadecimal digits.
    #[error("its ciphertext: {0}")]
    Hex(#[from] hex::FromHexError),
}

impl Document {
    /// A document of `context`, as wrapped by `key` of `provider`.
    #[must_use]
    pub fn new(
        context: &Context,
        provider: &super::Provider,
        wrapped: &[u8],
        nonce: [u8; 16],
        created_unix: u64,
    ) -> Self {
        Self {
            format: FORMAT,
            provider: provider.kind.clone(),
            key: provider.key.clone(),
            tenant: context.tenant,
            kek: context.kek,
            version: context.version,
            wrapped: hex::encode(wrapped),
            nonce: hex::encode(nonce),
            created_unix,
        }
    }

    /// Reads the document that stands under the name of `tenant` and `version`.
    ///
    /// # Errors
    /// [`BadDocument`] for anything else.
    pub fn decode(
        bytes: &[u8],
        tenant: TenantId,
        version: KekVersion,
    ) -> Result<Self, BadDocument> {
        let document: Self = serde_json::from_slice(bytes)?;
        if document.format != FORMAT {
            return Err(BadDocument::Format(document.format));
        }
        if (document.tenant, document.version) != (tenant, version) {
            return Err(BadDocument::Other {
                tenant: document.tenant,
                version: document.version,
            });
        }
        document.wrapped()?;
        Ok(document)
    }

    /// What the KMS has to be told.
    #[must_use]
    pub const fn context(&self) -> Context {
        Context {
            tenant: self.tenant,
            kek: self.kek,
            version: self.version,
        }
    }

    /// The ciphertext.
    ///
    /// # Errors
    /// Never after [`Self::decode`].
    pub fn wrapped(&self) -> Result<Vec<u8>, hex::FromHexError> {
        hex::decode(&self.wrapped)
    }
}
