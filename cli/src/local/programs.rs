//! Which processes a local system has, and where they are reached.

use std::path::{Path, PathBuf};

use api::timeline::{NodeAddress, SafekeeperSet};
use ids::{Generation, NodeId};

use super::ports::Ports;
use super::system::{Branch, SAFEKEEPERS, System};
use crate::exit::Failure;

/// Node ids: unique over all kinds of nodes of a cell, as leases are granted to them.
const PAGESERVER_NODE: u64 = 101;
const COMPUTE_NODE: u64 = 1001;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Keymanager,
    Safekeeper,
    Pageserver,
    Compute,
}

impl Kind {
    /// The program's file.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Keymanager => "keymanager",
            Self::Safekeeper => "safekeeper",
            Self::Pageserver => "pageserver",
            Self::Compute => "compute",
        }
    }
}

/// One process.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) node: u64,
    pub(crate) libpq: Option<u16>,
    pub(crate) http: u16,
    /// The branch of a compute.
    pub(crate) branch: Option<Branch>,
}

impl Program {
    /// The base of its HTTP.
    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.http)
    }

    fn address(&self) -> NodeAddress {
        NodeAddress {
            node: NodeId(self.node),
            libpq: format!("127.0.0.1:{}", self.libpq.unwrap_or(0)),
            http: self.url(),
        }
    }
}

/// Every process of the system, in the order in which they are started.
pub(crate) fn all(system: &System) -> Result<Vec<Program>, Failure> {
    let ports = system.ports()?;
    let mut programs: Vec<Program> = (1..=system.keymanagers)
        .map(|n| Program {
            kind: Kind::Keymanager,
            name: format!("keymanager-{n}"),
            node: 0,
            libpq: None,
            http: ports.keymanager(n),
            branch: None,
        })
        .collect();
    programs.extend(safekeepers(ports));
    programs.push(pageserver(ports));
    programs.extend(system.branches.iter().map(|branch| Program {
        kind: Kind::Compute,
        name: branch.compute(),
        node: COMPUTE_NODE + u64::from(branch.ordinal),
        libpq: Some(ports.compute(branch.ordinal)),
        http: ports.compute_http(branch.ordinal),
        branch: Some(branch.clone()),
    }));
    Ok(programs)
}

/// The process with this name.
pub(crate) fn named(system: &System, name: &str) -> Result<Program, Failure> {
    let programs = all(system)?;
    let names: Vec<String> = programs.iter().map(|p| p.name.clone()).collect();
    programs
        .into_iter()
        .find(|program| program.name == name)
        .ok_or_else(|| {
            Failure::fix(format_args!(
                "there is no process {name}; there are: {}",
                names.join(", ")
            ))
        })
}

fn safekeepers(ports: Ports) -> impl Iterator<Item = Program> {
    (1..=SAFEKEEPERS).map(move |n| Program {
        kind: Kind::Safekeeper,
        name: format!("safekeeper-{n}"),
        node: u64::from(n),
        libpq: Some(ports.safekeeper(n)),
        http: ports.safekeeper_http(n),
        branch: None,
    })
}

fn pageserver(ports: Ports) -> Program {
    Program {
        kind: Kind::Pageserver,
        name: "pageserver-1".to_owned(),
        node: PAGESERVER_NODE,
        libpq: Some(ports.pageserver()),
        http: ports.pageserver_http(),
        branch: None,
    }
}

/// Who keeps the WAL of every branch.
pub(crate) fn safekeeper_set(system: &System) -> Result<SafekeeperSet, Failure> {
    Ok(SafekeeperSet {
        generation: Generation(1),
        members: safekeepers(system.ports()?)
            .map(|program| program.address())
            .collect(),
    })
}

/// The one pageserver.
pub(crate) fn the_pageserver(system: &System) -> Result<Program, Failure> {
    Ok(pageserver(system.ports()?))
}

/// Where the pageserver is reached.
pub(crate) fn pageserver_address(system: &System) -> Result<NodeAddress, Failure> {
    Ok(the_pageserver(system)?.address())
}

/// Where the keymanagers are reached.
pub(crate) fn keymanager_urls(system: &System) -> Result<Vec<String>, Failure> {
    let ports = system.ports()?;
    Ok((1..=system.keymanagers)
        .map(|n| format!("https://127.0.0.1:{}", ports.keymanager(n)))
        .collect())
}

/// The directory of the programs: that of this one, unless told otherwise (tests put stand-ins
/// there).
pub(crate) fn program_directory() -> Result<PathBuf, Failure> {
    if let Some(told) = std::env::var_os("REDOUBT_PROGRAMS") {
        return Ok(PathBuf::from(told));
    }
    let own = std::env::current_exe().map_err(Failure::doing("find this program"))?;
    Ok(own.parent().unwrap_or(Path::new("/")).to_owned())
}

/// The file of a program, which has to be there.
pub(crate) fn program_file(kind: Kind) -> Result<PathBuf, Failure> {
    let path = program_directory()?.join(kind.program());
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::fix(format_args!(
        "{} is missing: build everything with `make build`",
        path.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_ports_and_nodes_differ_and_storage_comes_before_computes() {
        let mut system = System::new().unwrap();
        system.keymanagers = 2;
        system.add_branch("other", Some("main"), None).unwrap();
        let programs = all(&system).unwrap();
        let names: Vec<&str> = programs.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "keymanager-1",
                "keymanager-2",
                "safekeeper-1",
                "safekeeper-2",
                "safekeeper-3",
                "pageserver-1",
                "compute-main",
                "compute-other"
            ]
        );
        let ports: Vec<u16> = programs
            .iter()
            .flat_map(|p| p.libpq.into_iter().chain([p.http]))
            .collect();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
        let nodes: Vec<u64> = programs.iter().map(|p| p.node).filter(|n| *n > 0).collect();
        assert_eq!(nodes.iter().collect::<BTreeSet<_>>().len(), nodes.len());
        assert_eq!(named(&system, "compute-other").unwrap().libpq, Some(55433));
        assert_eq!(named(&system, "postgres").err().map(|f| f.code()), Some(2));
    }
}
