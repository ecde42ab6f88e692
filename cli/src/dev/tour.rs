//! `redoubt dev tour`: what README walks through, on the local system, with its real output.
//! Each step shows the commands that it runs, and fails where the promise that it shows is broken.

mod search;
mod steps;

use std::io::Write;
use std::process::{Command, Stdio};

use clap::Args;

use crate::exit::Failure;
use crate::local::home::{Directory, Home};
use crate::local::postgres::{complaint, text};
use crate::local::system::System;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    directory: Directory,
    /// Leave out the last step, which takes the key away.
    #[arg(long)]
    no_drill: bool,
}

pub(crate) fn run(options: &Options, out: &mut impl Write) -> Result<(), Failure> {
    let (home, system) = options.directory.open()?;
    let mut tour = Tour {
        home: &home,
        system: &system,
        out,
        step: 0,
    };
    tour.write_rows()?;
    tour.look_at_sealed_files()?;
    tour.search_everything()?;
    tour.lose_the_compute()?;
    tour.lose_a_safekeeper()?;
    tour.branch_before_an_accident()?;
    if !options.no_drill {
        tour.revoke()?;
    }
    tour.title("The end: every step did what it says")
}

struct Tour<'a, W> {
    home: &'a Home,
    system: &'a System,
    out: &'a mut W,
    step: u32,
}

impl<W: Write> Tour<'_, W> {
    fn title(&mut self, text: &str) -> Result<(), Failure> {
        self.step += 1;
        writeln!(self.out, "\n# {}. {text}", self.step)?;
        Ok(())
    }

    /// Runs this program and shows command and output.
    fn redoubt(&mut self, arguments: &[&str]) -> Result<String, Failure> {
        let own = std::env::current_exe().map_err(Failure::doing("find this program"))?;
        let mut command = Command::new(own);
        command
            .args(arguments)
            .env("REDOUBT_HOME", &self.home.root)
            .stdin(Stdio::null());
        let words: Vec<String> = arguments.iter().map(|word| shown(word)).collect();
        self.show(&format!("redoubt {}", words.join(" ")), command)
    }

    /// Runs one statement with `redoubt psql`.
    fn sql(&mut self, branch: &str, statement: &str) -> Result<String, Failure> {
        let mut arguments = vec!["psql"];
        if branch != "main" {
            arguments.extend(["--branch", branch]);
        }
        arguments.extend([
            "--",
            "-X",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
        ]);
        self.redoubt(&arguments)
    }

    fn show(&mut self, line: &str, mut command: Command) -> Result<String, Failure> {
        writeln!(self.out, "$ {line}")?;
        self.out.flush()?;
        let output = command
            .output()
            .map_err(Failure::doing(format_args!("run {line}")))?;
        let answer = text(&output.stdout);
        if !answer.is_empty() {
            writeln!(self.out, "{answer}")?;
        }
        if output.status.success() {
            return Ok(answer);
        }
        Err(Failure::retry(format_args!(
            "the tour stops: {line} ended with {}: {}",
            output.status,
            complaint(&output)
        )))
    }

    /// What a step has to show.
    fn expect(&mut self, what: &str, holds: bool) -> Result<(), Failure> {
        if holds {
            return Ok(());
        }
        Err(Failure::bug(format_args!(
            "the tour stops at step {}: {what}",
            self.step
        )))
    }
}

/// A word as a reader would type it.
fn shown(word: &str) -> String {
    if word.contains([' ', '\'', '*', '$']) {
        format!("\"{word}\"")
    } else {
        word.to_owned()
    }
}
