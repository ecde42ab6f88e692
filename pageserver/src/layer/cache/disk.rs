//! Copies of sealed objects on the local disk, under the names that they have in the bucket.
//!
//! A copy is not synced and not trusted: whoever reads it checks it as if it came from the
//! bucket, and removes it where it is not what it should be.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

use service::entropy::OsEntropy;

use crate::layer::lock;

const UNFINISHED: &str = "unfinished";

#[derive(Default)]
struct Resident {
    /// Length and last use.
    files: HashMap<String, (u64, u64)>,
    bytes: u64,
    uses: u64,
}

/// Copies up to a number of bytes.
pub(super) struct Disk {
    directory: PathBuf,
    bound: u64,
    resident: Mutex<Resident>,
}

impl Disk {
    /// Opens `directory`; what is there is used.
    pub(super) fn open(directory: PathBuf, bound: u64) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        let mut resident = Resident::default();
        scan(&directory, &directory, &mut resident)?;
        let disk = Self {
            directory,
            bound,
            resident: Mutex::new(resident),
        };
        disk.evict(0);
        Ok(disk)
    }

    pub(super) fn keeps(&self, bytes: u64) -> bool {
        bytes <= self.bound
    }

    pub(super) fn file(&self, name: &str) -> Option<(File, u64)> {
        {
            let mut resident = lock(&self.resident);
            resident.uses += 1;
            let uses = resident.uses;
            resident.files.get_mut(name)?.1 = uses;
        }
        let opened = File::open(self.path(name)?).and_then(|file| {
            let length = file.metadata()?.len();
            Ok((file, length))
        });
        if opened.is_err() {
            self.remove(name);
        }
        opened.ok()
    }

    /// Writes a copy and opens it.
    pub(super) fn put(&self, name: &str, sealed: &[u8]) -> io::Result<File> {
        let path = self
            .path(name)
            .ok_or_else(|| io::Error::other("the name leaves the cache"))?;
        let bytes = sealed.len() as u64;
        self.evict(bytes);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let unfinished = path.with_added_extension(UNFINISHED);
        let written = File::create(&unfinished)
            .and_then(|mut file| file.write_all(sealed))
            .and_then(|()| fs::rename(&unfinished, &path))
            .and_then(|()| File::open(&path));
        let Ok(file) = written else {
            drop(fs::remove_file(&unfinished));
            return written;
        };
        let mut resident = lock(&self.resident);
        resident.uses += 1;
        let entry = (bytes, resident.uses);
        let replaced = resident.files.insert(name.to_owned(), entry);
        resident.bytes += bytes;
        resident.bytes -= replaced.map_or(0, |(bytes, _)| bytes);
        Ok(file)
    }

    pub(super) fn unnamed_file(&self) -> io::Result<File> {
        unnamed_file(&self.directory)
    }

    pub(super) fn remove(&self, name: &str) {
        let mut resident = lock(&self.resident);
        if let Some((bytes, _)) = resident.files.remove(name) {
            resident.bytes -= bytes;
        }
        drop(resident);
        if let Some(path) = self.path(name) {
            // A copy that cannot be removed is found to be what it is by its next reader.
            drop(fs::remove_file(path));
        }
    }

    /// Makes room for `more` bytes, the least recently used going first. Who has a copy open
    /// reads on.
    fn evict(&self, more: u64) {
        loop {
            let oldest = {
                let resident = lock(&self.resident);
                if resident.bytes.saturating_add(more) <= self.bound {
                    return;
                }
                let oldest = resident.files.iter().min_by_key(|(_, (_, used))| *used);
                oldest.map(|(name, _)| name.clone())
            };
            let Some(oldest) = oldest else { return };
            self.remove(&oldest);
        }
    }

    /// The path of a copy; `None` for names that lead elsewhere.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let inside = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        inside.then(|| self.directory.join(name))
    }
}

/// A file that loses its name as soon as it has one. What a crash leaves in between, the next start
/// removes.
pub(super) fn unnamed_file(directory: &Path) -> io::Result<File> {
    let id = u128::from_le_bytes(OsEntropy::bytes());
    let path = directory.join(format!("{id:032x}.{UNFINISHED}"));
    let mut options = File::options();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Notes what is below `directory`, and removes what was not finished.
fn scan(root: &Path, directory: &Path, resident: &mut Resident) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            scan(root, &path, resident)?;
            continue;
        }
        let name = path.strip_prefix(root).ok().and_then(Path::to_str);
        let finished = path.extension().is_none_or(|end| end != UNFINISHED);
        match name.filter(|_| kind.is_file() && finished) {
            Some(name) => {
                let bytes = entry.metadata()?.len();
                resident.files.insert(name.to_owned(), (bytes, 0));
                resident.bytes += bytes;
            }
            None => fs::remove_file(&path)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_found_again_and_the_oldest_makes_room() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::open(directory.path().to_owned(), 250).unwrap();
        disk.put("a/1", &[1; 100]).unwrap();
        disk.put("a/2", &[2; 100]).unwrap();
        assert_eq!(disk.file("a/1").unwrap().1, 100);
        disk.put("b/3", &[3; 100]).unwrap();
        assert!(disk.file("a/2").is_none());
        fs::write(directory.path().join("a/x.unfinished"), [0; 10]).unwrap();
        let disk = Disk::open(directory.path().to_owned(), 250).unwrap();
        assert!(disk.file("a/1").is_some() && disk.file("b/3").is_some());
        assert!(!directory.path().join("a/x.unfinished").exists());
        let disk = Disk::open(directory.path().to_owned(), 100).unwrap();
        assert_eq!(lock(&disk.resident).files.len(), 1);
        assert!(disk.put("../x", &[]).is_err());
    }

    #[test]
    fn a_copy_that_somebody_took_away_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::open(directory.path().to_owned(), 250).unwrap();
        disk.put("1", &[1; 100]).unwrap();
        fs::remove_file(directory.path().join("1")).unwrap();
        assert!(disk.file("1").is_none());
        assert_eq!(lock(&disk.resident).bytes, 0);
    }
}
