//! Tokens: EdDSA JWTs that say what their bearer may do, for which tenant, until when.

use std::path::Path;

use ids::{Generation, NodeId, TenantId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

/// What a bearer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Work of one tenant: its compute.
    Tenant,
    /// One node of the storage to another.
    Node,
    /// Operators and the control plane: every request, every tenant.
    Admin,
}

/// Where a node serves: who shows the token is this node, and as it was placed for the
/// `generation`-th time (K4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// The node.
    pub node: NodeId,
    /// Grows with every placement of the node; an older one gets no renewal.
    pub generation: Generation,
}

/// The content of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The only tenant that the bearer may touch; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// What it may do.
    pub scope: Scope,
    /// Unix seconds of its end.
    pub exp: u64,
    /// Without one the bearer holds no leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

impl Claims {
    /// Whether the bearer may do work of `scope` for `tenant` (`None`: for the whole node).
    #[must_use]
    pub fn allow(&self, scope: Scope, tenant: Option<TenantId>) -> bool {
        let enough = match self.scope {
            Scope::Admin => true,
            Scope::Node => scope != Scope::Admin,
            // A tenant's token without a tenant would open all of them.
            Scope::Tenant => scope == Scope::Tenant && self.tenant.is_some(),
        };
        enough && self.tenant.is_none_or(|own| tenant == Some(own))
    }
}

/// A key file that cannot be used, or a token that is refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The key file is missing or no Ed25519 key.
    #[error("cannot use {path} as token key: {reason}")]
    BadKey {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// The token is malformed, forged or over.
    #[error("the token is refused: {0}")]
    Refused(#[source] jsonwebtoken::errors::Error),
}

fn read(path: &Path) -> Result<Vec<u8>, TokenError> {
    std::fs::read(path).map_err(|e| bad_key(path, e.to_string()))
}

fn bad_key(path: &Path, reason: String) -> TokenError {
    TokenError::BadKey {
        path: path.display().to_string(),
        reason,
    }
}

/// Makes tokens.
pub struct Signer(EncodingKey);

impl Signer {
    /// With the private key (PKCS#8 PEM) at `path`.
    ///
    /// # Errors
    /// [`TokenError::BadKey`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, TokenError> {
        let path = path.as_ref();
        EncodingKey::from_ed_pem(&read(path)?)
            .map(Self)
            .map_err(|e| bad_key(path, e.to_string()))
    }

    /// A token with `claims`.
    ///
    /// # Errors
    /// [`TokenError::Refused`] where the key cannot sign.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &self.0)
            .map_err(TokenError::Refused)
    }
}

/// Checks tokens.
#[derive(Clone)]
pub struct Verifier {
    key: DecodingKey,
    rules: Validation,
}

impl Verifier {
    /// With the public key (SPKI PEM) at `path`.
    ///
    /// # Errors
    /// [`TokenError::BadKey`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, TokenError> {
        let path = path.as_ref();
        let key =
            DecodingKey::from_ed_pem(&read(path)?).map_err(|e| bad_key(path, e.to_string()))?;
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.leeway = 5;
        rules.validate_aud = false;
        Ok(Self { key, rules })
    }

    /// What `token` allows.
    ///
    /// # Errors
    /// [`TokenError::Refused`].
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        jsonwebtoken::decode(token, &self.key, &self.rules)
            .map(|data| data.claims)
            .map_err(TokenError::Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn keys(directory: &Path) -> (Signer, Verifier) {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let (private, public) = (directory.join("private.pem"), directory.join("public.pem"));
        std::fs::write(&private, pair.serialize_pem()).unwrap();
        std::fs::write(&public, pair.public_key_pem()).unwrap();
        (
            Signer::load(private).unwrap(),
            Verifier::load(public).unwrap(),
        )
    }

    #[test]
    fn tokens_are_believed_only_unchanged_of_their_key_and_in_time() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ((signer, verifier), (stranger, _)) = (keys(one.path()), keys(two.path()));
        let mut claims = Claims {
            tenant: Some(TenantId([3; 16])),
            scope: Scope::Tenant,
            exp: clock::unix_seconds() + 60,
            placement: Some(Placement {
                node: NodeId(4),
                generation: Generation(2),
            }),
        };
        let token = signer.sign(&claims).unwrap();
        assert_eq!(verifier.verify(&token).unwrap(), claims);
        assert!(verifier.verify(&stranger.sign(&claims).unwrap()).is_err());
        claims.exp = clock::unix_seconds() - 60;
        assert!(verifier.verify(&signer.sign(&claims).unwrap()).is_err());
        assert!(verifier.verify("").is_err());
    }

    #[test]
    fn a_tenant_token_opens_its_tenant_only() {
        let own = TenantId([3; 16]);
        let claims = |scope, tenant| Claims {
            tenant,
            scope,
            exp: 0,
            placement: None,
        };
        assert!(claims(Scope::Tenant, Some(own)).allow(Scope::Tenant, Some(own)));
        assert!(!claims(Scope::Tenant, Some(own)).allow(Scope::Tenant, Some(TenantId([4; 16]))));
        assert!(!claims(Scope::Tenant, Some(own)).allow(Scope::Tenant, None));
        assert!(!claims(Scope::Tenant, Some(own)).allow(Scope::Node, Some(own)));
        assert!(!claims(Scope::Tenant, None).allow(Scope::Tenant, Some(own)));
        assert!(!claims(Scope::Node, None).allow(Scope::Admin, None));
        assert!(claims(Scope::Admin, None).allow(Scope::Node, Some(own)));
    }
}
