//! Runs the stories in `scenarios/*.txt`: a line `> ` is a command, the lines `< ` below it are all
//! that it makes happen, every other line is prose. `REDOUBT_REWRITE=1` writes what happens into
//! the files, to be read in the diff.
//!
//! Writes are durable at once and messages arrive in order: losses are the simulator's.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking

mod world;

use std::fs;
use std::path::PathBuf;

#[test]
fn stories_end_as_they_are_told() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut told = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let played = play(&text);
        if std::env::var_os("REDOUBT_REWRITE").is_some() {
            fs::write(&path, &played).unwrap();
            told += 1;
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy();
        for (number, (is, told)) in played.lines().zip(text.lines()).enumerate() {
            assert_eq!(is, told, "{name}, line {}", number + 1);
        }
        assert_eq!(played.len(), text.len(), "{name}");
        told += 1;
    }
    assert!(told >= 6, "{told} stories");
}

/// The story with what really happens.
fn play(text: &str) -> String {
    let mut world = world::World::default();
    let mut played = String::new();
    for line in text.lines().filter(|l| !l.starts_with("< ")) {
        played += line;
        played.push('\n');
        if let Some(command) = line.strip_prefix("> ") {
            for event in world.run(command) {
                played += &format!("< {event}\n");
            }
        }
    }
    played
}
