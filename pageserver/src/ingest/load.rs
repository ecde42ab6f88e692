//! What ingest must know of a timeline before it can go on.

use bytes::{Buf, Bytes};
use ids::{Fork, Key, KeyKind, Lsn, RelTag, SlruKind};
use pg::control::{CheckPoint, ControlError, ControlFile};
use pg::datadir::GLOBAL_TABLESPACE;

use super::Directory;
use crate::timeline::{Closed, ReadError, Timeline};

/// What ingest must know is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Also of a timeline whose import was not finished.
    #[error("the timeline has no {key:?} at {lsn}")]
    Missing { key: Key, lsn: Lsn },
    #[error("{key:?} at {lsn} is not what it should be")]
    Malformed { key: Key, lsn: Lsn },
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Reads a timeline at one LSN.
struct At<'a>(&'a Timeline, Lsn);

impl At<'_> {
    async fn get(&self, kind: KeyKind) -> Result<Option<Bytes>, ReadError> {
        self.0.content(Key::new(kind), self.1).await
    }

    async fn need(&self, kind: KeyKind) -> Result<Bytes, LoadError> {
        let (key, lsn) = (Key::new(kind), self.1);
        let content = self.get(kind).await?;
        content.ok_or(LoadError::Missing { key, lsn })
    }

    /// The items of a list; one that was never begun has none.
    async fn list(&self, kind: KeyKind, item_bytes: usize) -> Result<Vec<Bytes>, LoadError> {
        let list = self.get(kind).await?.unwrap_or_default();
        if !list.len().is_multiple_of(item_bytes) {
            return Err(self.malformed(kind));
        }
        let at = (0..list.len()).step_by(item_bytes);
        Ok(at.map(|at| list.slice(at..at + item_bytes)).collect())
    }

    async fn length(&self, kind: KeyKind) -> Result<u32, LoadError> {
        let mut length = self.need(kind).await?;
        length.try_get_u32_le().map_err(|_| self.malformed(kind))
    }

    fn malformed(&self, kind: KeyKind) -> LoadError {
        let (key, lsn) = (Key::new(kind), self.1);
        LoadError::Malformed { key, lsn }
    }
}

impl Directory {
    /// What a timeline consists of at `lsn`.
    pub(crate) async fn load(timeline: &Timeline, lsn: Lsn) -> Result<Self, LoadError> {
        let (at, mut directory) = (At(timeline, lsn), Self::default());
        at.need(KeyKind::Databases).await?;
        for mut item in at.list(KeyKind::Databases, 8).await? {
            directory.databases.insert((item.get_u32(), item.get_u32()));
        }
        for mut item in at.list(KeyKind::Tablespaces, 4).await? {
            directory.tablespaces.insert(item.get_u32());
        }
        let mut databases = vec![(GLOBAL_TABLESPACE, 0)];
        databases.extend(&directory.databases);
        for (spc, db) in databases {
            let list = KeyKind::Relations { spc, db };
            for mut item in at.list(list, 5).await? {
                let rel = item.get_u32();
                let fork = Fork::from_number(item.get_u8());
                let fork = fork.ok_or_else(|| at.malformed(list))?;
                let fork = RelTag { spc, db, rel, fork };
                let len = at.length(KeyKind::RelSize(fork)).await?;
                directory.forks.insert(fork, len);
            }
        }
        for kind in (0..=3).filter_map(SlruKind::from_number) {
            for mut item in at.list(KeyKind::SlruSegments(kind), 4).await? {
                let segment = item.get_u32();
                let len = at.length(KeyKind::SlruSize(kind, segment)).await?;
                directory.slru.insert((kind, segment), len);
            }
        }
        for mut item in at.list(KeyKind::TwoPhaseFiles, 8).await? {
            let xid = u32::try_from(item.get_u64());
            let xid = xid.map_err(|_| at.malformed(KeyKind::TwoPhaseFiles))?;
            directory.prepared.insert(xid);
        }
        for mut item in at.list(KeyKind::ReplOrigins, 2).await? {
            let origin = item.get_u16();
            let kind = KeyKind::ReplOrigin(origin);
            let there = at.need(kind).await?.try_get_u64_le();
            let there = there.map_err(|_| at.malformed(kind))?;
            directory.origins.insert(origin, Lsn(there));
        }
        for mut item in at.list(KeyKind::AuxFiles, 4).await? {
            let number = item.get_u32();
            let file = at.need(KeyKind::AuxFile(number)).await?;
            let file = super::kept::decode(&file);
            let (path, _) = file.ok_or_else(|| at.malformed(KeyKind::AuxFile(number)))?;
            directory.kept.insert(path, number);
        }
        Ok(directory)
    }
}

/// The checkpoint fields of a timeline at `lsn`.
pub(super) async fn checkpoint(timeline: &Timeline, lsn: Lsn) -> Result<CheckPoint, LoadError> {
    let at = At(timeline, lsn);
    let bytes = at.need(KeyKind::Checkpoint).await?;
    CheckPoint::decode(&bytes).ok_or_else(|| at.malformed(KeyKind::Checkpoint))
}

/// The `pg_control` that a timeline, or the one it branched from, was imported with, and the
/// settings of its server since.
pub(super) async fn control(timeline: &Timeline, lsn: Lsn) -> Result<ControlFile, LoadError> {
    let bytes = At(timeline, lsn).need(KeyKind::ControlFile).await?;
    Ok(ControlFile::parse(&bytes)?)
}
