//! A stream of WAL that goes into a timeline.

use std::sync::Arc;

use bytes::Bytes;
use ids::Lsn;
use pg::wal::{Decoder, FrameError, RecordHeader, WalShape};

use super::{Directory, Ingest, IngestError, LoadError, load};
use crate::timeline::{self, Timeline, WriteError};

/// More than this in memory goes into the bucket before the next record is taken.
const MEMORY_BYTES_MAX: usize = 1 << 30;

/// The first record of a branch follows none of its own: our agent says 0, Neon's servers the first
/// position that a record can have, where none ever is, as clusters begin in segment 1.
const NO_RECORD: Lsn = Lsn(40);

/// Where ingest stopped, and why. The stream takes nothing more after it.
#[derive(Debug, thiserror::Error)]
#[error("ingest stopped at {lsn}: {what}")]
pub(crate) struct IngestStop {
    /// The record or position that it does not get past.
    pub(crate) lsn: Lsn,
    #[source]
    pub(crate) what: Stop,
}

/// Why ingest stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// The bytes are not the next ones.
    #[error("bytes from {found} on were given")]
    NotNext { found: Lsn },
    /// They are no WAL.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A record that cannot be understood, or is not supported.
    #[error(transparent)]
    Record(#[from] IngestError),
    /// The timeline took it not.
    #[error(transparent)]
    Timeline(#[from] timeline::IngestError),
    /// There was no room for more.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It stopped before.
    #[error("it stopped there before")]
    Before,
}

/// What a stop says about the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing: a new stream goes on.
    Anew,
    /// These bytes are not what Postgres wrote. Others may have those.
    Damaged,
    /// They are, and a new stream would stop at the same place, always.
    ForGood,
}

impl IngestStop {
    pub(crate) const fn standing(&self) -> Standing {
        match self.what {
            Stop::Frame(_)
            | Stop::Record(IngestError::Decode(_))
            | Stop::Timeline(timeline::IngestError::Gap { .. }) => Standing::Damaged,
            Stop::Record(IngestError::Refused { .. }) => Standing::ForGood,
            Stop::NotNext { .. } | Stop::Timeline(_) | Stop::Write(_) | Stop::Before => {
                Standing::Anew
            }
        }
    }
}

/// Takes the WAL of one timeline, in order, and brings it into the timeline.
pub(crate) struct IngestStream {
    timeline: Arc<Timeline>,
    decoder: Decoder,
    ingest: Ingest,
    last: Lsn,
    stopped: Option<Lsn>,
}

impl IngestStream {
    /// A stream that goes on where the timeline is. `skipped`: custom resource managers whose records
    /// are passed over where they name no page.
    pub(crate) async fn new(
        timeline: Arc<Timeline>,
        skipped: Arc<[u8]>,
    ) -> Result<Self, LoadError> {
        let last = timeline.last_lsn()?;
        let control = load::control(&timeline, last).await?;
        let checkpoint = load::checkpoint(&timeline, last).await?;
        let directory = Directory::load(&timeline, last).await?;
        let shape = WalShape {
            version: control.version(),
            segment_bytes: control.segment_bytes(),
            system_id: control.system_id(),
            tli: checkpoint.tli,
        };
        Ok(Self {
            timeline,
            decoder: Decoder::new(shape, last),
            ingest: Ingest::new(control, directory, checkpoint, skipped),
            last,
            stopped: None,
        })
    }

    /// The position of the byte that is wanted next.
    pub(crate) fn position(&self) -> Lsn {
        self.decoder.position()
    }

    /// Where the record begins of which some bytes have come, and some have not.
    pub(crate) const fn unfinished(&self) -> Option<Lsn> {
        self.decoder.unfinished()
    }

    /// What is known after the last record.
    #[cfg(test)]
    pub(super) const fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// Takes the bytes of WAL from `at` on, and brings the records that are whole into the
    /// timeline. Bytes that were taken before may be among them. Answers the end of the last
    /// record.
    pub(crate) async fn feed(&mut self, at: Lsn, wal: &[u8]) -> Result<Lsn, IngestStop> {
        let taken = self.try_feed(at, wal).await;
        if let Err(stop) = &taken {
            // The directory here is ahead of the timeline now, or damaged.
            self.stopped = self.stopped.or(Some(stop.lsn));
        }
        taken
    }

    async fn try_feed(&mut self, at: Lsn, wal: &[u8]) -> Result<Lsn, IngestStop> {
        if let Some(lsn) = self.stopped {
            let what = Stop::Before;
            return Err(IngestStop { lsn, what });
        }
        let lsn = self.position();
        let known = lsn.checked_sub(at).and_then(|n| usize::try_from(n).ok());
        let Some(known) = known else {
            let what = Stop::NotNext { found: at };
            return Err(IngestStop { lsn, what });
        };
        self.decoder.feed(wal.get(known..).unwrap_or_default());
        while let Some((start, end, record)) = self.next_record()? {
            self.take(start, end, record)
                .await
                .map_err(|what| IngestStop { lsn: start, what })?;
        }
        Ok(self.last)
    }

    fn next_record(&mut self) -> Result<Option<(Lsn, Lsn, Bytes)>, IngestStop> {
        let next = self.decoder.next().map_err(|error| IngestStop {
            lsn: self.last,
            what: error.into(),
        })?;
        // Kept for as long as pages are made of it, so in memory of its own.
        Ok(next.map(|(start, end, record)| (start, end, Bytes::copy_from_slice(record))))
    }

    async fn take(&mut self, start: Lsn, end: Lsn, record: Bytes) -> Result<(), Stop> {
        let header = RecordHeader::decode(&record).ok_or(FrameError::Length {
            lsn: start,
            bytes: u32::try_from(record.len()).unwrap_or(u32::MAX),
        })?;
        let changes = self.ingest.ingest(start, end, &record)?;
        let prev = if header.prev == NO_RECORD {
            Lsn(0)
        } else {
            header.prev
        };
        self.timeline.ingest(prev, start, end, changes.values)?;
        self.last = end;
        // Whoever feeds flushes long before, but some records are small and change a lot.
        if self.timeline.memory_bytes() > MEMORY_BYTES_MAX {
            self.timeline.flush().await?;
        }
        Ok(())
    }
}
