//! WAL that a server wrote: its records, and what the server's own recovery makes of it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ids::Lsn;
use pg::datadir::{parse_wal_segment_name, wal_segment_name};
use pg::wal::{Decoder, WalShape};

use crate::Scene;

/// WAL in a data directory.
pub struct Wal {
    directory: PathBuf,
    /// What its pages say of themselves.
    pub shape: WalShape,
    /// Where reading begins.
    pub start: Lsn,
}

impl Wal {
    /// That of the data directory `written`, from the checkpoint on that its copy `base` ends with.
    pub fn after(scene: &Scene, base: &str, written: &str) -> Self {
        let number = |field| scene.control(base, field).parse().unwrap();
        Self {
            directory: scene.at().join(written).join("pg_wal"),
            shape: WalShape {
                version: scene.release.major,
                segment_bytes: number("Bytes per WAL segment"),
                system_id: number("Database system identifier"),
                tli: 1,
            },
            start: scene
                .control(base, "Latest checkpoint's REDO location")
                .parse()
                .unwrap(),
        }
    }

    /// Gives every record: where it begins and ends, and its bytes. Answers where the last ends,
    /// which is where something is that is no record.
    pub fn for_each(&self, mut each: impl FnMut(Lsn, Lsn, &[u8])) -> Lsn {
        let size = self.shape.segment_bytes;
        let mut decoder = Decoder::new(self.shape, self.start);
        let mut read = self.start;
        for segment in self.start.segment(size).. {
            let name = wal_segment_name(1, Lsn(segment * size), size);
            let file = self.directory.join(name);
            let bytes = match fs::read(&file) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) => panic!("{}: {error}", file.display()),
            };
            let skip = self.start.0.saturating_sub(segment * size) as usize;
            decoder.feed(&bytes[skip.min(bytes.len())..]);
            loop {
                match decoder.next() {
                    Ok(Some((start, end, bytes))) => {
                        each(start, end, bytes);
                        read = end;
                    }
                    Ok(None) => break,
                    Err(error) => {
                        println!("WAL ends at {read}: {error}");
                        return read;
                    }
                }
            }
        }
        println!("WAL ends at {read}, where no segment goes on");
        read
    }
}

/// What a stock server makes of `base` when it recovers WAL of the data directory `written` up to
/// `end`, where the record at `last` ends. It stops as in a crash: the checkpoint at the end of
/// recovery has written every page, and nothing but recovery has changed any.
pub fn recover(
    scene: &Scene,
    base: &str,
    written: &str,
    (last, end): (Lsn, Lsn),
    into: &str,
) -> PathBuf {
    let cut = scene.at().join(into);
    let size = scene
        .control(base, "Bytes per WAL segment")
        .parse()
        .unwrap();
    scene.run(&format!(
        "rm -rf {into} && cp -r {base} {into} && cp {written}/pg_wal/0* {into}/pg_wal/ && \
         chmod 777 {into} {into}/pg_wal {into}/global && \
         chmod a+rw {into}/pg_wal/0* {into}/global/pg_control"
    ));
    for entry in fs::read_dir(cut.join("pg_wal")).unwrap() {
        cut_segment(&entry.unwrap().path(), end, size);
    }
    pretend_crash(&cut.join("global/pg_control"));
    scene.run(&format!("chmod -R go-w {into}"));
    scene.start(into, "-c full_page_writes=off -c wal_consistency_checking=");
    scene.stop(into, "immediate");
    let log = fs::read_to_string(scene.at().join(format!("{into}.log"))).unwrap();
    assert!(log.contains(&format!("redo done at {last} ")), "{log}");
    cut
}

/// Leaves nothing of a segment after `end`.
fn cut_segment(path: &Path, end: Lsn, size: u64) {
    let name = path.file_name().unwrap().to_str().unwrap();
    let Some((_, first)) = parse_wal_segment_name(name, size) else {
        return;
    };
    if first >= end {
        fs::remove_file(path).unwrap();
    } else if end < first + size {
        let mut bytes = fs::read(path).unwrap();
        bytes[(end.0 - first.0) as usize..].fill(0);
        fs::write(path, bytes).unwrap();
    }
}

/// Says in `pg_control` that the server was running, so that it recovers.
fn pretend_crash(path: &Path) {
    const IN_PRODUCTION: u32 = 6;
    let mut bytes = fs::read(path).unwrap();
    let is_checksum =
        |at: &usize| crc32c::crc32c(&bytes[..*at]).to_le_bytes() == bytes[*at..*at + 4];
    let checksum = (256..512).step_by(4).find(is_checksum);
    let at = checksum.expect("pg_control holds its checksum");
    bytes[16..20].copy_from_slice(&IN_PRODUCTION.to_le_bytes());
    let sum = crc32c::crc32c(&bytes[..at]);
    bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
    fs::write(path, bytes).unwrap();
}
