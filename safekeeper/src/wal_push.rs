//! The libpq side: commands of computes, pageservers and people.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use ids::{Lsn, TenantId, TimelineId};
use pg::wire::wal_push::ToAcceptor;
use service::libpq::{Conn, Factory, Handler, QueryError, Startup, WireError};

use crate::timeline::Timeline;
use crate::timelines::{AccessError, Timelines};
use crate::walsender;

const SYNTAX: &str = "42601";
const UNSUPPORTED: &str = "0A000";
const PROTOCOL: &str = "08P01";
const UNKNOWN: &str = "42704";
const INTERNAL: &str = "XX000";

/// Answers with the timelines of this node.
pub struct Commands(pub Arc<Timelines>);

impl Factory for Commands {
    fn handler(&self, _peer: SocketAddr) -> Box<dyn Handler> {
        Box::new(Connection {
            timelines: Arc::clone(&self.0),
            of: None,
        })
    }
}

struct Connection {
    timelines: Arc<Timelines>,
    of: Option<(TenantId, TimelineId)>,
}

#[async_trait]
impl Handler for Connection {
    /// Nobody is asked who they are yet: that is why the server stays on loopback.
    async fn authenticate(&mut self, startup: &Startup, _: &str) -> Result<(), QueryError> {
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
        Ok(())
    }

    async fn query(&mut self, conn: &mut Conn, sql: &str) -> Result<(), QueryError> {
        let sql = sql.trim().trim_end_matches(';');
        let (verb, rest) = sql.split_once(char::is_whitespace).unwrap_or((sql, ""));
        match verb.to_ascii_uppercase().as_str() {
            "START_WAL_PUSH" => self.wal_push(conn, rest).await,
            "START_REPLICATION" => {
                let from = replication_start(rest)?;
                let (timeline, _) = self.timelines.get(self.of()?.0, self.of()?.1).await?;
                walsender::send(conn, &timeline, from).await
            }
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

    async fn identify(&self, conn: &mut Conn) -> Result<(), QueryError> {
        let (tenant, timeline) = self.of()?;
        let (timeline, cluster) = self.timelines.get(tenant, timeline).await?;
        let commit = timeline.position().borrow().commit.to_string();
        let system = cluster.system_id.to_string();
        conn.row_description(&["systemid", "timeline", "xlogpos", "dbname"]);
        conn.data_row(&[
            Some(system.as_bytes()),
            Some(b"1"),
            Some(commit.as_bytes()),
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

    async fn wal_push(&self, conn: &mut Conn, options: &str) -> Result<(), QueryError> {
        if option(options, "proto_version") != Some("3") {
            let message = "only proto_version '3' is supported";
            return Err(QueryError::refused(UNSUPPORTED, message));
        }
        let create = option(options, "allow_timeline_creation") != Some("false");
        let of = self.of()?;
        conn.copy_both().await?;
        let Some(first) = read_message(conn).await? else {
            return Ok(());
        };
        let ToAcceptor::Greeting(greeting) = &first else {
            return Err(QueryError::refused(PROTOCOL, "a greeting was expected"));
        };
        if (greeting.tenant, greeting.timeline) != of {
            let message = "the greeting names another timeline than the connection";
            return Err(QueryError::refused(PROTOCOL, message));
        }
        let timeline = match self.timelines.greet(greeting, create).await {
            // Computes tell this case by the connection that closes without an error.
            Err(AccessError::Unknown(_)) => return Err(WireError::Closed.into()),
            greeted => greeted?,
        };
        let mut next = Some(first);
        while let Some(message) = next {
            answer(conn, &timeline, message).await?;
            next = read_message(conn).await?;
        }
        conn.copy_done();
        conn.command_complete("COPY 0");
        Ok(())
    }
}

async fn read_message(conn: &mut Conn) -> Result<Option<ToAcceptor>, QueryError> {
    let Some(bytes) = conn.read_copy().await? else {
        return Ok(None);
    };
    let message = ToAcceptor::decode(bytes).map_err(|e| QueryError::refused(PROTOCOL, e))?;
    Ok(Some(message))
}

async fn answer(
    conn: &mut Conn,
    timeline: &Timeline,
    message: ToAcceptor,
) -> Result<(), QueryError> {
    let answers = timeline.handle(message).await;
    let answers = answers.map_err(|e| QueryError::refused(INTERNAL, e))?;
    for message in answers.messages {
        conn.write_copy(&message.encode()).await?;
    }
    if let Some(refusal) = answers.refusal {
        conn.error(INTERNAL, &refusal.to_string());
        conn.flush().await?;
        return Err(WireError::Closed.into());
    }
    Ok(conn.flush().await?)
}

impl From<AccessError> for QueryError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Unknown(_) => Self::refused(UNKNOWN, error),
            AccessError::Version(_) | AccessError::SegmentBytes(_) => {
                Self::refused(UNSUPPORTED, error)
            }
            _ => Self::refused(INTERNAL, error),
        }
    }
}

/// The value of `name` in `(name 'value', ...)`.
fn option<'a>(options: &'a str, name: &str) -> Option<&'a str> {
    let inner = options.trim().strip_prefix('(')?.strip_suffix(')')?;
    let mut pairs = inner.split(',').map(str::trim);
    pairs.find_map(|pair| {
        let (key, value) = pair.split_once(char::is_whitespace)?;
        let value = value.trim().strip_prefix('\'')?.strip_suffix('\'')?;
        (key == name).then_some(value)
    })
}

/// The position in `[SLOT name] [PHYSICAL] X/X [TIMELINE n]`.
fn replication_start(rest: &str) -> Result<Lsn, QueryError> {
    if rest.contains('(') {
        let message = "START_REPLICATION with options is not supported yet";
        return Err(QueryError::refused(UNSUPPORTED, message));
    }
    let position = rest.split_whitespace().find(|w| w.contains('/'));
    let position = position.and_then(|w| w.parse().ok());
    position.ok_or_else(|| QueryError::refused(SYNTAX, "START_REPLICATION names no position"))
}
