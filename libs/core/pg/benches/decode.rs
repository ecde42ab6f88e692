//! Framing with checksums, and decoding, of a stream of small records.

#![allow(
    missing_docs,
    reason = "the macro of criterion makes functions without"
)]

use std::hint::black_box;

use bench::{CpuTime, PIECE_BYTES, Workload};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pg::wal::{Decoder, decode};

fn read(workload: &Workload) -> usize {
    let mut decoder = Decoder::new(workload.shape, workload.start);
    let mut records = 0;
    for piece in workload.wal.chunks(PIECE_BYTES) {
        decoder.feed(piece);
        while let Some((start, end, bytes)) = decoder.next().expect("WAL that was read before") {
            let record = decode(workload.shape.version, start, end, bytes);
            assert!(black_box(&record).is_ok());
            records += 1;
        }
    }
    records
}

fn frame(workload: &Workload) {
    let mut decoder = Decoder::new(workload.shape, workload.start);
    for piece in workload.wal.chunks(PIECE_BYTES) {
        decoder.feed(piece);
        while let Some(record) = decoder.next().expect("WAL that was read before") {
            black_box(record);
        }
    }
}

fn benches(criterion: &mut Criterion<CpuTime>) {
    let workload = Workload::read("off").expect("the WAL of `make bench`");
    let mut group = criterion.benchmark_group("decode");
    group.sample_size(20);
    group.throughput(Throughput::Elements(workload.records as u64));
    group.bench_function("frames", |b| b.iter(|| frame(&workload)));
    group.bench_function("records", |b| b.iter(|| read(&workload)));
    group.finish();
}

criterion_group! {
    name = decoding;
    config = Criterion::default().with_measurement(CpuTime);
    targets = benches
}
criterion_main!(decoding);
