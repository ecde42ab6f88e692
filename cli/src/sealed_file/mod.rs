//! `redoubt sealed`: what a sealed file says about itself, and whether its structure holds.

mod report;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use api::Grade;
use clap::{Args, Subcommand};
use sealed::header::{Header, HeaderError};
use sealed::log::outline;
use sealed::{HEADER_BYTES, ObjectKind};

use crate::exit::Failure;
use report::Report;

/// What can be asked about a sealed file.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Show header, key version, chunks or frames; needs no key.
    Inspect(Target),
    /// Check what can be checked without a key: header checksum, lengths, chain of log records.
    Verify(Target),
}

#[derive(Args)]
pub(crate) struct Target {
    /// The sealed file.
    file: PathBuf,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// What `verify` cannot see without the data key, said with every answer.
const UNCHECKED: &str = "authenticity: not checked, as it needs the data key";

pub(crate) fn run(verb: &Verb, out: &mut impl Write) -> Result<(), Failure> {
    match verb {
        Verb::Inspect(target) => {
            let report = read(&target.file)?;
            show(&report, target.json, out)
        }
        Verb::Verify(target) => {
            let report = read(&target.file)?;
            let verdict = report.damage();
            if target.json {
                serde_json::to_writer(
                    &mut *out,
                    &serde_json::json!({
                        "file": report.file,
                        "structure": if verdict.is_none() { "sound" } else { "damaged" },
                        "damage": verdict,
                        "note": report.note(),
                        "authenticated": false,
                    }),
                )
                .map_err(std::io::Error::from)?;
                writeln!(out)?;
            } else if verdict.is_none() {
                writeln!(
                    out,
                    "structure: sound (header checksum, {})",
                    report.checked()
                )?;
                if let Some(note) = report.note() {
                    writeln!(out, "note: {note}")?;
                }
                writeln!(out, "{UNCHECKED}")?;
            }
            match verdict {
                None => Ok(()),
                Some(what) => Err(Failure::new(
                    Grade::DataDamaged,
                    format_args!("{}: {what}", target.file.display()),
                )),
            }
        }
    }
}

fn show(report: &Report, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if json {
        serde_json::to_writer_pretty(&mut *out, report).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(())
}

/// Reads the header and, of a log, everything behind it: chunks of an object say nothing
/// without a key.
fn read(path: &Path) -> Result<Report, Failure> {
    let reading = |error: std::io::Error| Failure::reading(path, &error);
    let mut file = File::open(path).map_err(reading)?;
    let bytes = file.metadata().map_err(reading)?.len();
    let mut head = Vec::with_capacity(HEADER_BYTES);
    (&mut file)
        .take(HEADER_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(reading)?;
    let header = Header::decode(&head).map_err(|error| refused(path, &error))?;
    if header.kind != ObjectKind::LocalWal {
        return Ok(Report::new(path, bytes, &header, None));
    }
    file.read_to_end(&mut head).map_err(reading)?;
    let outline = outline(&head).map_err(|error| refused(path, &error))?;
    Ok(Report::new(path, bytes, &header, Some(outline)))
}

/// A later version is not damage: another build reads it.
fn refused(path: &Path, error: &HeaderError) -> Failure {
    let grade = match error {
        HeaderError::Version(_) | HeaderError::Cipher(_) | HeaderError::Kdf(_) => Grade::FixRequest,
        _ => Grade::DataDamaged,
    };
    Failure::new(grade, format_args!("{}: {error}", path.display()))
}
