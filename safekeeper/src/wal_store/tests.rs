//! Crashes are played by putting files into the states that a crash may leave.

use std::fs;
use std::path::Path;

use keyring::Keyring;
use sealed::log::AppendError;

use super::*;

const TENANT: TenantId = TenantId([7; 16]);
const MARKER: &[u8] = b"the customer's own words";
/// So near to a border that a few small frames cross it.
const START: Lsn = Lsn(5 * SEGMENT_BYTES - 300);

struct Bench {
    root: tempfile::TempDir,
    ring: Keyring,
}

impl Bench {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            ring: Keyring::fixed([1; 32]),
        }
    }

    fn place(&self) -> Place {
        Place {
            directory: self.root.path().join("timeline"),
            tenant: TENANT,
            timeline: TimelineId([8; 16]),
            generation: Generation(1),
            node: NodeId(3),
        }
    }

    async fn create(&self) -> WalStore {
        let keys = self.ring.tenant(TENANT).await.unwrap();
        WalStore::create(self.place(), keys, START, Term(1))
            .await
            .unwrap()
    }

    async fn open_with(&self, anchor: Option<&StoreAnchor>) -> Result<WalStore, OpenError> {
        let keys = self.ring.tenant(TENANT).await.unwrap();
        WalStore::open(self.place(), keys, anchor).await
    }

    async fn open(&self) -> Result<WalStore, OpenError> {
        self.open_with(None).await
    }

    fn file(&self, number: u64) -> PathBuf {
        segment_path(&self.place(), number)
    }

    /// All files, with names.
    fn save(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(self.place().directory).unwrap();
        let paths = entries.map(|e| e.unwrap().path());
        paths.map(|p| (p.clone(), fs::read(p).unwrap())).collect()
    }

    fn restore(&self, files: &BTreeMap<PathBuf, Vec<u8>>) {
        fs::remove_dir_all(self.place().directory).unwrap();
        fs::create_dir(self.place().directory).unwrap();
        for (path, bytes) in files {
            fs::write(path, bytes).unwrap();
        }
    }
}

/// WAL with the marker all over it, which differs between positions and between `salt`s.
fn wal(at: Lsn, length: usize, salt: u8) -> Vec<u8> {
    let byte = |i: usize| match (at.0 as usize + i) % 64 {
        m if m < MARKER.len() => MARKER[m],
        _ => ((at.0 as usize + i) / 64) as u8 ^ salt,
    };
    (0..length).map(byte).collect()
}

/// Appends `count` pieces of 100 bytes.
async fn fill(store: &mut WalStore, count: usize, salt: u8) {
    for _ in 0..count {
        let at = store.end_lsn().unwrap();
        store.append(at, &wal(at, 100, salt)).await.unwrap();
    }
}

async fn assert_holds(store: &WalStore, from: Lsn, to: Lsn, salt: u8) {
    let read = store.read(from..to).await.unwrap();
    assert_eq!(read, wal(from, (to - from) as usize, salt));
}

fn holds_marker(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().any(|entry| {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(MARKER.len()).any(|w| w == MARKER)
    })
}

#[tokio::test]
async fn wal_is_read_back_across_segments_and_restarts_and_lies_sealed_only() {
    let bench = Bench::new();
    let mut store = bench.create().await;
    let length = 2 * (1 << 20) + 500;
    store.append(START, &wal(START, length, 1)).await.unwrap();
    let end = START + length as u64;
    for _ in 0..2 {
        assert_eq!(
            (store.first_lsn(), store.end_lsn()),
            (Some(START), Some(end))
        );
        assert_holds(&store, START, end, 1).await;
        assert_holds(&store, START + 250, START + 351, 1).await;
        drop(store);
        store = bench.open().await.unwrap();
    }
    // S3: the border parts the frames, 1 MiB parts them further.
    let tail = store.tail.as_ref().unwrap();
    let lengths = |log: &Log| {
        log.frames()
            .iter()
            .map(|f| f.end_lsn - f.start_lsn)
            .collect::<Vec<_>>()
    };
    assert_eq!(lengths(&store.finished[&4].log), [300]);
    assert!(store.finished[&4].log.is_sealed());
    assert_eq!(lengths(tail.writer.log()), [1 << 20, 1 << 20, 200]);
    for range in [START..end + 1, Lsn(START.0 - 1)..end, end..START] {
        assert!(matches!(
            store.read(range).await,
            Err(ReadError::OutOfRange { .. })
        ));
    }

    let directory = bench.place().directory;
    assert!(!holds_marker(&directory));
    fs::write(directory.join("plain"), wal(START, 300, 1)).unwrap();
    assert!(
        holds_marker(&directory),
        "the search does not find what is there"
    );
}

#[tokio::test]
async fn a_directory_has_one_store_at_a_time() {
    let bench = Bench::new();
    let store = bench.create().await;
    assert!(matches!(bench.open().await, Err(OpenError::InUse(_))));
    drop(store);
    assert!(bench.open().await.is_ok());
}

#[tokio::test]
async fn a_refused_append_writes_nothing_and_leaves_the_store_alive() {
    let bench = Bench::new();
    let mut store = bench.create().await;
    fill(&mut store, 1, 1).await;
    let before = bench.save();
    for at in [START, START + 99, START + 101] {
        let refused = store.append(at, b"x").await;
        assert!(matches!(
            refused,
            Err(WriteError::Refused(AppendError::Gap { .. }))
        ));
    }
    assert_eq!(bench.save(), before);
    fill(&mut store, 1, 1).await;
    assert_holds(&store, START, START + 200, 1).await;
}

#[tokio::test]
async fn a_write_cut_at_any_byte_is_dropped_whole() {
    let bench = Bench::new();
    let mut store = bench.create().await;
    fill(&mut store, 1, 1).await;
    let durable = fs::read(bench.file(4)).unwrap().len();
    fill(&mut store, 1, 1).await;
    let files = bench.save();
    let whole = &files[&bench.file(4)];
    for cut in durable..whole.len() {
        for zeros in [0, 50] {
            bench.restore(&files);
            let cut_short = [&whole[..cut], &vec![0; zeros]].concat();
            // Where a tag ends in zeros, nothing was lost.
            let kept = if cut_short.starts_with(whole) {
                200
            } else {
                100
            };
            fs::write(bench.file(4), cut_short).unwrap();
            let mut store = bench.open().await.unwrap();
            assert_eq!(store.end_lsn(), Some(START + kept), "cut at {cut}");
            fill(&mut store, 1, 2).await;
            drop(store);
            assert!(bench.open().await.is_ok(), "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_before_the_last_record_is_refused() {
    let bench = Bench::new();
    let mut store = bench.create().await;
    fill(&mut store, 1, 1).await;
    let covered = fs::read(bench.file(4)).unwrap().len();
    fill(&mut store, 1, 1).await;
    let files = bench.save();
    drop(store);
    for at in 0..covered {
        let mut bytes = files[&bench.file(4)].clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(bench.file(4), &bytes).unwrap();
        match bench.open().await.err() {
            Some(OpenError::Header { .. } | OpenError::Key(_)) if at < 512 => {}
            Some(OpenError::Damaged { segment: 4, .. }) => {}
            other => panic!("byte {at}: {other:?}"),
        }
        assert_eq!(
            fs::read(bench.file(4)).unwrap(),
            bytes,
            "a refusal changes nothing"
        );
    }
}

#[tokio::test]
async fn damage_after_the_opening_is_seen_by_the_read() {
    let bench = Bench::new();
    let mut store = bench.create().await;
    fill(&mut store, 2, 1).await;
    let mut bytes = fs::read(bench.file(4)).unwrap();
    bytes[512 + 128 + 40] ^= 1;
    fs::write(bench.file(4), bytes).unwrap();
    let read = store.read(START..START + 200).await;
    assert!(matches!(read, Err(ReadError::Damaged { segment: 4, .. })));
    assert_holds(&store, START + 100, START + 200, 1).await;
}

#[tokio::test]
async fn truncation_voids_what_follows_and_survives_a_restart() {
    let bench = Bench::new();
    let mut store = bench.create().await;
    fill(&mut store, 5, 1).await;
    // Inside the tail, then into the segment before it.
    for (to, term, salt) in [(START + 450, 2, 2), (START + 150, 3, 3)] {
        store.truncate(to, Term(term)).await.unwrap();
        assert_eq!(store.end_lsn(), Some(to));
        fill(&mut store, 4, salt).await;
        for _ in 0..2 {
            assert_holds(&store, START, START + 150, 1).await;
            assert_holds(&store, to, to + 400, salt).await;
            drop(store);
            store = bench.open().await.unwrap();
        }
    }
    assert!(matches!(
        store.truncate(Lsn(START.0 - 1), Term(9)).await,
        Err(WriteError::TooOld { .. })
    ));
    assert!(matches!(
        store.truncate(START, Term(3)).await,
        Err(WriteError::SameTerm(_))
    ));
    let end = store.end_lsn().unwrap();
    let old = store.truncate(end, Term(2)).await;
    assert!(matches!(
        old,
        Err(WriteError::Refused(AppendError::OldTerm { .. }))
    ));
    assert!(store.end_lsn().is_some());
}

mod crashes;
