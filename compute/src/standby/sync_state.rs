//! Whether Postgres counts the standby as synchronous: clients are let in then (C2).

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;

use super::{StandbyConfig, StandbyError, stream};

const ASK: Duration = Duration::from_millis(20);

/// Says so once; ends only where Postgres cannot be asked.
pub(super) async fn watch(
    config: &StandbyConfig,
    on_sync: watch::Sender<bool>,
) -> Result<(), StandbyError> {
    match until_sync(config).await {
        Ok(()) => {
            on_sync.send_replace(true);
            let never: Infallible = std::future::pending().await;
            match never {}
        }
        Err(error) => Err(error),
    }
}

async fn until_sync(config: &StandbyConfig) -> Result<(), StandbyError> {
    let options = [("database", "postgres")];
    let mut client = stream::connect(config, &options).await?;
    // The name has no character that would need quoting.
    let sql = format!(
        "SELECT 1 FROM pg_catalog.pg_stat_replication \
         WHERE application_name = '{}' AND sync_state = 'sync'",
        config.application_name
    );
    loop {
        let rows = client.simple_query(&sql).await;
        let rows = rows.map_err(|source| StandbyError::Postgres {
            what: "asking for the state of replication",
            source,
        })?;
        if !rows.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(ASK).await;
    }
}
