//! What benchmarks share: the WAL that they read, and a clock of CPU time.
#![forbid(unsafe_code)]

mod cpu_time;
mod note;
mod workload;

pub use cpu_time::{CpuTime, cpu_time};
pub use note::note;
pub use workload::{PIECE_BYTES, Workload};
