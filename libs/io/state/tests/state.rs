//! What is committed is there after the next opening, and damage is never hidden.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
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

/// Two commits, of which the second was not finished being written when the power went: nobody
/// was told of it, and whole cells lose power at once.
#[tokio::test]
async fn a_commit_that_was_torn_in_the_middle_is_gone_and_the_ones_before_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let whole = two_commits(directory.path()).await;
    let first = whole.len() / 2;
    for length in [first + 1, first + 7, first + 60, whole.len() - 1] {
        let directory = tempfile::tempdir().unwrap();
        two_commits(directory.path()).await;
        fs::write(write_ahead_log(directory.path()), &whole[..length]).unwrap();
        let state = State::open(directory.path()).unwrap();
        let found = state.scan(&NUMBERS).unwrap();
        assert_eq!(found.len(), 1, "{length} of {} bytes", whole.len());
        // What comes next is found by the opening after.
        state.put(&NUMBERS, &3, b"x").await.unwrap();
        drop(state);
        let state = State::open(directory.path()).unwrap();
        assert_eq!(state.scan(&NUMBERS).unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_log_with_a_changed_byte_does_not_open() {
    let directory = tempfile::tempdir().unwrap();
    let whole = two_commits(directory.path()).await;
    let second = whole.len() / 2;
    for at in [20, second - 20, second + 20, whole.len() - 5] {
        let directory = tempfile::tempdir().unwrap();
        two_commits(directory.path()).await;
        let mut bad = whole.clone();
        bad[at] ^= 1;
        fs::write(write_ahead_log(directory.path()), &bad).unwrap();
        let opened = State::open(directory.path());
        let refused = matches!(opened, Err(StateError::Open { .. }));
        assert!(refused, "byte {at} of {}", whole.len());
    }
}

/// The write-ahead log of two commits of the same length.
async fn two_commits(directory: &Path) -> Vec<u8> {
    let state = State::open(directory).unwrap();
    state.put(&NUMBERS, &1, &[1; 100]).await.unwrap();
    state.put(&NUMBERS, &2, &[2; 100]).await.unwrap();
    drop(state);
    fs::read(write_ahead_log(directory)).unwrap()
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
