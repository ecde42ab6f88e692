//! The files as they are on the disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pg::kept::{AUTO_CONF, FILE_BYTES_MAX, KeptPath, MAPPINGS, SLOTS, SNAPSHOTS};

use super::{RoundError, slot};

/// Contents by path; a file that is too long is one byte longer than the limit here.
pub(crate) type Files = BTreeMap<KeptPath, Vec<u8>>;

/// What was read, and how each file looked then.
#[derive(Default)]
pub(super) struct Seen(BTreeMap<KeptPath, (Look, Vec<u8>)>);

/// Another file, or another content, looks otherwise: PostgreSQL replaces these files by renaming,
/// or appends.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Seen {
    /// Looks at the data directory `data`, and reads what looks otherwise than before.
    pub(super) fn look(&mut self, data: &Path) -> Result<(), RoundError> {
        let mut found = BTreeMap::new();
        // States before what they begin from is listed: PostgreSQL writes it before the state.
        self.look_at(data, states(data)?, &mut found)?;
        self.look_at(data, begun_from(data)?, &mut found)?;
        self.0 = found;
        Ok(())
    }

    fn look_at(
        &mut self,
        data: &Path,
        paths: Vec<String>,
        found: &mut BTreeMap<KeptPath, (Look, Vec<u8>)>,
    ) -> Result<(), RoundError> {
        for path in paths.iter().filter_map(|path| KeptPath::new(path)) {
            let at = data.join(path.as_str());
            let unread = |source| RoundError::Read {
                path: at.clone(),
                source,
            };
            let Some(metadata) = present(fs::metadata(&at)).map_err(unread)? else {
                continue;
            };
            let look = Look {
                inode: metadata.ino(),
                bytes: metadata.len(),
                changed: (metadata.mtime(), metadata.mtime_nsec()),
            };
            let before = self.0.remove(&path).filter(|(then, _)| *then == look);
            let content = match before {
                Some((_, content)) => Some(content),
                None => present(read(&at)).map_err(unread)?,
            };
            if let Some(content) = content {
                found.insert(path, (look, content));
            }
        }
        Ok(())
    }

    /// The files that are to be kept: of slots, those that a boot can go on with.
    pub(super) fn files(&self) -> Files {
        let files = self.0.iter().map(|(path, (_, content))| (path, content));
        files
            .filter(|(path, content)| path.slot().is_none() || slot::read(content).is_some())
            .map(|(path, content)| (path.clone(), content.clone()))
            .collect()
    }
}

/// All files of the data directory `data` that are kept.
pub(super) fn read_all(data: &Path) -> Result<Files, RoundError> {
    let mut seen = Seen::default();
    seen.look(data)?;
    let files = seen.0.into_iter();
    Ok(files.map(|(path, (_, content))| (path, content)).collect())
}

fn states(data: &Path) -> Result<Vec<String>, RoundError> {
    let mut paths = vec![AUTO_CONF.to_owned()];
    let slots = names(data, SLOTS)?.into_iter();
    paths.extend(slots.map(|name| format!("{SLOTS}/{name}/state")));
    Ok(paths)
}

/// What slots begin from.
fn begun_from(data: &Path) -> Result<Vec<String>, RoundError> {
    let mut paths = Vec::new();
    for directory in [SNAPSHOTS, MAPPINGS] {
        let files = names(data, directory)?.into_iter();
        paths.extend(files.map(|name| format!("{directory}/{name}")));
    }
    Ok(paths)
}

fn names(data: &Path, directory: &str) -> Result<Vec<String>, RoundError> {
    let path = data.join(directory);
    let listed = fs::read_dir(&path).and_then(|entries| {
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().ok());
        entries.map(name).collect::<io::Result<Vec<_>>>()
    });
    match listed {
        Ok(names) => Ok(names.into_iter().flatten().collect()),
        Err(source) => Err(RoundError::Read { path, source }),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let limit = FILE_BYTES_MAX as u64 + 1;
    io::Read::read_to_end(
        &mut io::Read::take(fs::File::open(path)?, limit),
        &mut content,
    )?;
    Ok(content)
}

/// PostgreSQL may remove a file between two looks.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_read_anew_when_replaced_and_missed_when_gone() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path();
        for made in [
            "pg_replslot/orders",
            "pg_replslot/redoubt",
            SNAPSHOTS,
            MAPPINGS,
        ] {
            fs::create_dir_all(data.join(made)).unwrap();
        }
        let write = |path: &str, content: &[u8]| fs::write(data.join(path), content).unwrap();
        write("pg_replslot/orders/state", b"no state of a slot");
        write("pg_replslot/orders/state.tmp", b"half");
        write("pg_replslot/redoubt/state", b"ours");
        write("pg_logical/snapshots/0-1A.snap", b"snapshot");
        write("postgresql.conf", b"not kept");
        write(AUTO_CONF, b"one");
        let found: Vec<_> = read_all(data).unwrap().into_keys().collect();
        let found: Vec<_> = found.iter().map(KeptPath::as_str).collect();
        let expected = [
            "pg_logical/snapshots/0-1A.snap",
            "pg_replslot/orders/state",
            AUTO_CONF,
        ];
        assert_eq!(found, expected);

        let mut seen = Seen::default();
        seen.look(data).unwrap();
        let conf = KeptPath::new(AUTO_CONF).unwrap();
        assert_eq!(seen.files()[&conf], b"one");
        assert_eq!(seen.files().len(), 2, "a state that is none is not kept");
        write("new", b"two");
        fs::rename(data.join("new"), data.join(AUTO_CONF)).unwrap();
        seen.look(data).unwrap();
        assert_eq!(seen.files()[&conf], b"two");
        fs::remove_file(data.join(AUTO_CONF)).unwrap();
        seen.look(data).unwrap();
        assert!(!seen.files().contains_key(&conf));
    }
}
