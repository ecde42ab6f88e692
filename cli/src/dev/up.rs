//! `redoubt dev up`.

use std::io::Write;
use std::time::{Duration, Instant};

use super::status;
use super::wanted::{Options, described};
use crate::exit::Failure;
use crate::local::branch;
use crate::local::home::{Home, closed, make_directory};
use crate::local::identity::{self, OPERATOR};
use crate::local::launch::{LOOK, make_user, start, state, until_ready};
use crate::local::master_key;
use crate::local::node::Operator;
use crate::local::postgres;
use crate::local::programs::{self, Kind, Program, program_file};
use crate::local::settings::{self, POSTGRES_USER};
use crate::local::system::{Branch, KmsKind, System};
use crate::local::tokens;
use crate::local::wire::{Answer, Question, ask};

/// For a storage process to be ready.
const STORAGE: Duration = Duration::from_secs(60);
/// For a compute to answer on its port: election, base backup, start of Postgres.
const COMPUTE: Duration = Duration::from_secs(120);

pub(crate) fn run(options: &Options, out: &mut impl Write) -> Result<(), Failure> {
    let home = options.directory.home()?;
    require_root()?;
    if let Some(shut) = closed(&home.root) {
        return Err(Failure::fix(format_args!(
            "{} keeps Postgres's user out: chmod o+x, or take another --directory",
            shut.display()
        )));
    }
    let _lock = home.lock()?;
    let existing = System::load(&home)?;
    let mut system = described(options, existing)?;
    prepare(&home, &system)?;
    system.save(&home)?;
    bring_up(&home, &mut system)?;
    if options.json {
        return status::print(&home, &system, true, out);
    }
    status::print(&home, &system, false, out)?;
    let main = system.branch("main")?;
    writeln!(out)?;
    writeln!(out, "connect    redoubt psql")?;
    writeln!(out, "or         {}", postgres::url(&home, &system, main)?)?;
    Ok(())
}

/// A compute mounts its encrypted disk, which is root's to do.
fn require_root() -> Result<(), Failure> {
    // Stand-ins of tests mount nothing.
    let stand_ins = std::env::var_os("REDOUBT_PROGRAMS").is_some();
    if nix::unistd::geteuid().is_root() || stand_ins {
        return Ok(());
    }
    let words: Vec<String> = std::env::args().skip(1).map(|word| quoted(&word)).collect();
    let own = std::env::current_exe().map_err(Failure::doing("find this program"))?;
    let mut passed = String::new();
    for name in ["REDOUBT_HOME", "HOME"] {
        if let Ok(value) = std::env::var(name) {
            passed.push_str(&format!("{name}={} ", quoted(&value)));
        }
    }
    Err(Failure::fix(format_args!(
        "only root can mount the encrypted disk of a compute; run:\n  sudo -E env {passed}{} {}",
        quoted(&own.display().to_string()),
        words.join(" ")
    )))
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Everything that processes find on disk when they start; made once.
fn prepare(home: &Home, system: &System) -> Result<(), Failure> {
    for kind in [
        Kind::Keymanager,
        Kind::Safekeeper,
        Kind::Pageserver,
        Kind::Compute,
    ] {
        program_file(kind)?;
    }
    make_directory(&home.root, 0o755)?;
    settings::copy_guard(home, system)?;
    if system.kms == KmsKind::Local {
        master_key::make(home)?;
    }
    if system.bucket.url.is_none() {
        make_directory(&home.bucket(), 0o700)?;
    }
    postgres::make_password(home)?;
    if nix::unistd::geteuid().is_root() {
        make_user(POSTGRES_USER)?;
    }
    write_files(home, system)
}

/// Identities and settings of every process.
pub(crate) fn write_files(home: &Home, system: &System) -> Result<(), Failure> {
    let programs = programs::all(system)?;
    let mut names: Vec<String> = programs.iter().map(|p| p.name.clone()).collect();
    names.push(OPERATOR.to_owned());
    identity::make(home, &names)?;
    tokens::make(home, system.tenant, &programs)?;
    for program in &programs {
        settings::write(home, system, program)?;
    }
    Ok(())
}

/// Starts what does not run, storage first, and what was never made.
fn bring_up(home: &Home, system: &mut System) -> Result<(), Failure> {
    let operator = Operator::of(home)?;
    let programs = programs::all(system)?;
    let storage = |program: &&Program| program.kind != Kind::Compute;
    // All at once, so that their starts overlap; then in order.
    for program in programs.iter().filter(storage) {
        start(home, program)?;
    }
    for program in programs.iter().filter(storage) {
        let begin = Instant::now();
        until_ready(home, program, &operator, STORAGE)?;
        said(&program.name, "ready", begin);
    }
    for program in programs.iter().filter(|p| p.kind == Kind::Compute) {
        if let Some(branch) = &program.branch {
            compute_up(home, system, &operator, program, branch)?;
        }
    }
    Ok(())
}

/// Brings up the compute of a branch, which is imported or attached before.
pub(crate) fn compute_up(
    home: &Home,
    system: &mut System,
    operator: &Operator,
    program: &Program,
    branch: &Branch,
) -> Result<(), Failure> {
    let begin = Instant::now();
    if !branch.made {
        match &branch.parent {
            None => {
                progress(&program.name, "makes a new project: initdb, import");
                branch::import(home, system, operator, program, branch)?;
            }
            Some(parent) => {
                let parent = system.branch(parent)?;
                branch::create(system, operator, parent, branch)?;
            }
        }
        system.set_made(&branch.name);
        system.save(home)?;
    }
    branch::attach(system, operator, branch)?;
    start_compute(home, system, program, branch)?;
    until_answers(home, program)?;
    said(&program.name, "answers", begin);
    Ok(())
}

/// Starts the compute of a branch, unless it lives. C1: the start is counted first, so that one
/// from before it that is still about gets no vote any more.
pub(crate) fn start_compute(
    home: &Home,
    system: &mut System,
    program: &Program,
    branch: &Branch,
) -> Result<(), Failure> {
    if state(home, program)?.1.lives() {
        return Ok(());
    }
    system.count_start(&branch.name);
    system.save(home)?;
    settings::write(home, system, &programs::named(system, &program.name)?)?;
    start(home, program)?;
    Ok(())
}

/// Waits until Postgres lets clients in; an agent whose Postgres does not run says why.
fn until_answers(home: &Home, program: &Program) -> Result<(), Failure> {
    let begin = Instant::now();
    loop {
        let why = match lets_in(program.libpq.unwrap_or(0)) {
            Answer::Served => return Ok(()),
            Answer::Refused { sqlstate, message } => format!("{sqlstate} {message}"),
            Answer::Nothing(why) => why,
        };
        if !state(home, program)?.1.lives() || begin.elapsed() > COMPUTE {
            return Err(Failure::retry(format_args!(
                "{} does not answer: {why}; its log ends with:\n{}",
                program.name,
                crate::local::launch::end_of_log(&home.log(&program.name))
            )));
        }
        std::thread::sleep(LOOK);
    }
}

/// What the port of a compute answers to a client.
pub(crate) fn lets_in(port: u16) -> Answer {
    ask(
        port,
        &Question {
            startup: &[("user", postgres::USER), ("database", "postgres")],
            password: "",
            query: None,
        },
    )
}

fn said(name: &str, what: &str, begin: Instant) {
    let seconds = begin.elapsed().as_secs_f64();
    progress(name, &format!("{what} after {seconds:.1} s"));
}

fn progress(name: &str, what: &str) {
    eprintln!("{name:16} {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_is_shown_can_be_pasted() {
        assert_eq!(quoted("s3://x"), "s3://x");
        assert_eq!(quoted("a b'c"), r"'a b'\''c'");
        assert_eq!(quoted(""), "''");
    }
}
