//! What PostgreSQL calls things: relations, pages, SLRU segments, databases, as of an LSN.

mod error;
mod lists;
#[cfg(test)]
mod tests;
mod time;

use bytes::{BufMut, Bytes, BytesMut};
use ids::{Fork, Key, KeyKind, Lsn, RelTag, SlruKind};
use pg::control::{CheckPoint, ControlFile};
use pg::datadir::DEFAULT_TABLESPACE;
use pg::kept::KeptPath;
use pg::page::BLOCK;

pub(crate) use error::ViewError;
use error::Wanted;

use crate::timeline::Timeline;

impl Timeline {
    /// Whether a fork exists.
    pub(crate) async fn relation_exists(&self, rel: RelTag, lsn: Lsn) -> Result<bool, ViewError> {
        Ok(self.relation_blocks(rel, lsn).await?.is_some())
    }

    /// The length of a fork in blocks; `None` where it does not exist.
    pub(crate) async fn relation_blocks(
        &self,
        rel: RelTag,
        lsn: Lsn,
    ) -> Result<Option<u32>, ViewError> {
        self.number(KeyKind::RelSize(rel), lsn).await
    }

    /// A page of a fork that exists; zeros where it has none, past its end too.
    pub(crate) async fn page(&self, rel: RelTag, block: u32, lsn: Lsn) -> Result<Bytes, ViewError> {
        let blocks = self.relation_blocks(rel, lsn).await?;
        let blocks = blocks.ok_or(ViewError::absent(Wanted::Relation(rel), lsn))?;
        if block >= blocks {
            return Ok(zeros());
        }
        self.page_inside(rel, block, lsn).await
    }

    /// A page that is known to be inside its fork.
    pub(crate) async fn page_inside(
        &self,
        rel: RelTag,
        block: u32,
        lsn: Lsn,
    ) -> Result<Bytes, ViewError> {
        self.block(KeyKind::RelBlock(rel, block), lsn).await
    }

    /// The bytes of the main forks of a database.
    pub(crate) async fn database_bytes(&self, db: u32, lsn: Lsn) -> Result<u64, ViewError> {
        let spc = DEFAULT_TABLESPACE;
        if !self.databases(lsn).await?.contains(&(spc, db)) {
            return Err(ViewError::absent(Wanted::Database(db), lsn));
        }
        let mut blocks = 0;
        for rel in self.relations(spc, db, lsn).await? {
            if rel.fork == Fork::Main {
                blocks += u64::from(self.relation_blocks(rel, lsn).await?.unwrap_or(0));
            }
        }
        Ok(blocks * BLOCK as u64)
    }

    /// A segment of an SLRU: whole pages.
    pub(crate) async fn slru_segment(
        &self,
        slru: SlruKind,
        segment: u32,
        lsn: Lsn,
    ) -> Result<Bytes, ViewError> {
        let blocks = self.slru_blocks(slru, segment, lsn).await?;
        let blocks = blocks.ok_or(ViewError::absent(Wanted::Slru(slru, segment), lsn))?;
        let mut out = BytesMut::new();
        for block in 0..blocks {
            let kind = KeyKind::SlruBlock(slru, segment, block);
            out.put_slice(&self.block(kind, lsn).await?);
        }
        Ok(out.freeze())
    }

    /// The length of a segment of an SLRU in pages; `None` where it does not exist.
    pub(crate) async fn slru_blocks(
        &self,
        slru: SlruKind,
        segment: u32,
        lsn: Lsn,
    ) -> Result<Option<u32>, ViewError> {
        self.number(KeyKind::SlruSize(slru, segment), lsn).await
    }

    /// The checkpoint fields as of `lsn`.
    pub(crate) async fn checkpoint(&self, lsn: Lsn) -> Result<CheckPoint, ViewError> {
        let key = KeyKind::Checkpoint;
        let bytes = self.whole(key, Wanted::Checkpoint, lsn).await?;
        CheckPoint::decode(&bytes).ok_or(ViewError::malformed(key, lsn))
    }

    /// `pg_control` as it was imported.
    pub(crate) async fn control_file(&self, lsn: Lsn) -> Result<ControlFile, ViewError> {
        let key = KeyKind::ControlFile;
        let bytes = self.whole(key, Wanted::ControlFile, lsn).await?;
        ControlFile::parse(&bytes).map_err(|_| ViewError::malformed(key, lsn))
    }

    /// The relation map of a database.
    pub(crate) async fn relation_map(
        &self,
        spc: u32,
        db: u32,
        lsn: Lsn,
    ) -> Result<Bytes, ViewError> {
        let key = KeyKind::RelMap { spc, db };
        self.whole(key, Wanted::RelationMap(db), lsn).await
    }

    /// The state file of a prepared transaction.
    pub(crate) async fn prepared_state(&self, xid: u32, lsn: Lsn) -> Result<Bytes, ViewError> {
        let key = KeyKind::TwoPhase(u64::from(xid));
        self.whole(key, Wanted::Prepared(xid), lsn).await
    }

    /// The files that are kept although PostgreSQL does not log them (C7).
    pub(crate) async fn kept_files(&self, lsn: Lsn) -> Result<Vec<(KeptPath, Bytes)>, ViewError> {
        let mut files = Vec::new();
        for number in self.kept(lsn).await? {
            let key = KeyKind::AuxFile(number);
            let file = self.content(Key::new(key), lsn).await?;
            let file = file.and_then(|file| crate::ingest::kept::decode(&file));
            files.push(file.ok_or(ViewError::malformed(key, lsn))?);
        }
        Ok(files)
    }

    async fn whole(&self, kind: KeyKind, wanted: Wanted, lsn: Lsn) -> Result<Bytes, ViewError> {
        let content = self.content(Key::new(kind), lsn).await?;
        content.ok_or(ViewError::absent(wanted, lsn))
    }

    /// A block that is inside of what it belongs to; without any value it is zeros.
    async fn block(&self, kind: KeyKind, lsn: Lsn) -> Result<Bytes, ViewError> {
        match self.content(Key::new(kind), lsn).await? {
            None => Ok(zeros()),
            Some(page) if page.len() == BLOCK => Ok(page),
            Some(_) => Err(ViewError::malformed(kind, lsn)),
        }
    }

    async fn number(&self, kind: KeyKind, lsn: Lsn) -> Result<Option<u32>, ViewError> {
        let Some(bytes) = self.content(Key::new(kind), lsn).await? else {
            return Ok(None);
        };
        let bytes = <[u8; 4]>::try_from(&bytes[..]);
        let bytes = bytes.map_err(|_| ViewError::malformed(kind, lsn))?;
        Ok(Some(u32::from_le_bytes(bytes)))
    }
}

fn zeros() -> Bytes {
    Bytes::from_static(&[0; BLOCK])
}
