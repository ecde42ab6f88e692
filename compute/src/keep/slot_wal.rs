//! The WAL that logical slots start from: a base backup has none, the safekeepers have all of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::timeline::NodeAddress;
use bytes::{Bytes, BytesMut};
use ids::{Lsn, TenantId, TimelineId};
use pg::datadir::wal_segment_name;
use pg::wal::{WalShape, segment_prefix};
use pg::wire::replication::FromSender;
use service::libpq::WireError;
use service::libpq::client::{Client, CopyStream};

use crate::boot::archive::give;
use crate::boot::shutdown::TLI;
use crate::config::Owner;
use crate::sandbox::Disk;

/// A safekeeper that says nothing for this long is left for the next.
const SILENCE: Duration = Duration::from_secs(10);
/// The WAL is neither on the safekeeper nor in the bucket.
const NO_WAL: &str = "58P01";

/// Who has the WAL.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) safekeepers: Vec<NodeAddress>,
    pub(crate) tenant: TenantId,
    pub(crate) timeline: TimelineId,
    pub(crate) token: String,
}

/// Where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) disk: Disk,
    pub(crate) owner: Owner,
    pub(crate) shape: WalShape,
}

/// WAL that did not come.
#[derive(Debug, thiserror::Error)]
pub enum SlotWalError {
    /// Every safekeeper says that nobody has it.
    #[error("no safekeeper has WAL from {0} on")]
    Gone(Lsn),
    /// Some did not say so: another time it may come.
    #[error("no safekeeper gives the WAL that replication slots need: {0}")]
    NotNow(#[source] WireError),
    /// The sealed disk refuses.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The task that writes ended.
    #[error("the writer of WAL ended")]
    Task,
}

/// Brings the WAL from `from` to `to` into the data directory. Before `from` its segment has page
/// headers and nothing that is read.
pub(super) async fn bring(
    source: &Source,
    target: &Target,
    from: Lsn,
    to: Lsn,
) -> Result<(), SlotWalError> {
    let begin = Lsn(from.0 - from.segment_offset(target.shape.segment_bytes));
    target
        .write(begin, segment_prefix(&target.shape, from).into())
        .await?;
    let (mut at, mut refused) = (from, None);
    for safekeeper in &source.safekeepers {
        let gave = source.bring_from(safekeeper, target, &mut at, to).await;
        match gave {
            Ok(()) => return Ok(()),
            Err(Gave::Nothing(WireError::Server { sqlstate, .. })) if sqlstate == NO_WAL => {}
            Err(Gave::Nothing(error)) => {
                tracing::info!(node = %safekeeper.node, %error, "gives no WAL for slots");
                refused = Some(error);
            }
            Err(Gave::Failed(error)) => return Err(error),
        }
    }
    Err(refused.map_or(SlotWalError::Gone(from), SlotWalError::NotNow))
}

enum Gave {
    Nothing(WireError),
    Failed(SlotWalError),
}

impl From<WireError> for Gave {
    fn from(error: WireError) -> Self {
        Self::Nothing(error)
    }
}

impl Source {
    /// Moves `at` over what is written.
    async fn bring_from(
        &self,
        safekeeper: &NodeAddress,
        target: &Target,
        at: &mut Lsn,
        to: Lsn,
    ) -> Result<(), Gave> {
        let mut copy = patient(self.stream(safekeeper, *at)).await?;
        let mut buffer = BytesMut::new();
        while *at < to {
            let (start, wal) = patient(next(&mut copy)).await?;
            let expected = *at + buffer.len() as u64;
            if start != expected {
                return Err(WireError::Violation("WAL that does not follow").into());
            }
            let wanted = usize::try_from(to - expected).unwrap_or(usize::MAX);
            buffer.extend_from_slice(wal.get(..wanted).unwrap_or(&wal));
            loop {
                let room = target.room(*at).min(to - *at);
                if room == 0 || (buffer.len() as u64) < room {
                    break;
                }
                let piece = buffer.split_to(room as usize).freeze(); // not more than is there
                target.write(*at, piece).await.map_err(Gave::Failed)?;
                *at = *at + room;
            }
        }
        Ok(())
    }

    async fn stream(&self, safekeeper: &NodeAddress, at: Lsn) -> Result<CopyStream, WireError> {
        let (tenant, timeline) = (self.tenant.to_string(), self.timeline.to_string());
        let options = [("tenant_id", &*tenant), ("timeline_id", &*timeline)];
        let client = Client::connect(safekeeper.libpq.as_str(), &options, &self.token).await?;
        let start = format!("START_REPLICATION PHYSICAL {at}");
        client.query_copy_both(&start).await
    }
}

/// The next WAL. One that is behind says in the meantime that it is there.
async fn next(copy: &mut CopyStream) -> Result<(Lsn, Bytes), WireError> {
    loop {
        let bytes = copy.read_copy().await?.ok_or(WireError::Closed)?;
        match FromSender::decode(bytes) {
            Ok(FromSender::XLogData { start, wal, .. }) => return Ok((start, wal)),
            Ok(FromSender::Keepalive { .. }) => {}
            Err(_) => return Err(WireError::Violation("a message that is none")),
        }
    }
}

async fn patient<T>(answer: impl Future<Output = Result<T, WireError>>) -> Result<T, WireError> {
    let answer = tokio::time::timeout(SILENCE, answer).await;
    answer.unwrap_or(Err(WireError::Violation("it says nothing")))
}

impl Target {
    /// How much of its segment is from `at` on.
    fn room(&self, at: Lsn) -> u64 {
        self.shape.segment_bytes - at.segment_offset(self.shape.segment_bytes)
    }

    /// Writes bytes that lie in one segment.
    async fn write(&self, at: Lsn, bytes: Bytes) -> Result<(), SlotWalError> {
        assert!(bytes.len() as u64 <= self.room(at), "in one segment");
        let target = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            let length = target.shape.segment_bytes;
            let name = wal_segment_name(TLI, Lsn(at.0 - at.segment_offset(length)), length);
            let path = target.disk.data().join("pg_wal").join(name);
            let written = write_at(
                &path,
                length,
                at.segment_offset(length),
                &bytes,
                target.owner,
            );
            written.map_err(|source| SlotWalError::Write { path, source })
        });
        written.await.map_err(|_| SlotWalError::Task)?
    }
}

/// What is there beside these bytes stays; a new file is zeros.
fn write_at(path: &Path, length: u64, offset: u64, bytes: &[u8], owner: Owner) -> io::Result<()> {
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(false);
    let file = std::os::unix::fs::OpenOptionsExt::mode(file, 0o600).open(path)?;
    file.set_len(length)?;
    file.write_all_at(bytes, offset)?;
    give(path, owner)
}
