//! What a boot does with the files that its base backup brought.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ids::Lsn;
use pg::kept::{AUTO_CONF, KeptPath};

use super::files::{Files, read_all};
pub(crate) use super::slot_wal::{SlotWalError, Source, Target};
use super::{settings, slot, slot_wal};

/// The files cannot be brought into order.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// They cannot be read.
    #[error("kept files: {0}")]
    Read(String),
    /// The sealed disk refuses.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// WAL for slots.
    #[error(transparent)]
    Wal(#[from] SlotWalError),
}

/// How a boot begins.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// What WAL has.
    pub(crate) kept: Files,
    /// The settings of `ALTER SYSTEM` as they are stored, where PostgreSQL starts with them.
    pub(crate) in_use: Option<Vec<u8>>,
    /// What `ALTER SYSTEM` has set.
    pub(crate) settings: BTreeMap<String, String>,
    /// Whether there are slots, with which only `wal_level = logical` starts.
    pub(crate) has_slots: bool,
    /// What is not as it was left.
    pub(crate) said: Vec<String>,
}

/// What is known of this boot.
#[derive(Clone, Debug)]
pub(crate) struct Boot {
    /// Settings with which PostgreSQL did not start (N3).
    pub(crate) unusable: Option<Vec<u8>>,
    /// A branch that has no record of its own yet.
    pub(crate) is_new_branch: bool,
    /// Where the WAL of before ends.
    pub(crate) end: Lsn,
    /// The most WAL that is brought for slots.
    pub(crate) wal_bytes_max: u64,
}

/// Brings the unpacked files into order, and the WAL that slots need.
pub(crate) async fn restore(
    source: &Source,
    target: &Target,
    boot: Boot,
) -> Result<Restored, RestoreError> {
    let data = target.disk.data();
    let at = data.clone();
    // Beside whoever moves the deadline: there may be much to read.
    let reading = tokio::task::spawn_blocking(move || read_all(&at));
    let unread = |error: &dyn std::fmt::Display| RestoreError::Read(error.to_string());
    let kept = reading.await.map_err(|error| unread(&error))?;
    let mut restored = Restored {
        kept: kept.map_err(|error| unread(&error))?,
        ..Restored::default()
    };
    restored.settings(&data, boot.unusable.as_deref())?;
    let (mut slots, given_up) = slots(&restored.kept, &boot);
    for (path, why) in given_up {
        restored.give_up(&data, &path, &why)?;
    }
    while let Some((restart, path)) = slots.first().cloned() {
        match slot_wal::bring(source, target, restart, boot.end).await {
            Ok(()) => break,
            Err(gone @ SlotWalError::Gone(_)) => {
                restored.give_up(&data, &path, &gone.to_string())?;
                slots.remove(0);
            }
            Err(error) => return Err(error.into()),
        }
    }
    restored.has_slots = !slots.is_empty();
    for said in &restored.said {
        tracing::error!(reason = %said, "not as it was left");
    }
    Ok(restored)
}

/// A slot, and why it cannot go on.
type GivenUp = (KeptPath, String);

/// The slots that can go on, by the WAL that they need; and those that cannot, and why.
fn slots(files: &Files, boot: &Boot) -> (Vec<(Lsn, KeptPath)>, Vec<GivenUp>) {
    let (mut slots, mut given_up) = (Vec::new(), Vec::new());
    for (path, state) in files.iter().filter(|(path, _)| path.slot().is_some()) {
        let why = match slot::read(state) {
            None => "its state is none".to_owned(),
            Some(_) if boot.is_new_branch => "a branch begins without slots".to_owned(),
            Some(slot) => match boot.end.checked_sub(slot.restart) {
                None => format!("it needs WAL from {}, beyond the end", slot.restart),
                Some(bytes) if bytes > boot.wal_bytes_max => {
                    format!("it needs {bytes} bytes of WAL, more than slot_wal_bytes_max")
                }
                Some(_) => {
                    slots.push((slot.restart, path.clone()));
                    continue;
                }
            },
        };
        given_up.push((path.clone(), why));
    }
    slots.sort();
    (slots, given_up)
}

impl Restored {
    fn settings(&mut self, data: &Path, unusable: Option<&[u8]>) -> Result<(), RestoreError> {
        let Some(conf) = KeptPath::new(AUTO_CONF) else {
            return Ok(());
        };
        let Some(content) = self.kept.get_mut(&conf) else {
            return Ok(());
        };
        let mut text = String::new();
        match std::str::from_utf8(content) {
            Ok(stored) if unusable == Some(content) => {
                text = settings::room_for_slots(stored);
                self.said.push(
                    "PostgreSQL did not start with the settings of ALTER SYSTEM: it runs without them"
                        .to_owned(),
                );
            }
            Ok(stored) => {
                (text, self.settings) = settings::restored(stored);
                self.in_use = (!self.settings.is_empty()).then(|| content.clone());
            }
            Err(_) => self
                .said
                .push("the settings of ALTER SYSTEM are no text: it runs without them".to_owned()),
        }
        let path = data.join(AUTO_CONF);
        // The disk's copy is what changes are told from: what is left out here stays in storage.
        fs::write(&path, &text).map_err(|source| RestoreError::Write { path, source })?;
        *content = text.into_bytes();
        Ok(())
    }

    /// It stays in `kept`, so that the first round removes it from WAL.
    fn give_up(&mut self, data: &Path, path: &KeptPath, why: &str) -> Result<(), RestoreError> {
        let state = data.join(path.as_str());
        if let Some(directory) = state.parent() {
            fs::remove_dir_all(directory).map_err(|source| RestoreError::Write {
                path: directory.to_owned(),
                source,
            })?;
        }
        let slot = path.slot().unwrap_or_default();
        self.said
            .push(format!("replication slot {slot} is given up: {why}"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: Boot = Boot {
        unusable: None,
        is_new_branch: false,
        end: Lsn(10_000),
        wal_bytes_max: 5_000,
    };

    fn files(restarts: &[(&str, u64)]) -> Files {
        let file = |(name, restart): &(&str, u64)| {
            let path = format!("pg_replslot/{name}/state");
            (KeptPath::new(&path).unwrap(), slot::state(5, 0, *restart))
        };
        restarts.iter().map(file).collect()
    }

    #[test]
    fn slots_go_on_where_their_wal_can_be_had() {
        let files = files(&[
            ("old", 4_999),
            ("a", 9_000),
            ("b", 5_000),
            ("late", 10_001),
            ("none", 0),
        ]);
        let names = |boot: &Boot| {
            let (slots, given_up) = slots(&files, boot);
            let name = |path: &KeptPath| path.slot().unwrap().to_owned();
            let on: Vec<_> = slots.iter().map(|(_, path)| name(path)).collect();
            (
                on,
                given_up
                    .iter()
                    .map(|(path, _)| name(path))
                    .collect::<Vec<_>>(),
            )
        };
        let (on, given_up) = names(&BOOT);
        assert_eq!(on, ["b", "a"], "the one that needs most first");
        assert_eq!(given_up, ["late", "none", "old"]);
        let branch = Boot {
            is_new_branch: true,
            ..BOOT
        };
        assert_eq!(names(&branch).0, [] as [&str; 0]);
    }

    #[test]
    fn settings_are_restored_without_ours_or_set_aside() {
        for set_aside in [false, true] {
            let data = tempfile::tempdir().unwrap();
            let conf = KeptPath::new(AUTO_CONF).unwrap();
            let stored = b"work_mem = '9MB'\nfsync = 'on'\n".to_vec();
            let mut restored = Restored {
                kept: Files::from([(conf.clone(), stored.clone())]),
                ..Restored::default()
            };
            let unusable = if set_aside {
                &stored[..]
            } else {
                b"others of before"
            };
            restored.settings(data.path(), Some(unusable)).unwrap();
            let text = fs::read(data.path().join(AUTO_CONF)).unwrap();
            let expected: &[u8] = if set_aside {
                b""
            } else {
                b"work_mem = '9MB'\n"
            };
            assert_eq!(text, expected);
            assert_eq!(restored.kept[&conf], expected);
            assert_eq!(restored.settings.len(), usize::from(!set_aside));
            assert_eq!(restored.said.len(), usize::from(set_aside));
            assert_eq!(restored.in_use, (!set_aside).then_some(stored));
        }
    }

    #[test]
    fn a_slot_that_is_given_up_is_removed_from_the_disk_and_later_from_wal() {
        let data = tempfile::tempdir().unwrap();
        let kept = files(&[("a", 9_000)]);
        let path = kept.keys().next().unwrap().clone();
        fs::create_dir_all(data.path().join("pg_replslot/a")).unwrap();
        fs::write(data.path().join(path.as_str()), b"x").unwrap();
        let mut restored = Restored {
            kept,
            ..Restored::default()
        };
        restored.give_up(data.path(), &path, "why").unwrap();
        assert!(!data.path().join("pg_replslot/a").exists());
        assert!(restored.kept.contains_key(&path));
        assert!(restored.said[0].contains("a is given up: why"));
    }
}
