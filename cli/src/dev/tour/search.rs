//! Looking through every file of a system: for a text, and for sealed files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sealed::header::Header;
use sealed::{HEADER_BYTES, ObjectKind};

/// Every regular file at or below `path`; what vanishes meanwhile is left out.
pub(super) fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![path.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(metadata) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.is_file() {
            found.push(path);
        } else if metadata.is_dir() {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            todo.extend(entries.map(|entry| entry.path()));
        }
    }
    found.sort();
    found
}

/// Those of `files` that hold `needle`.
pub(super) fn holding<'a>(files: &'a [PathBuf], needle: &str) -> Vec<&'a PathBuf> {
    let holds = |path: &&PathBuf| {
        std::fs::read(path).is_ok_and(|bytes| {
            let mut windows = bytes.windows(needle.len());
            windows.any(|window| window == needle.as_bytes())
        })
    };
    files.iter().filter(holds).collect()
}

/// The largest sealed file of this kind below `path`.
pub(super) fn sealed_file(path: &Path, kind: ObjectKind) -> Option<PathBuf> {
    let is_kind = |path: &PathBuf| {
        let mut head = Vec::with_capacity(HEADER_BYTES);
        let read =
            File::open(path).and_then(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut head));
        read.is_ok() && Header::decode(&head).is_ok_and(|header| header.kind == kind)
    };
    files(path)
        .into_iter()
        .filter(is_kind)
        .max_by_key(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_where_it_is_and_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("with"), b"xx-the-row-yy\xFF").unwrap();
        std::fs::write(deep.join("without"), b"the row").unwrap();
        std::fs::write(deep.join("short"), b"t").unwrap();
        let all = files(directory.path());
        assert_eq!(all.len(), 3);
        assert_eq!(holding(&all, "the-row"), [&deep.join("with")]);
        assert_eq!(sealed_file(directory.path(), ObjectKind::LocalWal), None);
    }
}
