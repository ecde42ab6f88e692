//! The stream over a timeline: which bytes it takes, and where it stops.

use std::sync::Arc;

use pg::wal::{WalShape, lay_out};

use super::*;
use crate::import::tests::{files, home, import_files, initdb};
use crate::ingest::stream::Stop;
use crate::timeline::Timeline;

/// Writes records one after the other.
struct Log {
    shape: WalShape,
    at: Lsn,
    previous: Lsn,
}

impl Log {
    fn write(&mut self, rmid: u8, info: u8, main: &[u8]) -> Vec<u8> {
        let record = encode_record(self.previous, 0, rmid, info, main);
        let written = lay_out(&self.shape, self.at, &record);
        (self.at, self.previous) = (written.end, written.start);
        written.bytes
    }
}

async fn stream(timeline: &Arc<Timeline>) -> IngestStream {
    let begun = IngestStream::new(Arc::clone(timeline), Arc::new([])).await;
    begun.unwrap()
}

#[tokio::test]
async fn a_stream_takes_what_is_next_and_stops_by_name_at_what_it_cannot_take() {
    let bucket = tempfile::tempdir().unwrap();
    let base = files(&initdb());
    let (timeline, imported) = import_files(&home(bucket.path()), base).await.unwrap();
    let mut log = Log {
        shape: WalShape {
            version: PgMajor::V15,
            segment_bytes: imported.wal_segment_bytes,
            system_id: imported.system_id,
            tli: 1,
        },
        at: imported.start_lsn,
        previous: imported.previous_record,
    };
    let mut taking = stream(&timeline).await;
    let (start, oid) = (log.at, 50_000_u32.to_le_bytes());
    let first = log.write(rmgr::XLOG, 0x30, &oid);
    // A part of a record is kept, and bytes that come twice are passed over.
    let last = taking.feed(start, &first[..10]).await.unwrap();
    assert_eq!((last, taking.position()), (start, start + 10));
    let last = taking.feed(start, &first).await.unwrap();
    assert_eq!((last, timeline.last_lsn().unwrap()), (log.at, log.at));
    assert_eq!(taking.feed(start, &first[..4]).await.unwrap(), log.at);

    // Bytes that are missing stop this stream, and no other.
    let stop = taking.feed(log.at + 8, &[0; 8]).await.unwrap_err();
    assert!(matches!(stop.what, Stop::NotNext { .. }) && stop.standing() == Standing::Anew);
    let second = log.write(rmgr::XLOG, 0x30, &oid);
    let stop = taking.feed(last, &second).await.unwrap_err();
    assert!(matches!(stop.what, Stop::Before), "{stop}");
    let mut taking = stream(&timeline).await;
    assert_eq!(taking.feed(last, &second).await.unwrap(), log.at);

    // C3: so does a record that follows another one: others are asked for what belongs there.
    let (at, previous) = (log.at, log.previous);
    log.previous = start;
    let foreign = log.write(rmgr::XLOG, 0x30, &oid);
    let stop = stream(&timeline).await.feed(at, &foreign).await;
    let stop = stop.unwrap_err();
    assert!(matches!(stop.what, Stop::Timeline(_)));
    assert_eq!(stop.standing(), Standing::Damaged);

    // What is not supported is named, and what came before it stays.
    (log.at, log.previous) = (at, previous);
    let good = log.write(rmgr::XLOG, 0x20, &[]);
    let bad_at = log.at;
    let minimal = [words(&[100, 8, 10, 9, 64, 0]), vec![0; 4]].concat();
    let bad = log.write(rmgr::XLOG, 0x60, &minimal);
    let both = [good, bad].concat();
    let stop = stream(&timeline).await.feed(at, &both).await.unwrap_err();
    assert_eq!((stop.lsn, stop.standing()), (bad_at, Standing::ForGood));
    assert!(stop.to_string().contains("wal_level = minimal"));
    assert_eq!(timeline.last_lsn().unwrap(), bad_at);
}
