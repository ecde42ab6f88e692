//! Who may do what: a token as libpq password, or as bearer of an HTTP request.

use ids::TenantId;
use service::token::{Scope, TokenError, Verifier};

/// Believes tokens, or everybody on this machine where no key is configured.
#[derive(Clone)]
pub struct Gate(pub Option<Verifier>);

/// What somebody is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// Whether it is a node of the storage: only these report what may be trimmed.
    pub node: bool,
}

/// A password that opens nothing.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// It is one of somebody else.
    #[error("the token does not allow this tenant")]
    Tenant,
}

impl Gate {
    /// What the bearer of `token` may do for `tenant`.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn admit(&self, token: &str, tenant: Option<TenantId>) -> Result<Allowed, Denied> {
        let Some(verifier) = &self.0 else {
            return Ok(Allowed { node: true });
        };
        let claims = verifier.verify(token)?;
        let node = claims.allow(Scope::Node, tenant);
        if node || claims.allow(Scope::Tenant, tenant) {
            Ok(Allowed { node })
        } else {
            Err(Denied::Tenant)
        }
    }
}
