//! Who asks for leases and keys: a node, as its token places it, checked without asking anybody
//! (K4).

use api::Grade;
use axum::http::HeaderMap;
use ids::{Generation, NodeId, TenantId};
use service::http::{ApiError, allow, bearer};
use service::token::{Claims, Scope};

use super::Keymanager;

/// A node whose token was read.
pub(super) struct Placed {
    pub(super) node: NodeId,
    pub(super) generation: Generation,
    /// None where no tokens are checked.
    claims: Option<Claims>,
}

impl Placed {
    /// Whether it may do work of `scope` for `tenant`.
    ///
    /// # Errors
    /// Its token does not allow that.
    pub(super) fn allow(&self, scope: Scope, tenant: TenantId) -> Result<(), ApiError> {
        match &self.claims {
            Some(claims) => allow(claims, scope, Some(tenant)),
            None => Ok(()),
        }
    }
}

impl Keymanager {
    /// The sender of a request that says that it is `node`.
    ///
    /// # Errors
    /// The token is missing, refused, places nobody, or places another node.
    pub(super) fn place(&self, headers: &HeaderMap, node: NodeId) -> Result<Placed, ApiError> {
        let Some(verifier) = &self.verifier else {
            return Ok(Placed {
                node,
                generation: Generation::default(),
                claims: None,
            });
        };
        let claims = bearer(headers, verifier)?;
        let refuse = |why: String| Err(ApiError::new(Grade::FixRequest, why));
        match claims.placement {
            None => refuse("the token places no node".to_owned()),
            Some(placed) if placed.node != node => {
                let own = placed.node;
                refuse(format!("the token is of node {own}, the request of {node}"))
            }
            Some(placed) => Ok(Placed {
                node,
                generation: placed.generation,
                claims: Some(claims),
            }),
        }
    }
}
