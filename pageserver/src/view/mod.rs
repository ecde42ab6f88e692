//! What PostgreSQL calls things: relations, pages, SLRU segments, databases, as of an LSN.

mod error;
mod lists;
#[cfg(test)]
mod tests;
mod time;

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use ids::{Fork, Key, KeyKind, Lsn, RelTag, SlruKind};
use pg::control::{CheckPoint, ControlFile};
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

    /// What a server that stores nothing itself takes for the length of a fork. It makes maps of
    /// free space and visibility without a word in WAL, and asks for their length at once.
    pub(crate) async fn served_blocks(&self, rel: RelTag, lsn: Lsn) -> Result<u32, ViewError> {
        match (self.relation_blocks(rel, lsn).await?, rel.fork) {
            (Some(blocks), _) => Ok(blocks),
            (None, Fork::Fsm | Fork::Vm) => Ok(0),
            (None, Fork::Main | Fork::Init) => Err(ViewError::absent(Wanted::Relation(rel), lsn)),
        }
    }

    /// A page of a fork; zeros where it has none, past its end too.
    pub(crate) async fn page(&self, rel: RelTag, block: u32, lsn: Lsn) -> Result<Bytes, ViewError> {
        if block >= self.served_blocks(rel, lsn).await? {
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
        let page = self.block(KeyKind::RelBlock(rel, block), lsn).await?;
        if self.has_checksums(lsn).await? {
            return Ok(stamped(page, block));
        }
        Ok(page)
    }

    /// Whether pages have checksums: no server changes that while it runs.
    pub(crate) async fn has_checksums(&self, lsn: Lsn) -> Result<bool, ViewError> {
        if let Some(known) = self.checksums().get() {
            return Ok(*known);
        }
        let key = KeyKind::ControlFile;
        // Before an import there is none, and no page.
        let Some(file) = self.content(Key::new(key), lsn).await? else {
            return Ok(false);
        };
        let file = ControlFile::parse(&file).map_err(|_| ViewError::malformed(key, lsn))?;
        let found = file.checksum_version() != 0;
        Ok(*self.checksums().get_or_init(|| found))
    }

    /// The bytes of all forks of a database, in all tablespaces: what PostgreSQL's own sum of its
    /// files is made of.
    pub(crate) async fn database_bytes(&self, db: u32, lsn: Lsn) -> Result<u64, ViewError> {
        let mut places = self.databases(lsn).await?;
        places.retain(|(_, known)| *known == db);
        if places.is_empty() {
            return Err(ViewError::absent(Wanted::Database(db), lsn));
        }
        let mut blocks = 0;
        for (spc, db) in places {
            for rel in self.relations(spc, db, lsn).await? {
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

    /// How far each replication origin has been replayed.
    pub(crate) async fn origins(&self, lsn: Lsn) -> Result<BTreeMap<u16, Lsn>, ViewError> {
        let mut origins = BTreeMap::new();
        for origin in self.origin_numbers(lsn).await? {
            let kind = KeyKind::ReplOrigin(origin);
            let there = self.content(Key::new(kind), lsn).await?;
            let there = there.and_then(|there| Some(*there.first_chunk()?));
            let there = there.ok_or(ViewError::malformed(kind, lsn))?;
            origins.insert(origin, Lsn(u64::from_le_bytes(there)));
        }
        Ok(origins)
    }

    /// `pg_control` as it was imported, with the settings of the server since.
    pub(crate) async fn control_file(&self, lsn: Lsn) -> Result<ControlFile, ViewError> {
        let key = KeyKind::ControlFile;
        let bytes = self.whole(key, Wanted::ControlFile, lsn).await?;
        ControlFile::parse(&bytes).map_err(|_| ViewError::malformed(key, lsn))
    }

    /// The relation map of a database, which is in its own tablespace.
    pub(crate) async fn relation_map(
        &self,
        spc: u32,
        db: u32,
        lsn: Lsn,
    ) -> Result<Option<Bytes>, ViewError> {
        let key = KeyKind::RelMap { spc, db };
        Ok(self.content(Key::new(key), lsn).await?)
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

/// With the checksum that a server expects which reads it from a disk.
fn stamped(page: Bytes, block: u32) -> Bytes {
    let Ok(mut page) = <[u8; BLOCK]>::try_from(&page[..]) else {
        return page;
    };
    pg::page::stamp_checksum(&mut page, block);
    Bytes::copy_from_slice(&page)
}

fn zeros() -> Bytes {
    Bytes::from_static(&[0; BLOCK])
}
