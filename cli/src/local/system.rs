//! What a local system is made of, as `dev up` was told once; it stands in `system.json`.

use ids::{Lsn, TenantId, TimelineId};
use serde::{Deserialize, Serialize};

use super::home::{Home, write_file};
use super::ports::{COMPUTES, Ports};
use crate::exit::Failure;

/// Safekeepers of a local system: the smallest number that survives the loss of one.
pub(crate) const SAFEKEEPERS: u16 = 3;
/// The name of the first branch.
pub(crate) const MAIN: &str = "main";

/// The description of a local system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct System {
    pub(crate) tenant: TenantId,
    pub(crate) port_offset: u16,
    pub(crate) keymanagers: u16,
    pub(crate) bucket: BucketAt,
    pub(crate) kms: KmsKind,
    /// Leases and probes in seconds instead of tens of seconds, for drills and tests.
    pub(crate) fast_keys: bool,
    /// Seconds that an outage of the KMS is served, where it is not the usual time.
    #[serde(default)]
    pub(crate) key_grace: Option<u32>,
    /// The loadable module, where it is not beside the programs.
    pub(crate) guard: Option<std::path::PathBuf>,
    pub(crate) branches: Vec<Branch>,
}

/// Where the bucket is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BucketAt {
    /// `s3://name`; a directory of the system where absent.
    pub(crate) url: Option<String>,
    pub(crate) endpoint: Option<String>,
}

/// Who holds the customer's master key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum KmsKind {
    /// A directory of the system.
    Local,
    /// AWS KMS, or what speaks as it does.
    Aws {
        key: String,
        endpoint: Option<String>,
    },
}

/// A branch and its compute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Branch {
    pub(crate) name: String,
    pub(crate) timeline: TimelineId,
    /// The how-manieth compute: decides its ports, never used twice.
    pub(crate) ordinal: u16,
    pub(crate) parent: Option<String>,
    /// The branch point.
    pub(crate) at: Option<Lsn>,
    /// Whether the pageserver is known to have it.
    pub(crate) made: bool,
    /// How often its compute was started: the endpoint epoch of the last start (C1).
    #[serde(default)]
    pub(crate) starts: u64,
}

impl Branch {
    /// The name of its compute.
    pub(crate) fn compute(&self) -> String {
        format!("compute-{}", self.name)
    }
}

impl System {
    /// A system with one branch that is yet to be made.
    pub(crate) fn new() -> Result<Self, Failure> {
        let mut system = Self {
            tenant: TenantId(random_id()?),
            port_offset: 0,
            keymanagers: 1,
            bucket: BucketAt {
                url: None,
                endpoint: None,
            },
            kms: KmsKind::Local,
            fast_keys: false,
            key_grace: None,
            guard: None,
            branches: Vec::new(),
        };
        system.add_branch(MAIN, None, None)?;
        Ok(system)
    }

    /// The system of `home`, if there is one.
    pub(crate) fn load(home: &Home) -> Result<Option<Self>, Failure> {
        let path = home.description();
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| Failure::reading(&path, &error))?,
        };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            Failure::fix(format_args!(
                "{} is of another version or damaged: {error}",
                path.display()
            ))
        })
    }

    pub(crate) fn save(&self, home: &Home) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(self).map_err(Failure::bug)?;
        write_file(&home.description(), &text, 0o644)
    }

    pub(crate) fn ports(&self) -> Result<Ports, Failure> {
        Ports::new(self.port_offset)
    }

    pub(crate) fn branch(&self, name: &str) -> Result<&Branch, Failure> {
        let found = self.branches.iter().find(|branch| branch.name == name);
        found.ok_or_else(|| {
            let names: Vec<_> = self.branches.iter().map(|b| b.name.as_str()).collect();
            Failure::fix(format_args!(
                "there is no branch {name}; there are: {}",
                names.join(", ")
            ))
        })
    }

    /// Describes a new branch with an id and ports of its own; nothing is made yet.
    pub(crate) fn add_branch(
        &mut self,
        name: &str,
        parent: Option<&str>,
        at: Option<Lsn>,
    ) -> Result<(), Failure> {
        check_name(name)?;
        let ordinal = self.branches.iter().map(|branch| branch.ordinal + 1).max();
        let ordinal = ordinal.unwrap_or(0);
        if ordinal >= COMPUTES {
            return Err(Failure::fix(format_args!(
                "a local system has room for {COMPUTES} branches"
            )));
        }
        self.branches.push(Branch {
            name: name.to_owned(),
            timeline: TimelineId(random_id()?),
            ordinal,
            parent: parent.map(str::to_owned),
            at,
            made: false,
            starts: 0,
        });
        Ok(())
    }

    /// Forgets a branch that the pageserver refused to make; one that it has stays.
    pub(crate) fn forget_refused(&mut self, name: &str) {
        self.branches.retain(|b| b.made || b.name != name);
    }

    /// Counts a start of the branch's compute. To be saved before the compute is started (C1).
    pub(crate) fn count_start(&mut self, name: &str) {
        for branch in self.branches.iter_mut().filter(|b| b.name == name) {
            branch.starts += 1;
        }
    }

    /// Remembers that the pageserver has the branch.
    pub(crate) fn set_made(&mut self, name: &str) {
        for branch in self.branches.iter_mut().filter(|b| b.name == name) {
            branch.made = true;
        }
    }
}

/// Names become names of files.
fn check_name(name: &str) -> Result<(), Failure> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=40).contains(&name.len()) && name.chars().all(allowed) && !name.starts_with('-') {
        return Ok(());
    }
    Err(Failure::fix(format_args!(
        "{name:?} is no name for a branch: up to 40 of a-z, 0-9 and -"
    )))
}

/// 16 bytes that nothing else has.
fn random_id() -> Result<[u8; 16], Failure> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(Failure::bug)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_get_names_ids_and_ports_of_their_own() {
        let mut system = System::new().unwrap();
        system
            .add_branch("before", Some(MAIN), Some(Lsn(0x16)))
            .unwrap();
        let (main, before) = (&system.branches[0], &system.branches[1]);
        assert_ne!(main.timeline, before.timeline);
        assert_eq!((main.ordinal, before.ordinal), (0, 1));
        assert_eq!(before.compute(), "compute-before");
        system.set_made("before");
        assert!(system.branch("before").unwrap().made && !system.branch(MAIN).unwrap().made);
        system.add_branch("refused", Some(MAIN), None).unwrap();
        for name in ["refused", "before", MAIN] {
            system.set_made(MAIN);
            system.forget_refused(name);
        }
        assert!(system.branch("refused").is_err());
        assert_eq!(system.branches.len(), 2, "what the pageserver has stays");
        for bad in ["", "-x", "Up", "a/b", "..", "a b", &"x".repeat(41)] {
            assert!(system.add_branch(bad, None, None).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home {
            root: directory.path().to_owned(),
        };
        assert_eq!(System::load(&home).unwrap(), None);
        let mut system = System::new().unwrap();
        system.kms = KmsKind::Aws {
            key: "arn:x".to_owned(),
            endpoint: None,
        };
        system.save(&home).unwrap();
        assert_eq!(System::load(&home).unwrap(), Some(system));
        std::fs::write(home.description(), "{\"tenant\": 1}").unwrap();
        assert_eq!(System::load(&home).err().map(|f| f.code()), Some(2));
    }
}
