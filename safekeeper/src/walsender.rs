//! WAL up to the commit position, as a walsender of Postgres sends it.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use ids::Lsn;
use service::libpq::{Conn, QueryError, WireError};

use crate::timeline::Timeline;

/// The most WAL in one message.
const CHUNK: u64 = 128 << 10;
const KEEPALIVE: Duration = Duration::from_secs(1);
/// Seconds from 1970 to 2000.
const POSTGRES_EPOCH: u64 = 946_684_800;

/// Sends until the client ends the copy.
pub(crate) async fn send(
    conn: &mut Conn,
    timeline: &Timeline,
    from: Lsn,
) -> Result<(), QueryError> {
    conn.copy_both().await?;
    let mut position = timeline.position();
    let mut at = from;
    loop {
        let commit = position.borrow_and_update().commit;
        if at < commit {
            let end = commit.min(page_end(at));
            let wal = timeline.read(at..end).await;
            let wal = wal.map_err(|e| QueryError::refused("58P01", e))?;
            conn.write_copy(&wal_data(at, commit, &wal)).await?;
            conn.flush().await?;
            at = end;
        }
        let idle = at >= commit;
        tokio::select! {
            // What the client says of its progress is not kept yet.
            said = conn.read_copy() => if said?.is_none() { break },
            changed = position.changed(), if idle => if changed.is_err() {
                return Err(WireError::Closed.into());
            },
            () = tokio::time::sleep(KEEPALIVE), if idle => {
                conn.write_copy(&keepalive(commit)).await?;
                conn.flush().await?;
            }
            () = std::future::ready(()), if !idle => {}
        }
    }
    conn.copy_done();
    conn.command_complete("COPY 0");
    Ok(())
}

/// The border of a page that is at most a chunk behind `at`.
fn page_end(at: Lsn) -> Lsn {
    let end = at.0.saturating_add(CHUNK);
    Lsn(end - end % pg::page::BLOCK as u64)
}

fn wal_data(at: Lsn, available: Lsn, wal: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(b'w');
    out.put_u64(at.0);
    out.put_u64(available.0);
    out.put_i64(now());
    out.put_slice(wal);
    out.freeze()
}

fn keepalive(end: Lsn) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(b'k');
    out.put_u64(end.0);
    out.put_i64(now());
    out.put_u8(1);
    out.freeze()
}

/// Microseconds since 2000, in steps of a second: clients only show it.
fn now() -> i64 {
    let seconds = service::clock::unix_seconds().saturating_sub(POSTGRES_EPOCH);
    i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
}
