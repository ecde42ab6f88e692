//! `redoubt dev logs`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::exit::Failure;
use crate::local::home::Directory;
use crate::local::launch::end_of_log;
use crate::local::programs;

#[derive(Args)]
pub(crate) struct Options {
    /// One process; all where nothing is said.
    name: Option<String>,
    #[command(flatten)]
    directory: Directory,
    /// Go on showing what is added.
    #[arg(short, long)]
    follow: bool,
}

pub(crate) fn run(options: &Options, out: &mut impl Write) -> Result<(), Failure> {
    let (home, system) = options.directory.open()?;
    let chosen = match &options.name {
        Some(name) => vec![programs::named(&system, name)?],
        None => programs::all(&system)?,
    };
    let files: Vec<(String, PathBuf)> = chosen
        .iter()
        .map(|program| (program.name.clone(), home.log(&program.name)))
        .collect();
    let mut ends = BTreeMap::new();
    for (name, path) in &files {
        ends.insert(name.clone(), length(path));
        if let [_] = files.as_slice() {
            let text = std::fs::read(path).map_err(|error| Failure::reading(path, &error))?;
            out.write_all(&text)?;
        } else {
            writeln!(out, "== {name}\n{}", end_of_log(path))?;
        }
    }
    if !options.follow {
        return Ok(());
    }
    loop {
        for (name, path) in &files {
            let end = ends.entry(name.clone()).or_insert(0);
            show_added(name, path, end, out)?;
        }
        out.flush()?;
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn length(path: &PathBuf) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Shows whole lines behind `end`, and moves it.
fn show_added(
    name: &str,
    path: &PathBuf,
    end: &mut u64,
    out: &mut impl Write,
) -> Result<(), Failure> {
    if length(path) <= *end {
        return Ok(());
    }
    let reading = |error: std::io::Error| Failure::reading(path, &error);
    let mut file = File::open(path).map_err(reading)?;
    file.seek(SeekFrom::Start(*end)).map_err(reading)?;
    let mut added = Vec::new();
    file.read_to_end(&mut added).map_err(reading)?;
    let Some(last) = added.iter().rposition(|byte| *byte == b'\n') else {
        return Ok(());
    };
    let whole = added.get(..=last).unwrap_or_default();
    *end += u64::try_from(whole.len()).unwrap_or(0);
    for line in String::from_utf8_lossy(whole).lines() {
        writeln!(out, "{name:16} {line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_shown_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        let (mut end, mut out) = (0, Vec::new());
        std::fs::write(&path, "one\ntw").unwrap();
        show_added("x", &path, &mut end, &mut out).unwrap();
        show_added("x", &path, &mut end, &mut out).unwrap();
        std::fs::write(&path, "one\ntwo\n").unwrap();
        show_added("x", &path, &mut end, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().map(|l| l.split_whitespace().last()).collect();
        assert_eq!(lines, [Some("one"), Some("two")]);
    }
}
