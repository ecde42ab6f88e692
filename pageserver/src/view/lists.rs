//! What there is. A list is its items in order, each as long as the next, big-endian.

use ids::{Fork, Key, KeyKind, Lsn, RelTag, SlruKind};

use super::ViewError;
use crate::timeline::Timeline;

impl Timeline {
    /// All databases: tablespace and database.
    pub(crate) async fn databases(&self, lsn: Lsn) -> Result<Vec<(u32, u32)>, ViewError> {
        self.list(KeyKind::Databases, lsn, |item: [u8; 8]| {
            Some((word(&item, 0)?, word(&item, 4)?))
        })
        .await
    }

    /// All forks of all relations of a database.
    pub(crate) async fn relations(
        &self,
        spc: u32,
        db: u32,
        lsn: Lsn,
    ) -> Result<Vec<RelTag>, ViewError> {
        self.list(KeyKind::Relations { spc, db }, lsn, |item: [u8; 5]| {
            let (rel, fork) = (word(&item, 0)?, Fork::from_number(item[4])?);
            Some(RelTag { spc, db, rel, fork })
        })
        .await
    }

    /// The segments of an SLRU.
    pub(crate) async fn slru_segments(
        &self,
        slru: SlruKind,
        lsn: Lsn,
    ) -> Result<Vec<u32>, ViewError> {
        self.list(KeyKind::SlruSegments(slru), lsn, |item: [u8; 4]| {
            word(&item, 0)
        })
        .await
    }

    /// The tablespaces of the user.
    pub(crate) async fn tablespaces(&self, lsn: Lsn) -> Result<Vec<u32>, ViewError> {
        self.list(KeyKind::Tablespaces, lsn, |item: [u8; 4]| word(&item, 0))
            .await
    }

    /// The replication origins that have a progress.
    pub(super) async fn origin_numbers(&self, lsn: Lsn) -> Result<Vec<u16>, ViewError> {
        self.list(KeyKind::ReplOrigins, lsn, |item: [u8; 2]| {
            Some(u16::from_be_bytes(item))
        })
        .await
    }

    /// The transactions that are prepared and have not ended.
    pub(crate) async fn prepared(&self, lsn: Lsn) -> Result<Vec<u32>, ViewError> {
        self.list(KeyKind::TwoPhaseFiles, lsn, |item: [u8; 8]| {
            u32::try_from(u64::from_be_bytes(item)).ok()
        })
        .await
    }

    /// The numbers of files that are kept.
    pub(super) async fn kept(&self, lsn: Lsn) -> Result<Vec<u32>, ViewError> {
        self.list(KeyKind::AuxFiles, lsn, |item: [u8; 4]| word(&item, 0))
            .await
    }

    async fn list<const N: usize, T>(
        &self,
        kind: KeyKind,
        lsn: Lsn,
        item: impl Fn([u8; N]) -> Option<T>,
    ) -> Result<Vec<T>, ViewError> {
        let bytes = self.content(Key::new(kind), lsn).await?;
        let bytes = bytes.unwrap_or_default();
        let (items, rest) = bytes.as_chunks();
        let items: Option<Vec<T>> = items.iter().map(|bytes| item(*bytes)).collect();
        items
            .filter(|_| rest.is_empty())
            .ok_or(ViewError::malformed(kind, lsn))
    }
}

fn word(item: &[u8], at: usize) -> Option<u32> {
    item.get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_be_bytes)
}
