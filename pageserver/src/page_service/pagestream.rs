//! A stream of requests for pages. Answers come in the order of the requests; a request that
//! fails is answered by its reason, and the stream goes on.

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use ids::{Lsn, SlruKind, TenantId, TimelineId};
use pg::wire::pagestream::{Answer, Ask, Request, Version};
use service::libpq::{Conn, QueryError, WireError};
use tokio::time::Instant;

use crate::metrics;
use crate::refusal::Refusal;
use crate::tenants::{Attached, Tenants};
use crate::timeline::Timeline;

/// Requests that are answered together: one flush for all of them.
const BATCH: usize = 32;
/// Of these, how many are worked on at one time.
const AT_ONCE: usize = 8;
const PROTOCOL: &str = "08P01";

/// Answers until the client ends the stream.
pub(super) async fn serve(
    tenants: &Tenants,
    of: (TenantId, TimelineId),
    version: Version,
    conn: &mut Conn,
) -> Result<(), QueryError> {
    tenants.get(of.0, of.1)?;
    conn.copy_both().await?;
    loop {
        let (batch, next) = read_batch(conn, version).await?;
        let working: Vec<_> = batch.iter().map(|r| answer(tenants, of, r)).collect();
        let answers: Vec<Answer> = stream::iter(working).buffered(AT_ONCE).collect().await;
        for (request, answer) in batch.iter().zip(answers) {
            // K5: asked when the answer leaves; D1 too.
            let answer = match tenants.get(of.0, of.1) {
                Ok(_) => answer,
                Err(refusal) => Answer::Error(refusal.line()),
            };
            conn.write_copy(&answer.encode(version, request)).await?;
        }
        conn.flush().await?;
        match next {
            Next::More => {}
            Next::Done => break,
            Next::Failed(error) => return Err(error.into()),
        }
    }
    conn.copy_done();
    conn.command_complete("COPY 0");
    Ok(())
}

/// What follows on a batch.
enum Next {
    More,
    Done,
    Failed(WireError),
}

/// The next request, and those that are there already.
async fn read_batch(conn: &mut Conn, version: Version) -> Result<(Vec<Request>, Next), QueryError> {
    let mut batch = Vec::new();
    let Some(first) = conn.read_copy().await? else {
        return Ok((batch, Next::Done));
    };
    batch.push(decode(version, first)?);
    while batch.len() < BATCH {
        match conn.read_copy().now_or_never() {
            None => break,
            Some(Ok(Some(message))) => batch.push(decode(version, message)?),
            Some(Ok(None)) => return Ok((batch, Next::Done)),
            Some(Err(error)) => return Ok((batch, Next::Failed(error))),
        }
    }
    Ok((batch, Next::More))
}

fn decode(version: Version, message: Bytes) -> Result<Request, QueryError> {
    Request::decode(version, message).map_err(|e| QueryError::refused(PROTOCOL, e))
}

async fn answer(tenants: &Tenants, of: (TenantId, TimelineId), request: &Request) -> Answer {
    let begun = Instant::now();
    let answer = match try_answer(tenants, of, request).await {
        Ok(answer) => answer,
        Err(refusal) => Answer::Error(refusal.line()),
    };
    metrics::answered(kind(&request.ask), begun.elapsed());
    answer
}

const fn kind(ask: &Ask) -> &'static str {
    match ask {
        Ask::Exists(_) => "exists",
        Ask::Nblocks(_) => "nblocks",
        Ask::GetPage(..) => "getpage",
        Ask::DbSize(_) => "dbsize",
        Ask::Slru { .. } => "slru",
    }
}

async fn try_answer(
    tenants: &Tenants,
    (tenant, timeline): (TenantId, TimelineId),
    request: &Request,
) -> Result<Answer, Refusal> {
    // Looked up for each: a timeline that was attached anew meanwhile goes on serving.
    let (_, attached) = tenants.get(tenant, timeline)?;
    let lsn = position(tenants, &attached, request).await?;
    content(&attached.timeline, &request.ask, lsn).await
}

async fn content(timeline: &Timeline, ask: &Ask, lsn: Lsn) -> Result<Answer, Refusal> {
    Ok(match ask {
        Ask::Exists(rel) => Answer::Exists(timeline.relation_exists(*rel, lsn).await?),
        Ask::Nblocks(rel) => Answer::Nblocks(timeline.served_blocks(*rel, lsn).await?),
        Ask::GetPage(rel, block) => Answer::Page(timeline.page(*rel, *block, lsn).await?),
        Ask::DbSize(db) => {
            let bytes = timeline.database_bytes(*db, lsn).await?;
            Answer::DbSize(i64::try_from(bytes).unwrap_or(i64::MAX))
        }
        Ask::Slru { kind, segment } => {
            let slru = SlruKind::from_number(*kind);
            let slru = slru.ok_or_else(|| Refusal::bad_request(format!("no SLRU {kind}")))?;
            Answer::Slru(timeline.slru_segment(slru, *segment, lsn).await?)
        }
    })
}

/// As of when a request is answered: what is asked for has not changed between
/// `not_modified_since` and `at`, so any LSN in between will do.
async fn position(
    tenants: &Tenants,
    attached: &Attached,
    request: &Request,
) -> Result<Lsn, Refusal> {
    let (at, since) = (request.at, request.not_modified_since);
    if !at.is_valid() {
        return Err(Refusal::bad_request("LSN 0/0 is no position"));
    }
    if since > at {
        let message = format!("not modified since {since}, which comes after {at}");
        return Err(Refusal::bad_request(message));
    }
    let timeline = &attached.timeline;
    timeline
        .wait_for(since, tenants.node.settings.read_wait)
        .await?;
    Ok(timeline.last_lsn()?.min(at))
}
