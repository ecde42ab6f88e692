//! Files and directories; every call leaves the thread of the runtime free.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::error::DiskError;

/// A file that was not finished being created; a restart removes it.
const UNFINISHED: &str = "new";

/// The right to change a directory. Every change holds it until it is done, also one whose future
/// was dropped: so nobody opens the directory while such a change is still on its way.
#[derive(Clone)]
pub(super) struct Lock(#[expect(dead_code, reason = "held, not read")] Arc<File>);

/// Takes the lock of a directory; `None` where another store has it.
pub(super) async fn lock(path: &Path) -> Result<Option<Lock>, DiskError> {
    run("lock", path, |path| {
        let directory = File::open(path)?;
        match directory.try_lock() {
            Ok(()) => Ok(Some(Lock(Arc::new(directory)))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    })
    .await
}

async fn change<T: Send + 'static>(
    lock: &Lock,
    what: &'static str,
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, DiskError> {
    let lock = lock.clone();
    run(what, path, move |path| {
        let done = work(path);
        drop(lock);
        done
    })
    .await
}

async fn run<T: Send + 'static>(
    what: &'static str,
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, DiskError> {
    let owned = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&owned)).await;
    done.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
        .map_err(|source| DiskError {
            what,
            path: path.to_owned(),
            unsynced: source.get_ref().is_some_and(|e| e.is::<Unsynced>()),
            source,
        })
}

/// After a sync that failed the page cache may show as clean what never reached the disk.
#[derive(Debug, thiserror::Error)]
#[error("a sync failed: {0}")]
struct Unsynced(io::Error);

fn synced(result: io::Result<()>) -> io::Result<()> {
    result.map_err(|error| io::Error::new(error.kind(), Unsynced(error)))
}

/// Appends `bytes` at `offset` and syncs them.
pub(super) async fn append(
    lock: &Lock,
    file: &Arc<File>,
    path: &Path,
    offset: u64,
    bytes: Bytes,
) -> Result<(), DiskError> {
    let file = Arc::clone(file);
    change(lock, "append to", path, move |_| {
        file.write_all_at(&bytes, offset)?;
        synced(file.sync_data())
    })
    .await
}

/// Cuts what lies behind `length` off, and syncs.
pub(super) async fn cut(
    lock: &Lock,
    file: &Arc<File>,
    path: &Path,
    length: u64,
) -> Result<(), DiskError> {
    let file = Arc::clone(file);
    change(lock, "cut", path, move |_| {
        file.set_len(length)?;
        synced(file.sync_all())
    })
    .await
}

/// Makes a file that is there with all of `bytes` or, after a crash, not there.
pub(super) async fn create(lock: &Lock, path: &Path, bytes: Bytes) -> Result<Arc<File>, DiskError> {
    change(lock, "create", path, move |path| {
        let unfinished = path.with_extension(UNFINISHED);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&unfinished)?;
        file.write_all(&bytes)?;
        synced(file.sync_all())?;
        fs::rename(&unfinished, path)?;
        sync_parent(path)?;
        Ok(Arc::new(file))
    })
    .await
}

/// Opens a file for more writing, and all that is in it.
pub(super) async fn open(path: &Path) -> Result<(Arc<File>, Vec<u8>), DiskError> {
    run("open", path, |path| {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok((Arc::new(file), fs::read(path)?))
    })
    .await
}

/// The `length` bytes from `offset` on.
pub(super) async fn read(
    file: &Arc<File>,
    path: &Path,
    offset: u64,
    length: usize,
) -> Result<Vec<u8>, DiskError> {
    let file = Arc::clone(file);
    run("read", path, move |_| {
        let mut out = vec![0; length];
        file.read_exact_at(&mut out, offset)?;
        Ok(out)
    })
    .await
}

/// Moves a directory out of the way, to a name that no other one has.
pub(super) async fn set_aside(lock: &Lock, path: &Path) -> Result<(), DiskError> {
    change(lock, "set aside", path, |path| {
        let now = service::clock::unix_seconds();
        fs::rename(path, path.with_extension(format!("doubted-{now}")))?;
        sync_parent(path)
    })
    .await
}

/// Whether there is something at `path`.
pub(super) async fn exists(path: &Path) -> Result<bool, DiskError> {
    run("look for", path, Path::try_exists).await
}

/// Removes a file, for good when it returns.
pub(super) async fn unlink(lock: &Lock, path: &Path) -> Result<(), DiskError> {
    change(lock, "remove", path, |path| {
        fs::remove_file(path)?;
        sync_parent(path)
    })
    .await
}

/// Makes a directory and those above it, unless they are there. The name of each is synced: a new
/// tenant's WAL must not vanish with the entry of a directory above it.
pub(super) async fn create_directory(path: &Path) -> Result<(), DiskError> {
    run("create", path, |path| {
        let missing: Vec<&Path> = path.ancestors().take_while(|p| !p.exists()).collect();
        fs::create_dir_all(path)?;
        missing.into_iter().rev().try_for_each(sync_parent)?;
        sync_parent(path)
    })
    .await
}

/// The files of a directory. What was not finished being created is removed.
pub(super) async fn list(path: &Path) -> Result<Vec<PathBuf>, DiskError> {
    run("list", path, |path| {
        let mut found = Vec::new();
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == UNFINISHED) {
                fs::remove_file(&path)?;
            } else {
                found.push(path);
            }
        }
        Ok(found)
    })
    .await
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    synced(File::open(parent.unwrap_or(Path::new(".")))?.sync_all())
}
