//! Redo of the WAL of pgbench: as it comes, grouped by page, and of one page at a time.

#![allow(
    missing_docs,
    reason = "the macro of criterion makes functions without"
)]

mod pages;

use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;

use bench::{CpuTime, PIECE_BYTES, Workload, cpu_time};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ids::Lsn;
use pages::Pages;
use pg::wal::{Decoder, Framed, decode, rmgr};
use redo::{Page, Settings};

/// The cluster has no checksums.
const fn settings(workload: &Workload) -> Settings {
    Settings {
        version: workload.shape.version,
        logs_hints: false,
    }
}

/// Brings a stream into pages, all of what each record does to them.
fn ingest(workload: &Workload, pages: &mut Pages) {
    let mut decoder = Decoder::new(workload.shape, workload.start);
    let mut batch = Batch::default();
    for piece in workload.wal.chunks(PIECE_BYTES) {
        decoder.feed(piece);
        while let Some(record) = decoder.next().expect("WAL that was read before") {
            batch.take(record);
            if batch.is_full() {
                batch.redo(workload, pages);
            }
        }
    }
    batch.redo(workload, pages);
}

const BATCH_RECORDS: usize = 64;
/// Images are many bytes: they stay in the nearest cache until they are in their pages.
const BATCH_BYTES: usize = 64 << 10;

/// Records whose pages are sought together: their cache misses then overlap.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each begins and ends, in WAL and in `bytes`.
    places: Vec<(Lsn, Lsn, Range<usize>)>,
}

impl Batch {
    fn take(&mut self, (start, end, bytes): Framed<'_>) {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.places.push((start, end, from..self.bytes.len()));
    }

    fn is_full(&self) -> bool {
        self.places.len() == BATCH_RECORDS || self.bytes.len() > BATCH_BYTES
    }

    fn redo(&mut self, workload: &Workload, pages: &mut Pages) {
        let mut records = Vec::with_capacity(self.places.len());
        for (start, end, place) in &self.places {
            let bytes = &self.bytes[place.clone()];
            let record = decode(workload.shape.version, *start, *end, bytes);
            records.push(record.expect("a record that was read before"));
        }
        pages.redo(settings(workload), &records);
        drop(records);
        self.bytes.clear();
        self.places.clear();
    }
}

/// CPU time of so many passes over pages as they were before the WAL.
fn passes(workload: &Workload, base: &Pages, count: u64) -> Duration {
    let mut used = Duration::ZERO;
    for _ in 0..count {
        let mut pages = base.clone();
        let before = cpu_time();
        ingest(workload, &mut pages);
        used += cpu_time() - before;
        black_box(&pages);
    }
    used
}

/// The records of one page, in order, as a layer keeps them: bytes, and which block the page is.
struct History {
    page: usize,
    records: Vec<Stored>,
}

struct Stored {
    start: Lsn,
    end: Lsn,
    block: usize,
    bytes: Range<usize>,
}

/// The records by page, and the bytes of all of them.
struct Grouped {
    histories: Vec<History>,
    bytes: Vec<u8>,
    /// How many blocks they change.
    changes: usize,
}

impl Grouped {
    /// `after`: the pages as they are after the WAL.
    fn of(workload: &Workload, after: &Pages) -> Self {
        let (mut by_page, mut stream) = (Vec::new(), Vec::new());
        by_page.resize_with(after.len(), Vec::new);
        let mut decoder = Decoder::new(workload.shape, workload.start);
        for piece in workload.wal.chunks(PIECE_BYTES) {
            decoder.feed(piece);
            while let Some((start, end, bytes)) = decoder.next().expect("WAL that was read before")
            {
                let from = stream.len();
                stream.extend_from_slice(bytes);
                let record = decode(workload.shape.version, start, end, bytes);
                let record = record.expect("a record that was read before");
                for (index, block) in record.blocks.iter().enumerate() {
                    let page = after.find(block.rel, block.blkno);
                    by_page[page.expect("a page that the WAL made")].push(Stored {
                        start,
                        end,
                        block: index,
                        bytes: from..stream.len(),
                    });
                }
            }
        }
        let mut grouped = Self {
            histories: Vec::new(),
            bytes: Vec::new(),
            changes: 0,
        };
        for (page, mut records) in by_page.into_iter().enumerate() {
            for stored in &mut records {
                let from = grouped.bytes.len();
                grouped
                    .bytes
                    .extend_from_slice(&stream[stored.bytes.clone()]);
                stored.bytes = from..grouped.bytes.len();
            }
            grouped.changes += records.len();
            if !records.is_empty() {
                grouped.histories.push(History { page, records });
            }
        }
        grouped
    }

    /// Redoes these records on a page.
    fn redo(&self, workload: &Workload, records: &[Stored], page: &mut Page) {
        for stored in records {
            let bytes = &self.bytes[stored.bytes.clone()];
            let decoded = decode(workload.shape.version, stored.start, stored.end, bytes);
            let record = decoded.as_ref().expect("a record that was read before");
            redo::apply(settings(workload), record, stored.block, page)
                .expect("redo of what a server wrote");
        }
    }
}

fn stream(criterion: &mut Criterion<CpuTime>) {
    for name in ["off", "on"] {
        let workload = Workload::read(name).expect("the WAL of `make bench`");
        let base = Pages::of(&workload);
        bench::note(
            &format!("wal-{name}"),
            &[
                ("records", workload.records as f64),
                ("bytes", workload.wal.len() as f64),
            ],
        );
        let mut group = criterion.benchmark_group("stream");
        group.sample_size(10);
        group.throughput(match name {
            "off" => Throughput::Elements(workload.records as u64),
            _ => Throughput::Bytes(workload.wal.len() as u64),
        });
        group.bench_function(name, |b| b.iter_custom(|n| passes(&workload, &base, n)));
        group.finish();
    }
}

fn by_page(criterion: &mut Criterion<CpuTime>) {
    let workload = Workload::read("off").expect("the WAL of `make bench`");
    let mut after = Pages::of(&workload);
    ingest(&workload, &mut after);
    let mut base = Pages::of(&workload);
    let grouped = Grouped::of(&workload, &after);
    base.reach(&after);
    bench::note("grouped", &[("changes", grouped.changes as f64)]);
    let mut group = criterion.benchmark_group("grouped");
    group.sample_size(10);
    group.throughput(Throughput::Elements(grouped.changes as u64));
    group.bench_function("off", |b| {
        b.iter_custom(|count| {
            let mut used = Duration::ZERO;
            for _ in 0..count {
                let mut pages = base.clone();
                let before = cpu_time();
                for history in &grouped.histories {
                    let page = pages.page(history.page);
                    grouped.redo(&workload, &history.records, page);
                }
                used += cpu_time() - before;
                black_box(&pages);
            }
            used
        })
    });
    group.finish();
    rebuild(&workload, &base, &grouped);
}

const REBUILT_RECORDS: usize = 20;

/// Rebuilds pages, each of an image and the first heap records after it, in no order. Printed, as
/// criterion has no quantiles.
fn rebuild(workload: &Workload, base: &Pages, grouped: &Grouped) {
    let is_heap = |stored: &Stored| {
        let rmid = grouped.bytes[stored.bytes.start + 17];
        matches!(rmid, rmgr::HEAP | rmgr::HEAP2)
    };
    let mut jobs: Vec<_> = grouped
        .histories
        .iter()
        .filter(|history| history.records.len() >= REBUILT_RECORDS)
        .filter(|history| history.records[..REBUILT_RECORDS].iter().all(is_heap))
        .collect();
    jobs.sort_by_key(|history| (history.page as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let clock = {
        let mut spans: Vec<_> = (0..10_001)
            .map(|_| {
                let before = cpu_time();
                cpu_time() - before
            })
            .collect();
        spans.sort();
        spans[spans.len() / 2]
    };
    let mut spans = Vec::new();
    let mut page = pg::page::zeroed();
    for history in &jobs {
        let before = cpu_time();
        page.copy_from_slice(base.peek(history.page));
        grouped.redo(workload, &history.records[..REBUILT_RECORDS], &mut page);
        let used = cpu_time() - before;
        black_box(&page);
        spans.push(used.saturating_sub(clock));
    }
    spans.sort();
    let quantile = |share: f64| spans[((spans.len() - 1) as f64 * share) as usize];
    bench::note(
        "rebuild",
        &[
            ("pages", spans.len() as f64),
            ("median_ns", quantile(0.5).as_nanos() as f64),
            ("p99_ns", quantile(0.99).as_nanos() as f64),
        ],
    );
}

criterion_group! {
    name = redoing;
    config = Criterion::default().with_measurement(CpuTime);
    targets = stream, by_page
}
criterion_main!(redoing);
