//! The customer's master key of the `local` KMS: a directory of versions and a state, as the
//! keymanager reads it at each call.

use clap::ValueEnum;

use super::home::{Home, make_directory, write_file};
use super::system::{KmsKind, System};
use crate::exit::Failure;

/// Whether the master key serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyState {
    /// It serves.
    Enabled,
    /// It refuses, until it is enabled.
    Disabled,
    /// It refuses, and is to be destroyed.
    PendingDeletion,
}

impl KeyState {
    const fn word(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::PendingDeletion => "pending-deletion",
        }
    }
}

/// What the KMS does instead of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// It answers.
    None,
    /// Each call fails with an error of the KMS itself.
    Error,
    /// No call is answered.
    Timeout,
}

impl Fault {
    const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Error => "error",
            Self::Timeout => "timeout",
        }
    }
}

/// Makes the key, once.
pub(crate) fn make(home: &Home) -> Result<(), Failure> {
    let directory = home.kms();
    let first = directory.join("1.key");
    if first.exists() {
        return Ok(());
    }
    make_directory(&directory, 0o700)?;
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(Failure::bug)?;
    set_state(home, KeyState::Enabled)?;
    let written = write_file(&first, &key, 0o600);
    key.fill(0);
    written
}

/// Sets the state, atomically.
pub(crate) fn set_state(home: &Home, state: KeyState) -> Result<(), Failure> {
    write_file(&home.kms().join("state"), state.word().as_bytes(), 0o600)
}

/// Sets what the KMS does instead of answering, atomically.
pub(crate) fn set_fault(home: &Home, fault: Fault) -> Result<(), Failure> {
    let path = home.kms().join("fault");
    if fault != Fault::None {
        return write_file(&path, fault.word().as_bytes(), 0o600);
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::doing(
            format_args!("remove {}", path.display()),
        )(error)),
        _ => Ok(()),
    }
}

/// Refuses where the key is not ours to set.
pub(crate) fn require_local(system: &System) -> Result<(), Failure> {
    if system.kms == KmsKind::Local {
        return Ok(());
    }
    Err(Failure::fix(
        "the master key of this system is in AWS KMS: set its state there (the drill takes \
         --disable-command and --enable-command)",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_its_state_is_one_word() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home {
            root: directory.path().to_owned(),
        };
        make(&home).unwrap();
        let read = |name: &str| std::fs::read(home.kms().join(name)).ok();
        let key = read("1.key").unwrap();
        assert_eq!(key.len(), 32);
        assert_ne!(key, [0; 32]);
        assert_eq!(read("state"), Some(b"enabled".to_vec()));
        set_state(&home, KeyState::PendingDeletion).unwrap();
        make(&home).unwrap();
        assert_eq!(read("1.key"), Some(key));
        assert_eq!(read("state"), Some(b"pending-deletion".to_vec()));
        set_fault(&home, Fault::Timeout).unwrap();
        assert_eq!(read("fault"), Some(b"timeout".to_vec()));
        set_fault(&home, Fault::None).unwrap();
        set_fault(&home, Fault::None).unwrap();
        assert_eq!(read("fault"), None);
    }
}
