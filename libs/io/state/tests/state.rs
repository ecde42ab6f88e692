//! What is committed is there after the next opening, and damage is never hidden.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::{self, OpenOptions};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use state::{Batch, State, StateError, Table};

const NUMBERS: Table<u64> = Table::new("numbers");
const NAMES: Table<String> = Table::new("names");

#[tokio::test]
async fn tables_are_apart_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    let mut batch = Batch::new();
    for n in [300_u64, 2, 1] {
        batch.put(&NUMBERS, &n, &n.to_le_bytes());
    }
    batch.put(&NAMES, &"a".to_owned(), b"A");
    state.commit(batch).await.unwrap();
    let keys = |found: Vec<(u64, bytes::Bytes)>| found.iter().map(|(k, _)| *k).collect::<Vec<_>>();
    assert_eq!(keys(state.scan(&NUMBERS).unwrap()), [1, 2, 300]);
    assert_eq!(
        keys(state.scan_from(&NUMBERS, Bound::Excluded(&1), 1).unwrap()),
        [2]
    );
    state.delete(&NUMBERS, &2).await.unwrap();
    drop(state);

    let state = State::open(directory.path()).unwrap();
    assert_eq!(keys(state.scan(&NUMBERS).unwrap()), [1, 300]);
    assert_eq!(state.get(&NAMES, &"a".to_owned()).unwrap().unwrap(), "A");
    assert_eq!(state.get(&NAMES, &"b".to_owned()).unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_at_the_same_time_all_arrive() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200_u64 {
        let state = state.clone();
        tasks.spawn(async move { state.put(&NUMBERS, &n, b"x").await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(state.scan(&NUMBERS).unwrap().len(), 200);
}

fn write_ahead_log(directory: &Path) -> PathBuf {
    let mut logs: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    logs.sort();
    logs.pop().unwrap()
}

#[tokio::test]
async fn a_log_that_lost_its_end_does_not_open() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    state.put(&NUMBERS, &1, &[1; 100]).await.unwrap();
    state.put(&NUMBERS, &2, &[2; 100]).await.unwrap();
    drop(state);
    let log = write_ahead_log(directory.path());
    let length = fs::metadata(&log).unwrap().len();
    OpenOptions::new()
        .write(true)
        .open(&log)
        .unwrap()
        .set_len(length - 10)
        .unwrap();
    assert!(matches!(
        State::open(directory.path()),
        Err(StateError::Open { .. })
    ));
}

#[tokio::test]
async fn one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let first = State::open(directory.path()).unwrap();
    assert!(matches!(
        State::open(directory.path()),
        Err(StateError::Open { .. })
    ));
    drop(first);
    assert!(State::open(directory.path()).is_ok());
}
