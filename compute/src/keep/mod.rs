//! Files that PostgreSQL does not log, and that survive it all the same (C7).
//!
//!   N1  what of them changes is written into WAL, as messages that the quorum has once the round
//!       that found the change is over; a message is not sent where it would be refused;
//!   N2  the next boot finds them in its base backup, but for the settings that are the agent's
//!       own, and for slots whose WAL cannot be had: those are given up for good, because nothing
//!       kept their rows meanwhile;
//!   N3  settings with which PostgreSQL did not start are set aside, and it starts without.

mod files;
pub(crate) mod restore;
mod settings;
mod slot;
mod slot_wal;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use pg::kept::{FILE_BYTES_MAX, FILES_MAX, KeptPath, MAPPINGS, SNAPSHOTS};
use service::libpq::WireError;
use service::libpq::client::Client;
use tokio::sync::Mutex;

use crate::postgres::settings::AGENT_ROLE;
use crate::sandbox::Disk;
use crate::status::Board;
use files::{Files, Seen};

/// How often the files are looked at.
const ROUND: Duration = Duration::from_secs(1);
/// How long the last round before a stop may take.
const LAST: Duration = Duration::from_secs(5);
/// What is written in one transaction, at least one file.
const BATCH_BYTES: usize = 1 << 20;

/// A round that was not finished; the next one begins where it ended.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("cannot read {path}: {source}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("PostgreSQL does not take them: {0}")]
    Postgres(#[from] WireError),
    #[error("the task that reads them ended")]
    Task,
}

/// Keeps the files of one PostgreSQL.
pub(crate) struct Keeper {
    disk: Disk,
    socket: PathBuf,
    state: Mutex<State>,
}

struct State {
    client: Option<Client>,
    seen: Seen,
    /// What WAL has.
    kept: Files,
    /// What WAL has and the last round did not find any more.
    missed: BTreeSet<KeptPath>,
}

impl Keeper {
    /// For the PostgreSQL that listens on `socket`, where WAL has `kept`.
    pub(crate) fn new(disk: Disk, socket: PathBuf, kept: Files) -> Self {
        let state = Mutex::new(State {
            client: None,
            seen: Seen::default(),
            kept,
            missed: BTreeSet::new(),
        });
        Self {
            disk,
            socket,
            state,
        }
    }

    /// Round after round.
    pub(crate) async fn run(&self, board: &Board) -> std::convert::Infallible {
        loop {
            let refused = match self.round("").await {
                Ok(refused) => refused,
                Err(error) => Some(error.to_string()),
            };
            board.not_kept(refused);
            tokio::time::sleep(ROUND).await;
        }
    }

    /// The rounds before a stop: what has changed, and then what PostgreSQL knows of its slots,
    /// which is in their files after a checkpoint. That may take long, and roles of before this was
    /// kept may not ask for one.
    pub(crate) async fn last(&self) {
        let rounds = async {
            self.round("").await?;
            self.round("CHECKPOINT").await
        };
        match tokio::time::timeout(LAST, rounds).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "not all was kept before the stop"),
            Err(_) => tracing::warn!("what changed last is not kept: it takes too long"),
        }
    }

    /// Writes what has changed, after `before`. Answers what is not kept, and why.
    async fn round(&self, before: &str) -> Result<Option<String>, RoundError> {
        let mut state = self.state.lock().await;
        let State {
            client,
            seen,
            kept,
            missed,
        } = &mut *state;
        // Taken out, so that a round that is given up leaves no half of a conversation behind.
        let mut own = match client.take() {
            Some(client) => client,
            None => self.connect().await?,
        };
        if !before.is_empty() {
            own.simple_query(before).await?;
        }
        let (disk, mut looked) = (self.disk.clone(), std::mem::take(seen));
        let looking = tokio::task::spawn_blocking(move || {
            let found = looked.look(&disk.data());
            found.map(|()| looked)
        });
        *seen = looking.await.map_err(|_| RoundError::Task)??;
        let now = seen.files();
        let Changes { messages, refused } = changes(kept, &now, missed);
        *missed = kept
            .keys()
            .filter(|path| !now.contains_key(*path))
            .cloned()
            .collect();
        for batch in batches(messages) {
            own.simple_query(&statement(&batch)).await?;
            for (path, content) in batch {
                if content.is_empty() {
                    kept.remove(&path);
                } else {
                    kept.insert(path, content);
                }
            }
        }
        *client = Some(own);
        Ok(refused)
    }

    async fn connect(&self) -> Result<Client, WireError> {
        // Whatever settings say, this session is not ended by them.
        let options = [
            ("user", AGENT_ROLE),
            ("database", "postgres"),
            ("application_name", "redoubt_keeper"),
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
            ("idle_session_timeout", "0"),
            ("default_transaction_read_only", "off"),
        ];
        Client::connect_unix(&self.socket, &options, "").await
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// An empty content removes the file.
    messages: Vec<(KeptPath, Vec<u8>)>,
    refused: Option<String>,
}

/// What brings `kept` to `now`, in an order that WAL may end anywhere in: what slots begin from,
/// their states, and what goes last. What a slot may still begin from goes once `missed` has it
/// too: the state that was read in the same round may be of before its end.
fn changes(kept: &Files, now: &Files, missed: &BTreeSet<KeptPath>) -> Changes {
    let is_gone = |path: &&KeptPath| {
        !now.contains_key(*path) && (!is_begun_from(path) || missed.contains(*path))
    };
    let (snapshots, others): (Vec<_>, Vec<_>) = kept
        .keys()
        .filter(is_gone)
        .partition(|path| is_begun_from(path));
    let gone: Vec<_> = others.into_iter().chain(snapshots).collect();
    // What goes makes room for the next round: it goes last.
    let (mut files, mut refused) = (kept.len(), Vec::new());
    let mut messages = Vec::new();
    let (begun_from, others): (Vec<_>, Vec<_>) =
        now.iter().partition(|(path, _)| is_begun_from(path));
    for (path, content) in begun_from.into_iter().chain(others) {
        if path.slot().is_some() && !refused.is_empty() {
            continue; // It may begin from what is refused.
        }
        if kept.get(path) == Some(content) || content.is_empty() {
            continue;
        }
        let is_new = !kept.contains_key(path);
        if content.len() > FILE_BYTES_MAX {
            refused.push(format!("{path} has {} bytes", content.len()));
        } else if is_new && files == FILES_MAX {
            refused.push(format!("{path} is one file too many"));
        } else {
            files += usize::from(is_new);
            messages.push((path.clone(), content.clone()));
        }
    }
    messages.extend(gone.into_iter().map(|path| (path.clone(), Vec::new())));
    let refused = refused.first().map(|first| {
        format!(
            "{} files are not kept; the first: {first} (at most {FILES_MAX} files of \
             {FILE_BYTES_MAX} bytes are)",
            refused.len()
        )
    });
    Changes { messages, refused }
}

/// Whether slots begin from it.
fn is_begun_from(path: &KeptPath) -> bool {
    [SNAPSHOTS, MAPPINGS]
        .iter()
        .any(|directory| path.as_str().starts_with(directory))
}

fn batches(messages: Vec<(KeptPath, Vec<u8>)>) -> Vec<Vec<(KeptPath, Vec<u8>)>> {
    let (mut batches, mut bytes) = (Vec::new(), usize::MAX);
    for message in messages {
        bytes = bytes.saturating_add(message.1.len());
        if bytes > BATCH_BYTES {
            batches.push(Vec::new());
            bytes = message.1.len();
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(message);
        }
    }
    batches
}

/// One transaction, whose commit waits for the quorum. The path has no character that ends a text
/// ([`KeptPath`]). The content is in hexadecimal, so that a plugin which shows messages as text
/// shows text.
fn statement(batch: &[(KeptPath, Vec<u8>)]) -> String {
    let mut text = String::new();
    for (path, content) in batch {
        let (prefix, content) = (path.prefix(), hex::encode(content));
        // Into a string: cannot fail.
        let _ = write!(
            text,
            "SELECT pg_catalog.pg_logical_emit_message(true, '{prefix}', '{content}'::text);"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(files: &[(&str, &[u8])]) -> Files {
        let file =
            |(path, content): &(&str, &[u8])| (KeptPath::new(path).unwrap(), content.to_vec());
        files.iter().map(file).collect()
    }

    const CONF: &str = "postgresql.auto.conf";
    const SLOT: &str = "pg_replslot/a/state";

    #[test]
    fn what_changed_is_written_and_what_is_gone_is_removed() {
        let kept = files(&[(CONF, b"1"), (SLOT, b"x")]);
        assert_eq!(changes(&kept, &kept, &BTreeSet::new()), Changes::default());
        let now = files(&[(CONF, b"2"), ("pg_replslot/b/state", b"y")]);
        let said = changes(&kept, &now, &BTreeSet::new()).messages;
        let said: Vec<_> = said.iter().map(|(p, c)| (p.as_str(), &c[..])).collect();
        let expected: [(&str, &[u8]); 3] =
            [("pg_replslot/b/state", b"y"), (CONF, b"2"), (SLOT, b"")];
        assert_eq!(said, expected);
        // An empty file would say that it is gone.
        assert_eq!(
            changes(
                &kept,
                &files(&[(CONF, b""), (SLOT, b"x")]),
                &BTreeSet::new()
            ),
            Changes::default()
        );
    }

    #[test]
    fn wal_may_end_between_any_two_messages_and_slots_find_what_they_begin_from() {
        const OLD: &str = "pg_logical/snapshots/0-1.snap";
        const NEW: &str = "pg_logical/snapshots/0-2.snap";
        let kept = files(&[(OLD, b"s"), (SLOT, b"1")]);
        let now = files(&[(NEW, b"s"), (SLOT, b"2")]);
        let order = |missed: &[&str]| {
            let missed = missed.iter().map(|path| KeptPath::new(path).unwrap());
            let said = changes(&kept, &now, &missed.collect()).messages;
            let path = |(path, _): &(KeptPath, Vec<u8>)| path.as_str().to_owned();
            said.iter().map(path).collect::<Vec<_>>()
        };
        assert_eq!(
            order(&[]),
            [NEW, SLOT],
            "the old one may still be begun from"
        );
        assert_eq!(order(&[OLD]), [NEW, SLOT, OLD]);
        // What is begun from and not taken keeps the state back.
        let long = vec![0; FILE_BYTES_MAX + 1];
        let said = changes(
            &kept,
            &files(&[(NEW, &long), (SLOT, b"2")]),
            &BTreeSet::new(),
        );
        assert_eq!(said.messages, []);
        assert!(said.refused.unwrap().contains(NEW));
    }

    #[test]
    fn what_storage_would_not_take_is_not_sent_and_said() {
        let long = vec![0; FILE_BYTES_MAX + 1];
        let said = changes(
            &Files::new(),
            &files(&[(SLOT, b"x"), (CONF, &long)]),
            &BTreeSet::new(),
        );
        assert_eq!(said.messages.len(), 1);
        assert!(said.refused.unwrap().contains(CONF));
        let many = |from: usize| {
            let path = |n| KeptPath::new(&format!("pg_replslot/s{n}/state")).unwrap();
            (from..from + FILES_MAX).map(move |n| (path(n), b"x".to_vec()))
        };
        let kept: Files = many(0).collect();
        let said = changes(&kept, &many(1).collect(), &BTreeSet::new());
        assert_eq!(
            said.messages.len(),
            1,
            "one goes, and another has to wait for its place"
        );
        assert!(said.refused.unwrap().contains("too many"));
        let said = changes(&kept, &many(0).chain(many(1)).collect(), &BTreeSet::new());
        assert_eq!(said.messages, []);
        assert!(said.refused.unwrap().contains("too many"));
    }

    #[test]
    fn batches_are_bounded_and_lose_nothing() {
        let message = |bytes| (KeptPath::new(CONF).unwrap(), vec![1; bytes]);
        let sizes = [BATCH_BYTES, 10, BATCH_BYTES - 10, 1];
        let batches = batches(sizes.map(message).to_vec());
        let found: Vec<Vec<_>> = batches
            .iter()
            .map(|batch| batch.iter().map(|(_, content)| content.len()).collect())
            .collect();
        assert_eq!(found, [vec![sizes[0]], vec![sizes[1], sizes[2]], vec![1]]);
        assert!(super::batches(Vec::new()).is_empty());
    }

    #[test]
    fn a_statement_quotes_nothing_that_came_from_a_file() {
        let text = statement(&[(
            KeptPath::new(CONF).unwrap(),
            b"'; drop table t; --".to_vec(),
        )]);
        assert_eq!(text.matches('\'').count(), 4);
        assert!(text.contains("'redoubt/file/postgresql.auto.conf'"));
        assert!(!text.contains("drop"));
    }
}
