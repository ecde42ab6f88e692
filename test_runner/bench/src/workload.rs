//! The WAL of pgbench that `make bench` made, and the pages that it begins from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ids::{Lsn, RelTag};
use pg::control::ControlFile;
use pg::datadir::{parse_relation_path, wal_segment_name};
use pg::page::BLOCK;
use pg::wal::{Decoder, WalShape};

/// Streams give WAL in pieces of this length.
pub const PIECE_BYTES: usize = 128 << 10;

/// A data directory as of a checkpoint, and WAL from there on.
pub struct Workload {
    /// What its pages say of themselves.
    pub shape: WalShape,
    /// Where its first record begins.
    pub start: Lsn,
    /// The WAL, and nothing after its last whole record.
    pub wal: Vec<u8>,
    /// How many records that are.
    pub records: usize,
    base: PathBuf,
}

impl Workload {
    /// That of the directory `name` in `REDOUBT_BENCH`: `off` or `on`, as `full_page_writes` was.
    ///
    /// # Errors
    /// It is not there; `make bench` makes it.
    pub fn read(name: &str) -> Result<Self> {
        let directory = std::env::var_os("REDOUBT_BENCH").context("run this by `make bench`")?;
        let base = Path::new(&directory).join("base");
        let control = ControlFile::parse(&fs::read(base.join("global/pg_control"))?)?;
        let start = control.checkpoint().redo;
        let segment_bytes = control.segment_bytes();
        let mut workload = Self {
            shape: WalShape {
                version: control.version(),
                segment_bytes,
                system_id: control.system_id(),
                tli: control.checkpoint().tli,
            },
            start,
            wal: Vec::new(),
            records: 0,
            base,
        };
        for segment in start.segment(segment_bytes).. {
            let file = wal_segment_name(
                workload.shape.tli,
                Lsn(segment * segment_bytes),
                segment_bytes,
            );
            let Ok(bytes) = fs::read(Path::new(&directory).join(name).join(file)) else {
                break;
            };
            workload.wal.extend(bytes);
        }
        let skipped = start.segment_offset(segment_bytes) as usize;
        ensure!(
            workload.wal.len() > skipped,
            "no WAL in {name}: run `make bench`"
        );
        workload.wal.drain(..skipped);
        workload.cut()?;
        Ok(workload)
    }

    /// Leaves nothing after the last whole record.
    fn cut(&mut self) -> Result<()> {
        let mut decoder = Decoder::new(self.shape, self.start);
        let mut end = self.start;
        'wal: for piece in self.wal.chunks(PIECE_BYTES) {
            decoder.feed(piece);
            loop {
                match decoder.next() {
                    Ok(Some((_, to, _))) => (self.records, end) = (self.records + 1, to),
                    Ok(None) => break,
                    Err(_) => break 'wal, // where the server was stopped
                }
            }
        }
        ensure!(self.records > 0, "no record at {}", self.start);
        self.wal.truncate((end - self.start) as usize);
        Ok(())
    }

    /// Every page of the data directory's relations, each once.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn pages(&self, mut each: impl FnMut(RelTag, u32, &[u8; BLOCK])) -> Result<()> {
        let mut directories = vec![self.base.join("global")];
        for entry in fs::read_dir(self.base.join("base"))? {
            directories.push(entry?.path());
        }
        for directory in directories {
            for entry in fs::read_dir(&directory)? {
                let path = entry?.path();
                let name = path
                    .strip_prefix(&self.base)?
                    .to_string_lossy()
                    .into_owned();
                let Some((rel, segment)) = parse_relation_path(&name) else {
                    continue;
                };
                let first = segment * ((1 << 30) / BLOCK as u32);
                for (block, page) in (first..).zip(fs::read(&path)?.as_chunks().0) {
                    each(rel, block, page);
                }
            }
        }
        Ok(())
    }
}
