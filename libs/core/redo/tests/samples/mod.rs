//! Blocks of records that a run of the oracle keeps, so that redo can be held to them again without
//! a server, in seconds: the measure of how well the oracle bites (`make mutants`).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use ids::Lsn;
use pg::PgMajor;
use pg::wal::{Record, decode};
use redo::{Page, Settings};

/// How many blocks of a kind are kept from its first ones on; later ones are kept ever more rarely.
const FIRST: u64 = 24;

/// What keeps blocks, if the environment says where.
pub(crate) struct Keeper {
    file: Option<BufWriter<File>>,
    seen: HashMap<(u8, u8, u8), u64>,
}

impl Keeper {
    /// Keeps in a file of its own what a release does.
    pub(crate) fn of(release: &str, version: PgMajor) -> Self {
        let file = directory().map(|directory| {
            fs::create_dir_all(&directory).unwrap();
            let name = directory.join(format!("{release}.samples"));
            let mut file = BufWriter::new(File::create(name).unwrap());
            file.write_all(&version.number().to_le_bytes()).unwrap();
            file
        });
        let seen = HashMap::new();
        Self { file, seen }
    }

    /// Whether the next block of this kind, in this role, is one to keep.
    pub(crate) fn wants(&mut self, (rmid, op): (u8, u8), role: u8) -> bool {
        if self.file.is_none() {
            return false;
        }
        let seen = self.seen.entry((rmid, op, role)).or_default();
        *seen += 1;
        *seen <= FIRST || seen.is_power_of_two()
    }

    /// Keeps a block of a record with these bytes, and the page before and after it.
    pub(crate) fn keep(
        &mut self,
        settings: Settings,
        (record, bytes): (&Record, &[u8]),
        index: usize,
        pages: [&Page; 2],
    ) {
        let Some(file) = &mut self.file else { return };
        let numbers = [
            record.start.0,
            record.end.0,
            index as u64,
            u64::from(settings.logs_hints),
            bytes.len() as u64,
        ];
        for number in numbers {
            file.write_all(&number.to_le_bytes()).unwrap();
        }
        file.write_all(bytes).unwrap();
        for page in pages {
            file.write_all(page).unwrap();
        }
    }
}

/// Where blocks are kept.
pub(crate) fn directory() -> Option<PathBuf> {
    std::env::var_os("REDOUBT_SAMPLES").map(PathBuf::from)
}

/// A block that was kept.
pub(crate) struct Sample<'a> {
    pub(crate) record: Record<'a>,
    pub(crate) index: usize,
    pub(crate) before: Page,
    /// What redo made of it when the oracle found nothing wrong.
    pub(crate) after: Page,
}

/// Gives the blocks in a file, with the version that wrote their records.
pub(crate) fn for_each(path: &Path, mut each: impl FnMut(Settings, &Sample<'_>)) {
    let bytes = fs::read(path).unwrap();
    let (version, mut left) = bytes.split_at(4);
    let version = u32::from_le_bytes(version.try_into().unwrap());
    let version = PgMajor::from_number(version).unwrap();
    while !left.is_empty() {
        let mut take = |len: usize| left.split_off(..len).unwrap();
        let [start, end, index, hints, len] =
            [0; 5].map(|_: u8| u64::from_le_bytes(take(8).try_into().unwrap()));
        let record = take(len as usize);
        let [before, after] = [0; 2].map(|_: u8| Page::try_from(take(8192)).unwrap());
        let record = decode(version, Lsn(start), Lsn(end), record).unwrap();
        let settings = Settings {
            version,
            logs_hints: hints != 0,
        };
        let index = index as usize;
        each(
            settings,
            &Sample {
                record,
                index,
                before,
                after,
            },
        );
    }
}
