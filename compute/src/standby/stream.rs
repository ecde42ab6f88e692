//! The replication connection.

use std::time::Duration;

use bytes::Bytes;
use ids::Lsn;
use pg::wire::replication::{FromReceiver, FromSender};
use service::clock;
use service::libpq::client::{Client, CopyStream, CopyStreamReader};
use service::libpq::{CopyWriter, WireError};
use tokio::sync::{Notify, watch};

use super::cutter::Cutter;
use super::{ROLE, SLOT, StandbyConfig, StandbyError};
use crate::proposer::Quorum;

/// Postgres hears of us at least this often, also while WAL is held.
const STATUS: Duration = Duration::from_secs(5);
/// Seconds from 1970 to 2000.
const POSTGRES_EPOCH: u64 = 946_684_800;
const DUPLICATE_OBJECT: &str = "42710";

/// Makes the slot where it is missing, and begins to stream.
pub(super) async fn start(config: &StandbyConfig) -> Result<CopyStream, StandbyError> {
    let failed = |what| move |source| StandbyError::Postgres { what, source };
    let options = [("replication", "true")];
    let mut client = connect(config, &options).await?;
    let create = format!("CREATE_REPLICATION_SLOT {SLOT} PHYSICAL RESERVE_WAL");
    match client.simple_query(&create).await {
        Ok(_) => {}
        Err(WireError::Server { sqlstate, .. }) if sqlstate == DUPLICATE_OBJECT => {}
        Err(source) => return Err(failed("making the replication slot")(source)),
    }
    let from = config.from;
    let stream = format!("START_REPLICATION SLOT {SLOT} PHYSICAL {from} TIMELINE 1");
    let copy = client.query_copy_both(&stream).await;
    copy.map_err(failed("starting replication"))
}

/// Connects over the socket, under the standby's name.
pub(super) async fn connect(
    config: &StandbyConfig,
    options: &[(&str, &str)],
) -> Result<Client, StandbyError> {
    let socket = config.socket_dir.join(format!(".s.PGSQL.{}", config.port));
    let own = [
        ("user", ROLE),
        ("application_name", config.application_name.as_str()),
    ];
    let options: Vec<_> = own.iter().chain(options).copied().collect();
    let client = Client::connect_unix(&socket, &options, "").await;
    client.map_err(|source| StandbyError::Postgres {
        what: "connecting",
        source,
    })
}

/// Until Postgres has shut down, or an error.
pub(super) async fn run(
    config: &StandbyConfig,
    copy: CopyStream,
    quorum: &Quorum,
    hold: watch::Receiver<Option<String>>,
) -> Result<(), StandbyError> {
    let (reader, writer) = copy.split();
    let asked = Notify::new();
    tokio::select! {
        ended = forward(config, reader, quorum, hold, &asked) => ended,
        failed = report(writer, quorum.committed(), &asked) => failed,
    }
}

/// Brings whole records to the quorum.
async fn forward(
    config: &StandbyConfig,
    mut reader: CopyStreamReader,
    quorum: &Quorum,
    mut hold: watch::Receiver<Option<String>>,
    asked: &Notify,
) -> Result<(), StandbyError> {
    let mut cutter = Cutter::new(config.shape, config.from);
    while let Some(bytes) = read(&mut reader).await? {
        match FromSender::decode(bytes)? {
            FromSender::XLogData { start, wal, .. } => {
                if let Some((at, piece)) = cutter.take(start, wal)? {
                    held(&mut hold).await;
                    quorum.offer(at, piece).await?;
                }
            }
            FromSender::Keepalive { reply, .. } => {
                if reply {
                    asked.notify_one();
                }
            }
        }
    }
    Ok(())
}

async fn read(reader: &mut CopyStreamReader) -> Result<Option<Bytes>, StandbyError> {
    let bytes = reader.read_copy().await;
    bytes.map_err(|source| StandbyError::Postgres {
        what: "streaming",
        source,
    })
}

/// Waits while there is a reason to take no WAL. Where nobody is left to say one, there is none.
async fn held(hold: &mut watch::Receiver<Option<String>>) {
    let reason = hold.borrow_and_update().clone();
    if let Some(reason) = reason {
        tracing::warn!(%reason, "no WAL is taken, commits wait");
        if hold.wait_for(Option::is_none).await.is_ok() {
            tracing::info!("WAL is taken again");
        }
    }
}

/// Says what the quorum has: at once, so that Postgres counts us as synchronous, on every change,
/// when asked, and now and then.
async fn report(
    mut writer: CopyWriter,
    mut committed: watch::Receiver<Lsn>,
    asked: &Notify,
) -> Result<(), StandbyError> {
    loop {
        // Write, flush and apply are all that the quorum has flushed (C2).
        let lsn = *committed.borrow_and_update();
        let status = FromReceiver::Status {
            write: lsn,
            flush: lsn,
            apply: lsn,
            time: now(),
            reply: false,
        };
        let said = async {
            writer.write_copy(&status.encode()).await?;
            writer.flush().await
        };
        said.await.map_err(|source| StandbyError::Postgres {
            what: "acknowledging",
            source,
        })?;
        tokio::select! {
            changed = committed.changed() => if changed.is_err() {
                // The proposer has ended: its reason ends us.
                std::future::pending().await
            },
            () = asked.notified() => {}
            () = tokio::time::sleep(STATUS) => {}
        }
    }
}

/// Microseconds since 2000, in steps of a second: Postgres only shows it.
fn now() -> i64 {
    let seconds = clock::unix_seconds().saturating_sub(POSTGRES_EPOCH);
    i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
}
