//! The acceptor's record: what must survive a crash beside the WAL, sealed in the node's state
//! (FORMAT.md of `sealed`, parts 5 and 3).
//!
//!   R1  a save that returned is durable; a vote is answered after it (A1);
//!   R2  a record opens only on the node and for the tenant and timeline that it was saved for;
//!   R3  a record that is damaged or of a later version is refused, never taken for none: a node
//!       that forgot its vote would vote twice.

use std::sync::Arc;

use ids::{Lsn, NodeId, TenantId, Term, TimelineId, WrapSlot};
use keyring::{KeyError, LeasedDek, TenantKeys};
use quorum::{Durable, EndpointEpoch, History};
use sealed::log::Anchor;
use sealed::record::{self, Place, RecordError};
use service::entropy::OsEntropy;
use state::{State, StateError, Table};

use crate::wal_store::StoreAnchor;

mod stored;

/// Tenant and timeline, 16 bytes each.
type RecordKey = [u8; 32];

const TABLE: Table<RecordKey> = Table::new("acceptor");

/// What is kept of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptorRecord {
    /// The acceptor's state.
    pub durable: Durable,
    /// The log's.
    pub anchor: StoreAnchor,
    /// Where else the WAL is.
    pub progress: Progress,
}

/// Where WAL is beside this node's log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// In the bucket up to here, as whole segments.
    pub backup: Lsn,
    /// In the bucket up to here, as layers of an accepted manifest (D2).
    pub remote_consistent: Lsn,
    /// Below this the log may have been trimmed; stored before anything is removed.
    pub trimmed: Lsn,
}

/// Why a record was not loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum RecordAccessError {
    /// The tenant's keys cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The state cannot be read or written; a write may or may not be durable.
    #[error(transparent)]
    State(#[from] StateError),
    /// It is damaged, or belongs elsewhere (R2, R3).
    #[error("the acceptor's record of timeline {timeline} cannot be used")]
    Sealed {
        /// The timeline.
        timeline: TimelineId,
        /// Why not.
        source: RecordError,
    },
    /// What was sealed does not read as a record of this version (R3).
    #[error("the acceptor's record of timeline {timeline} is not of a version that is known here")]
    Unknown {
        /// The timeline.
        timeline: TimelineId,
    },
    /// There is one already.
    #[error("there is an acceptor's record of timeline {timeline} already")]
    Exists {
        /// The timeline.
        timeline: TimelineId,
    },
}

/// The place of one timeline's record, and its key.
pub struct RecordFile {
    state: State,
    node: NodeId,
    timeline: TimelineId,
    key: RecordKey,
    dek: Arc<LeasedDek>,
    slot: WrapSlot,
}

impl RecordFile {
    /// Saves the first record of a timeline, under a key of its own.
    ///
    /// # Errors
    /// [`RecordAccessError::Exists`], whatever the record there looks like.
    pub async fn create(
        state: State,
        node: NodeId,
        timeline: TimelineId,
        keys: &TenantKeys,
        record: &AcceptorRecord,
    ) -> Result<Self, RecordAccessError> {
        let key = record_key(keys.tenant(), timeline);
        if state.get(&TABLE, &key)?.is_some() {
            return Err(RecordAccessError::Exists { timeline });
        }
        let (dek, slot) = keys.mint().await?;
        let mut file = Self {
            state,
            node,
            timeline,
            key,
            dek,
            slot,
        };
        file.save(record).await?;
        Ok(file)
    }

    /// The record of a timeline; `None` where none was ever saved.
    ///
    /// # Errors
    /// R3.
    pub async fn load(
        state: State,
        node: NodeId,
        timeline: TimelineId,
        keys: &TenantKeys,
    ) -> Result<Option<(Self, AcceptorRecord)>, RecordAccessError> {
        let key = record_key(keys.tenant(), timeline);
        let Some(bytes) = state.get(&TABLE, &key)? else {
            return Ok(None);
        };
        let refused = |source| RecordAccessError::Sealed { timeline, source };
        let slot = record::wrap_slot(&bytes).map_err(refused)?;
        let dek = keys.open(&slot).await?;
        let place = place(node, timeline, &key);
        let plain = dek
            .with(|dek| record::open(&bytes, dek, &place))?
            .map_err(refused)?;
        let record = stored::decode(&plain).ok_or(RecordAccessError::Unknown { timeline })?;
        let file = Self {
            state,
            node,
            timeline,
            key,
            dek,
            slot,
        };
        Ok(Some((file, record)))
    }

    /// Saves a record (R1).
    ///
    /// # Errors
    /// After [`RecordAccessError::State`] it may or may not be durable.
    pub async fn save(&mut self, record: &AcceptorRecord) -> Result<(), RecordAccessError> {
        let plain = stored::encode(record);
        let place = place(self.node, self.timeline, &self.key);
        let bytes = self
            .dek
            .with(|dek| record::seal(dek, &self.slot, &place, &plain, &mut OsEntropy))?;
        Ok(self.state.put(&TABLE, &self.key, &bytes).await?)
    }
}

fn record_key(tenant: TenantId, timeline: TimelineId) -> RecordKey {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&tenant.0);
    key[16..].copy_from_slice(&timeline.0);
    key
}

fn place(node: NodeId, timeline: TimelineId, key: &RecordKey) -> Place<'_> {
    Place {
        node,
        timeline,
        table: TABLE.name(),
        key,
    }
}

#[cfg(test)]
mod tests;
