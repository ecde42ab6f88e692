//! Base backups, unpacked onto the sealed disk; and a data directory, packed for the pageserver.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Component, Path, PathBuf};

use api::timeline::{BACKUP_MEMBER, Backup};
use ids::Fork;
use pg::datadir::{DIRECTORIES, parse_relation_path, relation_path};
use tar::{Archive, EntryType};

use crate::config::Owner;

/// The longest description of a backup that is read.
const DESCRIPTION_BYTES: u64 = 64 << 10;

/// An archive that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive ends early, is none, or the disk refuses.
    #[error("the base backup at {at}: {source}")]
    Io {
        /// The member, or what was read.
        at: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not begin with its description.
    #[error("the base backup does not begin with {BACKUP_MEMBER}")]
    NoDescription,
    /// The description is none.
    #[error("the description of the base backup: {0}")]
    Description(#[source] serde_json::Error),
    /// A member that must not be there.
    #[error("the base backup holds {0:?}, which is not taken")]
    Member(String),
}

fn io_at(at: impl ToString) -> impl FnOnce(io::Error) -> UnpackError {
    let at = at.to_string();
    |source| UnpackError::Io { at, source }
}

/// Unpacks `archive` into the new directory `data`, all of it `owner`'s; every directory that
/// PostgreSQL needs is there afterwards, and unlogged relations are empty.
///
/// # Errors
/// See [`UnpackError`].
pub fn unpack(archive: impl Read, data: &Path, owner: Owner) -> Result<Backup, UnpackError> {
    let mut archive = Archive::new(archive);
    let mut members = archive.entries().map_err(io_at("its beginning"))?;
    let first = members.next().ok_or(UnpackError::NoDescription)?;
    let backup = description(first.map_err(io_at("its beginning"))?)?;
    let mut target = Target::new(data, owner)?;
    for directory in DIRECTORIES {
        target.directory(Path::new(directory))?;
    }
    for member in members {
        let mut member = member.map_err(io_at("a member"))?;
        let name = member.path().map_err(io_at("a name"))?.into_owned();
        let path = plain(&name).ok_or_else(|| UnpackError::Member(name.display().to_string()))?;
        match member.header().entry_type() {
            EntryType::Directory => target.directory(&path)?,
            EntryType::Regular | EntryType::Continuous => target.file(&path, &mut member)?,
            _ => return Err(UnpackError::Member(name.display().to_string())),
        }
    }
    target.empty_unlogged()?;
    Ok(backup)
}

/// The description of a backup, from the beginning of its archive.
///
/// # Errors
/// See [`UnpackError`].
pub fn describe(archive: impl Read) -> Result<Backup, UnpackError> {
    let mut archive = Archive::new(archive);
    let mut members = archive.entries().map_err(io_at("its beginning"))?;
    let first = members.next().ok_or(UnpackError::NoDescription)?;
    description(first.map_err(io_at("its beginning"))?)
}

fn description(member: tar::Entry<'_, impl Read>) -> Result<Backup, UnpackError> {
    if member.path_bytes().as_ref() != BACKUP_MEMBER.as_bytes() {
        return Err(UnpackError::NoDescription);
    }
    let mut text = Vec::new();
    let mut limited = member.take(DESCRIPTION_BYTES);
    limited
        .read_to_end(&mut text)
        .map_err(io_at(BACKUP_MEMBER))?;
    serde_json::from_slice(&text).map_err(UnpackError::Description)
}

/// The path of a member, where it stays below the data directory and is not one of those that
/// would make PostgreSQL recover from something else (C1).
fn plain(name: &Path) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    const NEVER: [&str; 6] = [
        "backup_label",
        "tablespace_map",
        "recovery.signal",
        "standby.signal",
        "postmaster.pid",
        "postgresql.auto.conf.tmp",
    ];
    let refused = NEVER.iter().any(|never| path == Path::new(never));
    (!refused).then_some(path)
}

/// A data directory that is being filled.
struct Target<'a> {
    data: &'a Path,
    owner: Owner,
    directories: BTreeSet<PathBuf>,
    /// The initial forks of unlogged relations.
    initial: Vec<String>,
}

impl<'a> Target<'a> {
    fn new(data: &'a Path, owner: Owner) -> Result<Self, UnpackError> {
        let target = Self {
            data,
            owner,
            directories: BTreeSet::new(),
            initial: Vec::new(),
        };
        target.make_directory(data)?;
        Ok(target)
    }

    fn directory(&mut self, path: &Path) -> Result<(), UnpackError> {
        let missing: Vec<PathBuf> = path
            .ancestors()
            .filter(|above| !above.as_os_str().is_empty() && !self.directories.contains(*above))
            .map(Path::to_owned)
            .collect();
        for path in missing.into_iter().rev() {
            self.make_directory(&self.data.join(&path))?;
            self.directories.insert(path);
        }
        Ok(())
    }

    fn make_directory(&self, path: &Path) -> Result<(), UnpackError> {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(path)
            .and_then(|()| self.give(path))
            .map_err(io_at(path.display()))
    }

    fn file(&mut self, path: &Path, content: &mut impl Read) -> Result<(), UnpackError> {
        // WAL is made here (C3), and segments of before the backup are nobody's.
        if path.starts_with("pg_wal") {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.directory(above)?;
        }
        let at = self.data.join(path);
        let mut file = create(&at).map_err(io_at(at.display()))?;
        let copied = io::copy(content, &mut file).and_then(|_| self.give(&at));
        copied.map_err(io_at(path.display()))?;
        if let Some(name) = path.to_str()
            && let Some((rel, _)) = parse_relation_path(name)
            && rel.fork == Fork::Init
        {
            self.initial.push(name.to_owned());
        }
        Ok(())
    }

    /// What PostgreSQL itself does after a crash: unlogged relations are as at their creation.
    fn empty_unlogged(&self) -> Result<(), UnpackError> {
        for name in &self.initial {
            let Some((initial, 0)) = parse_relation_path(name) else {
                continue;
            };
            for fork in [Fork::Main, Fork::Fsm, Fork::Vm] {
                let rel = ids::RelTag { fork, ..initial };
                for path in (0..).map_while(|segment| relation_path(rel, segment)) {
                    if fs::remove_file(self.data.join(path)).is_err() {
                        break; // the last segment was the one before
                    }
                }
            }
            let main = ids::RelTag {
                fork: Fork::Main,
                ..initial
            };
            if let Some(main) = relation_path(main, 0) {
                let to = self.data.join(main);
                fs::copy(self.data.join(name), &to)
                    .and_then(|_| self.give(&to))
                    .map_err(io_at(name))?;
            }
        }
        Ok(())
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        give(path, self.owner)
    }
}

/// Makes a new file that only its owner reads.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

/// Makes PostgreSQL's user the owner of `path`.
pub(crate) fn give(path: &Path, owner: Owner) -> io::Result<()> {
    chown(path, Some(owner.uid), Some(owner.gid))
}

/// Packs the data directory `data` for an import, as an uncompressed archive.
///
/// # Errors
/// The directory cannot be read, or the archive not written.
pub fn pack(data: &Path, archive: impl Write) -> io::Result<()> {
    let mut builder = tar::Builder::new(archive);
    // Holes are written out: the other side reads plain members only.
    builder.sparse(false);
    builder.follow_symlinks(false);
    builder.append_dir_all("", data)?;
    builder.into_inner()?.flush()
}

#[cfg(test)]
mod tests;
