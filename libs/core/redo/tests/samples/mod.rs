//! Blocks of records that a run of the oracle keeps, so that redo can be held to them again without
//! a server, in seconds: the measure of how well the oracle bites (`make mutants`).

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use ids::Lsn;
use pg::PgMajor;
use pg::wal::{Record, decode, rmgr};
use redo::{Page, Settings};

/// How many blocks of a kind are kept from its first ones on; later ones are kept ever more rarely.
const FIRST: u64 = 20;
/// How many more of a kind may be kept, as the first ones that are changed in another way.
const SHAPES_MAX: usize = 40;

/// What a record is to redo: resource manager, op, and the role of a block.
type Kind = (u8, u8, u8);

/// What keeps blocks, if the environment says where.
pub(crate) struct Keeper {
    file: Option<BufWriter<File>>,
    seen: HashMap<Kind, u64>,
    shapes: HashMap<Kind, HashSet<Shape>>,
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
        Self {
            file,
            seen: HashMap::new(),
            shapes: HashMap::new(),
        }
    }

    /// Whether blocks are kept at all.
    pub(crate) const fn is_on(&self) -> bool {
        self.file.is_some()
    }

    /// Whether a block of this kind, and the page before and after it, is one to keep.
    pub(crate) fn wants(
        &mut self,
        (rmid, op): (u8, u8),
        record: &Record,
        index: usize,
        [before, after]: [&Page; 2],
    ) -> bool {
        // Blocks of a record that is but images have no roles, and all of them may be large.
        let role = if rmid == rmgr::XLOG {
            0
        } else {
            record.blocks[index].id
        };
        let kind = (rmid, op, role);
        let seen = self.seen.entry(kind).or_default();
        *seen += 1;
        let shapes = self.shapes.entry(kind).or_default();
        let is_new =
            shapes.len() < SHAPES_MAX && shapes.insert(Shape::of(record, index, before, after));
        is_new || *seen <= FIRST || seen.is_power_of_two()
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

/// How a page is changed, told coarsely: what is likely to be a branch of its own in redo.
#[derive(PartialEq, Eq, Hash)]
struct Shape {
    /// What the record's flags say, where heap has them.
    flags: u16,
    /// How long the payloads are, to a power of two.
    lens: [u32; 2],
    /// Where the hole's two ends go.
    ends: [Ordering; 2],
    /// Which 16-bit words of the special space change.
    special: u32,
    /// The page's own flags, before and after.
    page_flags: [u8; 2],
    /// How many bytes change between them, to a power of 16.
    size: u32,
}

impl Shape {
    fn of(record: &Record, index: usize, before: &Page, after: &Page) -> Self {
        let main = record.main_data;
        let flags = match (record.rmid, record.op() & 0x70) {
            (rmgr::HEAP, 0x00) => main.get(2..4),
            (rmgr::HEAP, _) | (rmgr::HEAP2, 0x60) => main.get(6..8),
            (rmgr::HEAP2, _) => main.get(..2),
            _ => None,
        };
        let flags = flags.map_or(0, |flags| u16::from_le_bytes([flags[0], flags[1]]));
        let end = |page: &Page, at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
        let special = usize::from(end(after, 16)).clamp(24, 8192);
        let words = (special..8191).step_by(2).take(32).enumerate();
        let changed = words.map(|(bit, at)| u32::from(end(before, at) != end(after, at)) << bit);
        let size = (24..special).filter(|at| before[*at] != after[*at]).count();
        let log = |len: usize| (len as u64 + 1).ilog2();
        Self {
            flags,
            lens: [log(main.len()), log(record.blocks[index].data.len())],
            ends: [12, 14].map(|at| end(before, at).cmp(&end(after, at))),
            special: changed.sum(),
            page_flags: [before[10], after[10]],
            size: log(size) / 4,
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
    let mut file = BufReader::new(File::open(path).unwrap());
    let version = u32::from_le_bytes(take(&mut file));
    let version = PgMajor::from_number(version).unwrap();
    while !file.fill_buf().unwrap().is_empty() {
        let [start, end, index, hints, len] =
            [0; 5].map(|_: u8| u64::from_le_bytes(take(&mut file)));
        let mut bytes = vec![0; len as usize];
        file.read_exact(&mut bytes).unwrap();
        let [before, after]: [Page; 2] = [0; 2].map(|_: u8| take(&mut file));
        let record = decode(version, Lsn(start), Lsn(end), &bytes).unwrap();
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

fn take<const N: usize>(file: &mut impl Read) -> [u8; N] {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes).unwrap();
    bytes
}
