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

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use pg::kept::{FILE_BYTES_MAX, FILES_MAX, KeptPath};
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
}

impl Keeper {
    /// For the PostgreSQL that listens on `socket`, where WAL has `kept`.
    pub(crate) fn new(disk: Disk, socket: PathBuf, kept: Files) -> Self {
        let (client, seen) = (None, Seen::default());
        let state = Mutex::new(State { client, seen, kept });
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

    /// The round before a stop. What PostgreSQL knows of its slots is in their files after a
    /// checkpoint; roles of before this was kept may not ask for one.
    pub(crate) async fn last(&self) {
        let rounds = async {
            if self.round("CHECKPOINT").await.is_err() {
                self.round("").await?;
            }
            Ok::<_, RoundError>(())
        };
        match tokio::time::timeout(LAST, rounds).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "not all was kept before the stop"),
            Err(_) => tracing::warn!("what changed last is not kept: it takes too long"),
        }
    }

    /// Writes what has changed, after `before`. Answers what is not kept, and why.
    async fn round(&self, before: &str) -> Result<Option<String>, RoundError> {
        let mut state = self.state.lock().await;
        let State { client, seen, kept } = &mut *state;
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
        let Changes { messages, refused } = changes(kept, &now);
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

/// What brings `kept` to `now`; removals first, as they make room.
fn changes(kept: &Files, now: &Files) -> Changes {
    let gone = kept.keys().filter(|path| !now.contains_key(*path));
    let mut messages: Vec<_> = gone.map(|path| (path.clone(), Vec::new())).collect();
    let (mut files, mut refused) = (kept.len() - messages.len(), Vec::new());
    for (path, content) in now {
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
    let refused = refused.first().map(|first| {
        format!(
            "{} files are not kept; the first: {first} (at most {FILES_MAX} files of \
             {FILE_BYTES_MAX} bytes are)",
            refused.len()
        )
    });
    Changes { messages, refused }
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
        assert_eq!(changes(&kept, &kept), Changes::default());
        let now = files(&[(CONF, b"2"), ("pg_replslot/b/state", b"y")]);
        let said = changes(&kept, &now).messages;
        let said: Vec<_> = said.iter().map(|(p, c)| (p.as_str(), &c[..])).collect();
        let expected: [(&str, &[u8]); 3] =
            [(SLOT, b""), ("pg_replslot/b/state", b"y"), (CONF, b"2")];
        assert_eq!(said, expected);
        // An empty file would say that it is gone.
        assert_eq!(
            changes(&kept, &files(&[(CONF, b""), (SLOT, b"x")])),
            Changes::default()
        );
    }

    #[test]
    fn what_storage_would_not_take_is_not_sent_and_said() {
        let long = vec![0; FILE_BYTES_MAX + 1];
        let said = changes(&Files::new(), &files(&[(CONF, &long), (SLOT, b"x")]));
        assert_eq!(said.messages.len(), 1);
        assert!(said.refused.unwrap().contains(CONF));
        let many = |from: usize| {
            let path = |n| KeptPath::new(&format!("pg_replslot/s{n}/state")).unwrap();
            (from..from + FILES_MAX).map(move |n| (path(n), b"x".to_vec()))
        };
        let kept: Files = many(0).collect();
        let said = changes(&kept, &many(1).collect());
        assert_eq!(said.messages.len(), 2, "one goes, one comes");
        assert_eq!(said.refused, None);
        let said = changes(&kept, &many(0).chain(many(1)).collect());
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
