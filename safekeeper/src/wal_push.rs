//! The libpq side: commands of computes, pageservers and people.

mod push;

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use ids::{Lsn, TenantId, Term, TimelineId};
use service::libpq::{Conn, Factory, Handler, QueryError, Startup};

use crate::access::{Allowed, Gate};
use crate::timelines::{AccessError, Timelines};
use crate::walsender::{self, Until};

const SYNTAX: &str = "42601";
const UNSUPPORTED: &str = "0A000";
const PROTOCOL: &str = "08P01";
const DENIED: &str = "28P01";

/// Answers with the timelines of this node.
pub struct Commands {
    timelines: Arc<Timelines>,
    gate: Gate,
}

impl Commands {
    /// For those whom `gate` lets in.
    #[must_use]
    pub const fn new(timelines: Arc<Timelines>, gate: Gate) -> Self {
        Self { timelines, gate }
    }
}

impl Factory for Commands {
    fn handler(&self, _peer: SocketAddr) -> Box<dyn Handler> {
        Box::new(Connection {
            timelines: Arc::clone(&self.timelines),
            gate: self.gate.clone(),
            of: None,
            name: String::new(),
            allowed: Allowed { node: false },
        })
    }
}

struct Connection {
    timelines: Arc<Timelines>,
    gate: Gate,
    of: Option<(TenantId, TimelineId)>,
    /// The client's `application_name`.
    name: String,
    allowed: Allowed,
}

#[async_trait]
impl Handler for Connection {
    async fn authenticate(&mut self, startup: &Startup, password: &str) -> Result<(), QueryError> {
        let vanilla = startup.options.get("protocol");
        if vanilla.is_some_and(|p| !p.contains("vanilla")) {
            let message = "only the vanilla protocol is supported yet";
            return Err(QueryError::refused(UNSUPPORTED, message));
        }
        let tenant = startup.options.get("tenant_id");
        let timeline = startup.options.get("timeline_id");
        if let (Some(tenant), Some(timeline)) = (tenant, timeline) {
            let bad = |_| QueryError::refused(SYNTAX, "tenant_id or timeline_id is not an id");
            self.of = Some((tenant.parse().map_err(bad)?, timeline.parse().map_err(bad)?));
        }
        let tenant = self.of.map(|(tenant, _)| tenant);
        let admitted = self.gate.admit(password, tenant);
        self.allowed = admitted.map_err(|e| QueryError::refused(DENIED, e))?;
        let name = startup.parameters.get("application_name");
        let name = name.or_else(|| startup.options.get("application_name"));
        self.name = name.cloned().unwrap_or_default();
        Ok(())
    }

    async fn query(&mut self, conn: &mut Conn, sql: &str) -> Result<(), QueryError> {
        let sql = sql.trim().trim_end_matches(';');
        let (verb, rest) = sql.split_once(char::is_whitespace).unwrap_or((sql, ""));
        match verb.to_ascii_uppercase().as_str() {
            "START_WAL_PUSH" => push::run(conn, &self.timelines, self.of()?, rest).await,
            "START_REPLICATION" => self.replicate(conn, rest).await,
            "IDENTIFY_SYSTEM" => self.identify(conn).await,
            "TIMELINE_STATUS" => self.status(conn).await,
            _ => Err(QueryError::refused(
                UNSUPPORTED,
                "a command that is not known",
            )),
        }
    }
}

impl Connection {
    fn of(&self) -> Result<(TenantId, TimelineId), QueryError> {
        let missing = "tenant_id and timeline_id are missing from the options";
        self.of.ok_or_else(|| QueryError::refused(SYNTAX, missing))
    }

    async fn replicate(&self, conn: &mut Conn, rest: &str) -> Result<(), QueryError> {
        let (from, term) = replication_start(rest)?;
        let (tenant, timeline) = self.of()?;
        let (timeline, _) = self.timelines.get(tenant, timeline).await?;
        let sender = walsender::Sender {
            timeline: &timeline,
            archive: self.timelines.archive(),
            until: term.map_or(Until::Commit, Until::FlushOf),
            reporter: self.reporter(),
        };
        sender.run(conn, from).await
    }

    /// What a client's progress means: a standby's does not say what is in the bucket.
    fn reporter(&self) -> walsender::Reporter {
        walsender::Reporter {
            trusted: self.allowed.node,
            pageserver: self.name.starts_with("pageserver"),
        }
    }

    /// Who recovers a log asks for all of it, also for what is not committed.
    fn recovers(&self) -> bool {
        self.name == "wal_proposer_recovery" || self.name.starts_with("safekeeper")
    }

    async fn identify(&self, conn: &mut Conn) -> Result<(), QueryError> {
        let (tenant, timeline) = self.of()?;
        let (timeline, cluster) = self.timelines.get(tenant, timeline).await?;
        let position = *timeline.position().borrow();
        let end = match self.recovers() {
            true => position.flush,
            false => position.commit,
        };
        let (end, system) = (end.to_string(), cluster.system_id.to_string());
        conn.row_description(&["systemid", "timeline", "xlogpos", "dbname"]);
        conn.data_row(&[
            Some(system.as_bytes()),
            Some(b"1"),
            Some(end.as_bytes()),
            None,
        ]);
        conn.command_complete("IDENTIFY_SYSTEM");
        Ok(())
    }

    async fn status(&self, conn: &mut Conn) -> Result<(), QueryError> {
        let (tenant, timeline) = self.of()?;
        let position = match self.timelines.get(tenant, timeline).await {
            Ok((timeline, _)) => Some(*timeline.position().borrow()),
            Err(AccessError::Unknown(_)) => None,
            Err(error) => return Err(error.into()),
        };
        conn.row_description(&["flush_lsn", "commit_lsn"]);
        if let Some(position) = position {
            let (flush, commit) = (position.flush.to_string(), position.commit.to_string());
            conn.data_row(&[Some(flush.as_bytes()), Some(commit.as_bytes())]);
        }
        conn.command_complete("TIMELINE_STATUS");
        Ok(())
    }
}

/// The value of `name` in `(name 'value', ...)`, with or without `=` between them.
fn option<'a>(options: &'a str, name: &str) -> Option<&'a str> {
    let inner = options.trim().strip_prefix('(')?.strip_suffix(')')?;
    let mut pairs = inner.split(',').map(str::trim);
    pairs.find_map(|pair| {
        let (key, value) = pair.split_once(|c: char| c.is_whitespace() || c == '=')?;
        let value = value.trim_start_matches(|c: char| c.is_whitespace() || c == '=');
        let value = value.trim().strip_prefix('\'')?.strip_suffix('\'')?;
        (key == name).then_some(value)
    })
}

/// Position and term of `[SLOT name] [PHYSICAL] X/X [TIMELINE n] [(term='N')]`.
fn replication_start(rest: &str) -> Result<(Lsn, Option<Term>), QueryError> {
    let (words, options) = rest.split_at(rest.find('(').unwrap_or(rest.len()));
    let position = words.split_whitespace().find(|w| w.contains('/'));
    let position = position.and_then(|w| w.parse().ok());
    let missing = "START_REPLICATION names no position";
    let position = position.ok_or_else(|| QueryError::refused(SYNTAX, missing))?;
    if options.is_empty() {
        return Ok((position, None));
    }
    let term = option(options, "term").and_then(|term| term.parse().ok());
    let unknown = "START_REPLICATION has options that are not known: only (term='N')";
    let term = term.ok_or_else(|| QueryError::refused(UNSUPPORTED, unknown))?;
    Ok((position, Some(Term(term))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_terms_are_read() {
        let start = |text: &str| replication_start(text).ok();
        let at = Lsn(0x149_DB10);
        assert_eq!(start("PHYSICAL 0/149DB10"), Some((at, None)));
        assert_eq!(start("SLOT x 0/149DB10 TIMELINE 1"), Some((at, None)));
        for with_term in ["(term='7')", "(term = '7')", "(term '7')"] {
            let text = format!("PHYSICAL 0/149DB10 {with_term}");
            assert_eq!(start(&text), Some((at, Some(Term(7)))), "{text}");
        }
        for bad in ["PHYSICAL", "0/1 (term='x')", "0/1 (other '1')", "0/1 (term"] {
            assert_eq!(start(bad), None, "{bad}");
        }
    }
}
