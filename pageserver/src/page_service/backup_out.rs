//! Base backups, sent while they are made.

use std::sync::Arc;

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
    let timeline = Arc::clone(&attached.timeline);
    // A task of its own: it goes on while the client is waited for, so that no read of it stands
    // still with what the reads of others wait for. Without us nobody takes its pieces: it ends.
    let write = service::task::spawn("backup", async move {
        backup::write(&timeline, at, full, sink).await
    });
    let mut begun = false;
    while let Some(piece) = pieces.recv().await {
        // K5: asked when each piece leaves; D1 too.
        owner.check().map_err(Refusal::from)?;
        attached.serving().map_err(Refusal::from)?;
        if !begun {
            conn.copy_out().await?;
            begun = true;
        }
        conn.write_copy(&piece).await?;
    }
    let written = write.await.map_err(Refusal::bug)?;
    written.map_err(Refusal::from)?;
    conn.copy_done();
    conn.command_complete("SELECT 1");
    Ok(())
}
