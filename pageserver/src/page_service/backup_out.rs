//! Base backups, sent while they are made.

use std::pin::pin;

use ids::{Lsn, TenantId, TimelineId};
use service::libpq::{Conn, QueryError};
use tokio::sync::mpsc;

use crate::backup;
use crate::refusal::Refusal;
use crate::tenants::Tenants;

/// Pieces that wait for the client.
const PIECES: usize = 16;

/// Sends the backup as of `at`, or of the last record.
pub(super) async fn serve(
    tenants: &Tenants,
    (tenant, timeline): (TenantId, TimelineId),
    at: Option<Lsn>,
    full: bool,
    conn: &mut Conn,
) -> Result<(), QueryError> {
    let (owner, attached) = tenants.get(tenant, timeline)?;
    let (sink, mut pieces) = mpsc::channel(PIECES);
    let mut written = None;
    let mut write = pin!(backup::write(&attached.timeline, at, full, sink));
    let mut begun = false;
    loop {
        let piece = tokio::select! {
            piece = pieces.recv() => piece,
            result = &mut write, if written.is_none() => {
                written = Some(result);
                continue;
            }
        };
        let Some(piece) = piece else { break };
        // K5: asked when each piece leaves; D1 too.
        owner.check().map_err(Refusal::from)?;
        attached.serving().map_err(Refusal::from)?;
        if !begun {
            conn.copy_out().await?;
            begun = true;
        }
        conn.write_copy(&piece).await?;
    }
    let written = match written {
        Some(written) => written,
        None => write.await,
    };
    written.map_err(Refusal::from)?;
    conn.copy_done();
    conn.command_complete("SELECT 1");
    Ok(())
}
