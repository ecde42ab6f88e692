//! Numbers that criterion has no place for.

use std::fs;
use std::path::Path;

/// Prints numbers, and keeps them in `REDOUBT_BENCH_NOTES` for the table.
///
/// # Panics
/// The file cannot be written.
pub fn note(name: &str, numbers: &[(&str, f64)]) {
    let numbers: serde_json::Map<_, _> = numbers
        .iter()
        .map(|(what, number)| ((*what).to_owned(), (*number).into()))
        .collect();
    let text = serde_json::Value::Object(numbers).to_string();
    println!("{name}: {text}");
    if let Some(directory) = std::env::var_os("REDOUBT_BENCH_NOTES") {
        let path = Path::new(&directory).join(format!("{name}.json"));
        fs::write(path, text).expect("the directory of notes can be written to");
    }
}
