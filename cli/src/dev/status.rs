//! `redoubt dev status`: what runs, where, and how far it is.

use std::collections::BTreeMap;
use std::io::Write;

use api::timeline::{SafekeeperStatus, timeline_path};
use ids::{TenantId, TimelineId};
use serde::Serialize;

use super::JsonOptions;
use crate::exit::Failure;
use crate::local::branch;
use crate::local::home::Home;
use crate::local::launch::state;
use crate::local::node::Operator;
use crate::local::pid::State;
use crate::local::postgres;
use crate::local::programs::{self, Kind, Program};
use crate::local::system::{Branch, System};

/// The whole answer; its fields are a contract with scripts.
#[derive(Serialize)]
struct Status {
    directory: String,
    tenant: TenantId,
    branches: Vec<BranchStatus>,
    processes: Vec<ProcessStatus>,
}

#[derive(Serialize)]
struct BranchStatus {
    name: String,
    timeline: TimelineId,
    port: u16,
}

#[derive(Serialize)]
struct ProcessStatus {
    name: String,
    state: State,
    /// Only of one that lives.
    pid: Option<i32>,
    libpq: Option<u16>,
    http: u16,
    ready: bool,
    /// Why it is not ready.
    why: Option<String>,
    /// Processes of Postgres, of a compute.
    postgres: Option<usize>,
    /// Positions by branch: of safekeepers what is committed, of pageservers what is ingested.
    lsn: BTreeMap<String, String>,
}

pub(crate) fn run(options: &JsonOptions, out: &mut impl Write) -> Result<(), Failure> {
    let (home, system) = options.directory.open()?;
    print(&home, &system, options.json, out)
}

pub(crate) fn print(
    home: &Home,
    system: &System,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let status = gather(home, system)?;
    if json {
        serde_json::to_writer_pretty(&mut *out, &status).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", table(&status))?;
    }
    Ok(())
}

fn gather(home: &Home, system: &System) -> Result<Status, Failure> {
    let operator = Operator::of(home)?;
    let ports = system.ports()?;
    let processes = programs::all(system)?
        .iter()
        .map(|program| process(home, system, &operator, program))
        .collect::<Result<_, _>>()?;
    Ok(Status {
        directory: home.root.display().to_string(),
        tenant: system.tenant,
        branches: system
            .branches
            .iter()
            .map(|branch| BranchStatus {
                name: branch.name.clone(),
                timeline: branch.timeline,
                port: ports.compute(branch.ordinal),
            })
            .collect(),
        processes,
    })
}

fn process(
    home: &Home,
    system: &System,
    operator: &Operator,
    program: &Program,
) -> Result<ProcessStatus, Failure> {
    let (pid, state) = state(home, program)?;
    // One that is paused would only be waited for in vain.
    let ready = match state {
        State::Running => operator.ready(&program.url()),
        other => Err(other.word().to_owned()),
    };
    let postgres = (program.kind == Kind::Compute)
        .then(|| postgres::processes(&home.data(&program.name), pid.as_ref()).len());
    let lsn = match state {
        State::Running => positions(system, operator, program),
        _ => BTreeMap::new(),
    };
    Ok(ProcessStatus {
        name: program.name.clone(),
        state,
        pid: pid.filter(|_| state.lives()).map(|pid| pid.number),
        libpq: program.libpq,
        http: program.http,
        ready: ready.is_ok(),
        why: ready.err(),
        postgres,
        lsn,
    })
}

fn positions(system: &System, operator: &Operator, program: &Program) -> BTreeMap<String, String> {
    let position = |branch: &Branch| match program.kind {
        Kind::Safekeeper => {
            let path = timeline_path(system.tenant, branch.timeline);
            let answer: Result<SafekeeperStatus, _> = operator.get(&program.url(), &path);
            answer.ok().map(|status| status.commit_lsn)
        }
        Kind::Pageserver => branch::status(operator, system, branch.timeline)
            .ok()
            .map(|status| status.last_record_lsn),
        Kind::Keymanager | Kind::Compute => None,
    };
    let branches = system.branches.iter().filter(|branch| branch.made);
    branches
        .filter_map(|branch| Some((branch.name.clone(), position(branch)?.to_string())))
        .collect()
}

fn table(status: &Status) -> String {
    let mut text = format!(
        "directory  {}\ntenant     {}\n",
        status.directory, status.tenant
    );
    let names = status.processes.iter().map(|process| process.name.len());
    let width = names.max().unwrap_or(0).max(16);
    text.push_str(&format!(
        "\n{:width$} {:8} {:>8} {:>6} {:>6}  {}\n",
        "process", "state", "pid", "libpq", "http", "ready, position"
    ));
    let number = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    for process in &status.processes {
        let ready = match &process.why {
            None => "ready".to_owned(),
            Some(why) => why.clone(),
        };
        let positions: String = process
            .lsn
            .iter()
            .map(|(branch, lsn)| format!("  {branch} {lsn}"))
            .collect();
        text.push_str(&format!(
            "{:width$} {:8} {:>8} {:>6} {:>6}  {ready}{positions}\n",
            process.name,
            process.state.word(),
            number(process.pid.map(|pid| pid.to_string())),
            number(process.libpq.map(|port| port.to_string())),
            process.http,
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_what_a_person_looks_for() {
        let process = |name: &str, pid: Option<i32>| ProcessStatus {
            name: name.to_owned(),
            state: if pid.is_some() {
                State::Running
            } else {
                State::Died
            },
            pid,
            libpq: Some(5454),
            http: 7676,
            ready: pid.is_some(),
            why: pid.is_none().then(|| "died".to_owned()),
            postgres: None,
            lsn: BTreeMap::from([("main".to_owned(), "0/16".to_owned())]),
        };
        let status = Status {
            directory: "/x".to_owned(),
            tenant: TenantId([1; 16]),
            branches: Vec::new(),
            processes: vec![
                process("safekeeper-1", Some(42)),
                process("safekeeper-2", None),
            ],
        };
        let text = table(&status);
        let line = |name: &str| {
            text.lines()
                .find(|l| l.starts_with(name))
                .unwrap()
                .to_owned()
        };
        for shown in ["running", "42", "5454", "7676", "ready", "main 0/16"] {
            assert!(line("safekeeper-1").contains(shown), "{text}");
        }
        assert!(line("safekeeper-2").contains("died") && line("safekeeper-2").contains(" - "));
    }
}
