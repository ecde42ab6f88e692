//! The directory in which one local system lies, whole.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::Args;

use super::system::System;
use crate::exit::Failure;

/// Which local system is meant.
#[derive(Args, Clone)]
pub(crate) struct Directory {
    /// The directory of the local system; where nothing is said ~/.redoubt, or /var/lib/redoubt
    /// where Postgres's user could not come through to the first.
    #[arg(long, env = "REDOUBT_HOME", value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

impl Directory {
    /// The directory, which need not exist.
    pub(crate) fn home(&self) -> Result<Home, Failure> {
        let directory = match &self.directory {
            Some(directory) => directory.clone(),
            None => usual()?,
        };
        let root = std::path::absolute(&directory)
            .map_err(|error| Failure::reading(&directory, &error))?;
        // Processes are recognized by their paths, which they show without links.
        let root = std::fs::canonicalize(&root).unwrap_or(root);
        Ok(Home { root })
    }

    /// The directory and the system in it.
    pub(crate) fn open(&self) -> Result<(Home, System), Failure> {
        let home = self.home()?;
        let system = System::load(&home)?.ok_or_else(|| {
            Failure::fix(format_args!(
                "there is no local system in {}: make one with `redoubt dev up`",
                home.root.display()
            ))
        })?;
        Ok((home, system))
    }
}

/// Every user of the machine comes to the same answer, so that what root made is found.
fn usual() -> Result<PathBuf, Failure> {
    let home =
        std::env::var_os("HOME").ok_or_else(|| Failure::fix("HOME is not set: say --directory"))?;
    let own = PathBuf::from(home).join(".redoubt");
    let system = PathBuf::from("/var/lib/redoubt");
    let has_system = |root: &PathBuf| root.join("system.json").exists();
    let chosen = if has_system(&own) || (!has_system(&system) && closed(&own).is_none()) {
        own
    } else {
        system
    };
    Ok(chosen)
}

/// The directory on the way to `path` that keeps other users out, Postgres's among them.
pub(crate) fn closed(path: &Path) -> Option<PathBuf> {
    let above = path.ancestors().skip(1);
    let shut = |path: &&Path| {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 == 0)
    };
    above.into_iter().find(shut).map(Path::to_owned)
}

/// Where everything of a local system is.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    /// The directory that holds all of it.
    pub(crate) root: PathBuf,
}

impl Home {
    pub(crate) fn description(&self) -> PathBuf {
        self.root.join("system.json")
    }

    pub(crate) fn identity(&self, name: &str) -> PathBuf {
        self.root.join("identity").join(name)
    }

    pub(crate) fn token(&self, name: &str) -> PathBuf {
        self.root.join("tokens").join(name)
    }

    pub(crate) fn password(&self) -> PathBuf {
        self.root.join("postgres.password")
    }

    /// The directory of the `local` KMS.
    pub(crate) fn kms(&self) -> PathBuf {
        self.root.join("kms")
    }

    /// The module of Postgres.
    pub(crate) fn guard(&self) -> PathBuf {
        self.root.join("lib/redoubt_guard.so")
    }

    pub(crate) fn bucket(&self) -> PathBuf {
        self.root.join("bucket")
    }

    pub(crate) fn config(&self, name: &str) -> PathBuf {
        self.root.join("config").join(format!("{name}.toml"))
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    pub(crate) fn pid(&self, name: &str) -> PathBuf {
        self.root.join("run").join(format!("{name}.pid"))
    }

    /// What the process `name` keeps.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Waits until no other command changes this system, and keeps others out until dropped.
    pub(crate) fn lock(&self) -> Result<File, Failure> {
        make_directory(&self.root, 0o755)?;
        let path = self.root.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Failure::doing(format_args!("open {}", path.display())))?;
        file.lock()
            .map_err(Failure::doing(format_args!("lock {}", path.display())))?;
        Ok(file)
    }
}

/// Makes a directory and what is above it, where missing.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(Failure::doing(format_args!("make {}", path.display())))
}

/// Writes a file so that a reader sees the old content or the new one, and nobody else sees
/// either where `mode` says so.
pub(crate) fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let next = PathBuf::from(next);
    let write = || {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(mode)
            .open(&next)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&next, path)?;
        // The new name too: what was counted must not count down.
        path.parent()
            .map_or(Ok(()), |at| File::open(at)?.sync_all())
    };
    write().map_err(Failure::doing(format_args!("write {}", path.display())))
}

/// Reads a small text file and trims it.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::reading(path, &error))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_shuts_others_out_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let shut = directory.path().join("shut");
        make_directory(&shut, 0o700).unwrap();
        assert_eq!(closed(&shut.join("a/b")), Some(shut));
        assert_eq!(closed(Path::new("/var/lib/redoubt")), None);
    }

    #[test]
    fn a_written_file_is_whole_and_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        write_file(&path, b"one", 0o600).unwrap();
        write_file(&path, b"two\n", 0o600).unwrap();
        assert_eq!(read_text(&path).unwrap(), "two");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_system_is_the_callers_mistake_and_names_the_command() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = Directory {
            directory: Some(directory.path().join("none")),
        };
        let failure = wanted.open().err().unwrap();
        assert_eq!(failure.code(), 2);
        assert!(failure.to_string().contains("redoubt dev up"));
    }
}
