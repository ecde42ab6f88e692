//! The agent's directory on the disk of the machine.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::place;

/// The path of a socket has at most 107 bytes; this leaves room for its name.
const LONGEST: usize = 85;

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A call failed.
    #[error("cannot use {path}: {source}")]
    Io {
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another agent runs there.
    #[error("another agent uses {0}: give each its own directory, or end the other")]
    InUse(PathBuf),
    /// PostgreSQL's user cannot come through.
    #[error("{0} keeps PostgreSQL's user out: chmod o+x, or choose another directory")]
    Closed(PathBuf),
    /// The path is too long for sockets below it.
    #[error("{0} is too long: sockets below it need a path of at most {LONGEST} bytes")]
    TooLong(PathBuf),
}

/// The directory, held by a lock until dropped.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes the directory where it is missing, and locks it.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn take(path: &Path) -> Result<Self, DirectoryError> {
        let io = |path: &Path, source| DirectoryError::Io {
            path: path.to_owned(),
            source,
        };
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(path);
        made.map_err(|e| io(path, e))?;
        let path = fs::canonicalize(path).map_err(|e| io(path, e))?;
        if path.as_os_str().len() > LONGEST {
            return Err(DirectoryError::TooLong(path));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711)).map_err(|e| io(&path, e))?;
        for above in path.ancestors().skip(1) {
            let mode = fs::metadata(above).map_err(|e| io(above, e))?.permissions();
            if mode.mode() & 0o001 == 0 {
                return Err(DirectoryError::Closed(above.to_owned()));
            }
        }
        let name = place::lock(&path);
        let lock = File::create(&name).map_err(|e| io(&name, e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse(path)),
            Err(TryLockError::Error(source)) => Err(io(&name, source)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what an earlier boot left, and makes everything anew.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn clear(&self) -> Result<(), DirectoryError> {
        self.wipe()?;
        for (path, mode) in [
            (place::cipher(&self.path), 0o700),
            (place::inside(&self.path), 0o755),
        ] {
            let io = |source| DirectoryError::Io {
                path: path.clone(),
                source,
            };
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&path)
                .map_err(io)?;
        }
        Ok(())
    }

    /// Removes the sealed bytes, whose key is gone.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn wipe(&self) -> Result<(), DirectoryError> {
        let path = place::cipher(&self.path);
        match fs::remove_dir_all(&path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(DirectoryError::Io { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_at_a_time_and_postgresql_must_come_through() {
        let base = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o711))
            .tempdir()
            .unwrap();
        let taken = Directory::take(&base.path().join("a")).unwrap();
        let again = Directory::take(&base.path().join("a"));
        assert!(matches!(again, Err(DirectoryError::InUse(_))));
        drop(taken);
        assert!(Directory::take(&base.path().join("a")).is_ok());

        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let closed = Directory::take(&base.path().join("a"));
        assert!(matches!(closed, Err(DirectoryError::Closed(_))));
    }
}
