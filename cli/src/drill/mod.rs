//! `redoubt drill`: shows that a revocation holds, on a running system, and that it heals.

mod client;
mod report;
mod storage;

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use crate::dev::up::lets_in;
use crate::exit::Failure;
use crate::local::clock::UnixTime;
use crate::local::home::{Directory, Home, make_directory, write_file};
use crate::local::master_key::{self, KeyState};
use crate::local::node::Operator;
use crate::local::pid::Pid;
use crate::local::postgres;
use crate::local::system::{Branch, MAIN, System};
use crate::local::wire::Answer;
use api::Grade;
use client::{Answers, Loop};
use report::{Measured, Report};
use storage::Storage;

/// Drills.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Take the master key away under load, measure when everything stops being readable, give it
    /// back, measure when everything is back, and write a report.
    Revoke(RevokeOptions),
}

#[derive(Args)]
pub(crate) struct RevokeOptions {
    #[command(flatten)]
    directory: Directory,
    /// How long each half is watched before it counts as failed; longer than what is promised,
    /// so that a broken promise is measured and not guessed.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// The directory for report.json and report.md; `drill` in the system's where nothing is said.
    #[arg(long, value_name = "DIRECTORY")]
    report: Option<PathBuf>,
    /// The branch whose compute is watched.
    #[arg(long, default_value = MAIN)]
    branch: String,
    /// The command that disables a key in a cloud KMS, for a shell.
    #[arg(long, value_name = "COMMAND", requires = "enable_command")]
    disable_command: Option<String>,
    /// The command that enables it again.
    #[arg(long, value_name = "COMMAND", requires = "disable_command")]
    enable_command: Option<String>,
    /// Answer in JSON: the report.
    #[arg(long)]
    json: bool,
}

/// Load before the key is taken away.
const BEFORE: Duration = Duration::from_secs(2);
/// How long everything has to stay silent before it counts as silent.
const SILENCE: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Load after the first answer, so that the writer's next acknowledgements count too.
const AFTER: Duration = Duration::from_secs(2);

pub(crate) fn run(verb: &Verb, out: &mut impl Write) -> Result<(), Failure> {
    let Verb::Revoke(options) = verb;
    let (home, system) = options.directory.open()?;
    let drill = Drill::prepare(options, &home, &system)?;
    let measured = drill.perform()?;
    let report = Report::judge(measured);
    let directory = options.report.clone().unwrap_or_else(|| home.data("drill"));
    make_directory(&directory, 0o755)?;
    let json = serde_json::to_vec_pretty(&report).map_err(Failure::bug)?;
    write_file(&directory.join("report.json"), &json, 0o644)?;
    write_file(
        &directory.join("report.md"),
        report.markdown().as_bytes(),
        0o644,
    )?;
    if options.json {
        out.write_all(&json)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", report.markdown())?;
        writeln!(out, "\nwritten to {}", directory.display())?;
    }
    if report.passed {
        return Ok(());
    }
    Err(Failure::new(
        Grade::Bug,
        format_args!("the drill failed: {}", report.failures().join("; ")),
    ))
}

struct Drill<'a> {
    options: &'a RevokeOptions,
    home: &'a Home,
    system: &'a System,
    branch: &'a Branch,
    storage: Storage,
    /// Tells this run's rows from those of earlier ones.
    run: String,
}

impl<'a> Drill<'a> {
    fn prepare(
        options: &'a RevokeOptions,
        home: &'a Home,
        system: &'a System,
    ) -> Result<Self, Failure> {
        if options.disable_command.is_none() {
            master_key::require_local(system)?;
        }
        let branch = system.branch(&options.branch)?;
        let table = "create table if not exists redoubt_drill \
                     (run text, n bigint, at timestamptz default clock_timestamp(), \
                     primary key (run, n))";
        postgres::query(home, system, branch, table)?;
        let operator = Operator::of(home)?;
        Ok(Self {
            options,
            home,
            system,
            branch,
            storage: Storage::of(home, system, branch, operator)?,
            run: UnixTime::now().to_string(),
        })
    }

    fn perform(&self) -> Result<Measured, Failure> {
        let writes = self.spawn(format!(
            "insert into redoubt_drill (run, n) values ('{}', :n) returning n",
            self.run
        ));
        let reads = self.spawn("select count(*) from redoubt_drill".to_owned());
        std::thread::sleep(BEFORE);
        if writes.answers().count() == 0 || reads.answers().count() == 0 {
            return Err(Failure::retry(
                "the system answers neither writes nor reads, so there is nothing to revoke",
            ));
        }
        let mut measured = Measured {
            started: UnixTime::now().to_string(),
            served_before: self.storage.served()?,
            ..Measured::default()
        };
        let back = KeyBack { drill: self };
        say("the key is disabled");
        self.switch(KeyState::Disabled)?;
        let revoked = Instant::now();
        self.watch_end(revoked, &mut measured, &reads, &writes)?;
        say("the key is enabled");
        std::mem::forget(back);
        self.switch(KeyState::Enabled)?;
        let enabled = Instant::now();
        self.watch_return(enabled, &mut measured, &reads, &writes);
        let acknowledged = writes.end();
        drop(reads.end());
        self.count_rows(&acknowledged, &mut measured);
        Ok(measured)
    }

    fn spawn(&self, statement: String) -> Loop {
        let connect = {
            let (home, system) = (self.home.clone(), self.system.clone());
            let branch = self.branch.clone();
            move || postgres::client("psql", &home, &system, &branch)
        };
        Loop::begin(Arc::new(connect), statement)
    }

    /// Watches until nothing answers, no Postgres runs and no storage node holds a key.
    fn watch_end(
        &self,
        revoked: Instant,
        measured: &mut Measured,
        reads: &Loop,
        writes: &Loop,
    ) -> Result<(), Failure> {
        let limit = Duration::from_secs(self.options.timeout);
        let agent = Pid::load(&self.home.pid(&self.branch.compute()))?;
        let directory = self.home.data(&self.branch.compute());
        let port = self.system.ports()?.compute(self.branch.ordinal);
        let mut quiet_since = None;
        // Read after a look, which takes its time: what is measured is never too short.
        let seconds = || revoked.elapsed().as_secs_f64();
        while revoked.elapsed() < limit {
            let gone = postgres::processes(&directory, agent.as_ref()).is_empty();
            first(&mut measured.compute_gone, gone, seconds());
            match lets_in(port) {
                Answer::Refused { sqlstate, message } if gone => {
                    measured.client_error = Some(format!("{sqlstate} {message}"));
                }
                _ => {}
            }
            let nodes = self.storage.look()?;
            let closed = nodes.values().all(|node| node.closed());
            let at = seconds();
            first(&mut measured.storage_closed, closed, at);
            measured.nodes = nodes;
            let answered = |answers: Answers| answers.last_after(revoked);
            measured.last_read = answered(reads.answers());
            measured.last_write = answered(writes.answers());
            let since = quiet_since.get_or_insert_with(Instant::now);
            let recent = [measured.last_read, measured.last_write];
            let noisy = recent
                .iter()
                .flatten()
                .any(|last| at - last < SILENCE.as_secs_f64());
            let refused = measured.client_error.is_some();
            if !(gone && closed && refused) || noisy {
                *since = Instant::now();
            } else if since.elapsed() > SILENCE {
                break;
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Watches until reads and writes are answered again.
    fn watch_return(&self, enabled: Instant, measured: &mut Measured, reads: &Loop, writes: &Loop) {
        let limit = Duration::from_secs(self.options.timeout);
        while enabled.elapsed() < limit {
            measured.first_read = reads.answers().first_after(enabled);
            measured.first_write = writes.answers().first_after(enabled);
            if measured.first_read.is_some() && measured.first_write.is_some() {
                std::thread::sleep(AFTER);
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    fn count_rows(&self, acknowledged: &[u64], measured: &mut Measured) {
        let select = format!("select n from redoubt_drill where run = '{}'", self.run);
        measured.acknowledged = acknowledged.len();
        match postgres::query(self.home, self.system, self.branch, &select) {
            Ok(rows) => {
                let there: std::collections::BTreeSet<u64> =
                    rows.lines().filter_map(|row| row.parse().ok()).collect();
                let missing = acknowledged.iter().filter(|n| !there.contains(n));
                measured.missing = Some(missing.count());
            }
            Err(failure) => say(&format!("the rows cannot be counted: {failure}")),
        }
    }

    fn switch(&self, state: KeyState) -> Result<(), Failure> {
        let command = match state {
            KeyState::Enabled => &self.options.enable_command,
            _ => &self.options.disable_command,
        };
        let Some(command) = command else {
            return master_key::set_state(self.home, state);
        };
        let ended = Command::new("sh").args(["-c", command]).status();
        let ended = ended.map_err(Failure::doing("run sh"))?;
        if ended.success() {
            return Ok(());
        }
        Err(Failure::fix(format_args!("{command:?} ended with {ended}")))
    }
}

/// A drill that fails half way gives the key back.
struct KeyBack<'a, 'b> {
    drill: &'a Drill<'b>,
}

impl Drop for KeyBack<'_, '_> {
    fn drop(&mut self) {
        if let Err(failure) = self.drill.switch(KeyState::Enabled) {
            say(&format!("the key is still disabled: {failure}"));
        }
    }
}

/// Remembers when something was so for the first time since it was last not so.
fn first(when: &mut Option<f64>, is_so: bool, at: f64) {
    match (is_so, &when) {
        (true, None) => *when = Some(at),
        (false, Some(_)) => *when = None,
        _ => {}
    }
}

fn say(what: &str) {
    eprintln!("{} {what}", UnixTime::now());
}
