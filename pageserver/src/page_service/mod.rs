//! The libpq side: commands of computes.

mod backup_out;
mod pagestream;

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use ids::{Lsn, TenantId, TimelineId};
use pg::wire::pagestream::Version;
use service::libpq::{Conn, Factory, Handler, QueryError, Startup};
use service::token::{Claims, Scope, Verifier};

use crate::refusal::Refusal;
use crate::tenants::Tenants;

const UNSUPPORTED: &str = "0A000";
const BAD_PASSWORD: &str = "28P01";

/// Answers with the timelines of this node.
pub(crate) struct Commands {
    pub(crate) tenants: Arc<Tenants>,
    /// Who checks tokens; `None` where everybody is believed.
    pub(crate) verifier: Option<Verifier>,
}

impl Factory for Commands {
    fn handler(&self, _peer: SocketAddr) -> Box<dyn Handler> {
        Box::new(Connection {
            tenants: Arc::clone(&self.tenants),
            verifier: self.verifier.clone(),
            claims: None,
        })
    }
}

struct Connection {
    tenants: Arc<Tenants>,
    verifier: Option<Verifier>,
    claims: Option<Claims>,
}

#[async_trait]
impl Handler for Connection {
    async fn authenticate(&mut self, _: &Startup, password: &str) -> Result<(), QueryError> {
        if let Some(verifier) = &self.verifier {
            let claims = verifier.verify(password);
            self.claims = Some(claims.map_err(|e| QueryError::refused(BAD_PASSWORD, e))?);
        }
        Ok(())
    }

    async fn query(&mut self, conn: &mut Conn, sql: &str) -> Result<(), QueryError> {
        let words: Vec<&str> = sql
            .trim()
            .trim_end_matches(';')
            .split_ascii_whitespace()
            .collect();
        let (verb, rest) = words.split_first().unwrap_or((&"", &[]));
        match verb.to_ascii_lowercase().as_str() {
            "pagestream_v2" => self.pagestream(conn, Version::V2, rest).await,
            "pagestream_v3" => self.pagestream(conn, Version::V3, rest).await,
            "basebackup" => self.backup(conn, rest, false).await,
            "fullbackup" => self.backup(conn, rest, true).await,
            "set" => {
                conn.command_complete("SELECT 1");
                Ok(())
            }
            _ => Err(QueryError::refused(
                UNSUPPORTED,
                "a command that is not known here",
            )),
        }
    }
}

impl Connection {
    /// The timeline that a command names, where its token allows that.
    fn timeline<'a>(
        &self,
        words: &'a [&'a str],
    ) -> Result<(TenantId, TimelineId, &'a [&'a str]), Refusal> {
        let [tenant, timeline, rest @ ..] = words else {
            return Err(Refusal::syntax("the command names no tenant and timeline"));
        };
        let (tenant, timeline) = (parse(tenant)?, parse(timeline)?);
        let allowed = match (&self.verifier, &self.claims) {
            (None, _) => true,
            (Some(_), claims) => claims
                .as_ref()
                .is_some_and(|claims| claims.allow(Scope::Tenant, Some(tenant))),
        };
        if allowed {
            Ok((tenant, timeline, rest))
        } else {
            Err(Refusal::forbidden(format!(
                "the token does not allow to work for tenant {tenant}"
            )))
        }
    }

    async fn pagestream(
        &self,
        conn: &mut Conn,
        version: Version,
        words: &[&str],
    ) -> Result<(), QueryError> {
        let (tenant, timeline, rest) = self.timeline(words)?;
        if !rest.is_empty() {
            return Err(Refusal::syntax("a page stream takes a tenant and a timeline").into());
        }
        pagestream::serve(&self.tenants, (tenant, timeline), version, conn).await
    }

    async fn backup(&self, conn: &mut Conn, words: &[&str], full: bool) -> Result<(), QueryError> {
        let (tenant, timeline, rest) = self.timeline(words)?;
        let at = match rest {
            [] | ["latest"] => None,
            [at] if !at.starts_with('-') => Some(parse::<Lsn>(at)?),
            _ => {
                let message = "only an LSN is understood here: no compression, no replicas yet";
                return Err(QueryError::refused(UNSUPPORTED, message));
            }
        };
        backup_out::serve(&self.tenants, (tenant, timeline), at, full, conn).await
    }
}

fn parse<T: FromStr<Err: std::fmt::Display>>(word: &str) -> Result<T, Refusal> {
    word.parse().map_err(Refusal::syntax)
}
