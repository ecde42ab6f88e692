//! What a page server sees of a safekeeper: committed WAL, here from a stock `pg_wal`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ids::Lsn;
use pg::datadir::wal_segment_name;
use pg::wire::replication::{FromReceiver, FromSender};
use service::libpq::{self, Conn, Handler, QueryError, Startup};
use service::task::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::watch;

const SEGMENT: u64 = 16 << 20;

/// A safekeeper that runs.
pub(crate) struct Safekeeper {
    pub(crate) address: SocketAddr,
    pub(crate) commit: watch::Sender<Lsn>,
    /// What the page server said last of how far it is: taken in, and in the bucket.
    pub(crate) told: Arc<Mutex<Option<(Lsn, Lsn)>>>,
    /// How many streams were asked for.
    pub(crate) streams: Arc<AtomicUsize>,
    /// Where a byte of what is sent is changed, and by which bits.
    pub(crate) flip: watch::Sender<Option<(Lsn, u8)>>,
    shutdown: Shutdown,
}

struct Sender {
    wal: PathBuf,
    flip: watch::Receiver<Option<(Lsn, u8)>>,
    commit: watch::Receiver<Lsn>,
    told: Arc<Mutex<Option<(Lsn, Lsn)>>>,
    streams: Arc<AtomicUsize>,
}

impl Safekeeper {
    /// With the WAL of the directory `wal`, up to `commit`.
    pub(crate) async fn start(wal: PathBuf, commit: Lsn) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (commit, shutdown) = (watch::Sender::new(commit), Shutdown::new());
        let told = Arc::default();
        let streams = Arc::<AtomicUsize>::default();
        let (receiver, tell) = (commit.subscribe(), Arc::clone(&told));
        let count = Arc::clone(&streams);
        let flip = watch::Sender::new(None);
        let flips = flip.subscribe();
        let factory = move |_| {
            Box::new(Sender {
                wal: wal.clone(),
                flip: flips.clone(),
                commit: receiver.clone(),
                told: Arc::clone(&tell),
                streams: Arc::clone(&count),
            }) as Box<dyn Handler>
        };
        let serve = libpq::serve_on(listener, factory, shutdown.clone());
        drop(shutdown.spawn("safekeeper", serve));
        Self {
            address,
            commit,
            told,
            streams,
            flip,
            shutdown,
        }
    }

    pub(crate) async fn kill(self) {
        self.shutdown.request();
        self.shutdown.finished().await;
    }
}

#[async_trait]
impl Handler for Sender {
    async fn authenticate(&mut self, startup: &Startup, _: &str) -> Result<(), QueryError> {
        for name in ["tenant_id", "timeline_id"] {
            assert_eq!(startup.options.get(name).map(String::len), Some(32));
        }
        Ok(())
    }

    async fn query(&mut self, conn: &mut Conn, sql: &str) -> Result<(), QueryError> {
        if sql == "TIMELINE_STATUS" {
            let commit = self.commit.borrow().to_string();
            conn.row_description(&["flush_lsn", "commit_lsn"]);
            conn.data_row(&[Some(commit.as_bytes()), Some(commit.as_bytes())]);
            conn.command_complete("TIMELINE_STATUS");
            return Ok(());
        }
        let from = sql.strip_prefix("START_REPLICATION PHYSICAL ").unwrap();
        self.streams.fetch_add(1, Ordering::SeqCst);
        conn.copy_both().await?;
        let mut at: Lsn = from.parse().unwrap();
        loop {
            let commit = *self.commit.borrow_and_update();
            while at < commit {
                // Not aligned to anything: records come in pieces.
                let end = Lsn(commit
                    .0
                    .min(at.0 + 9973)
                    .min((at.0 / SEGMENT + 1) * SEGMENT));
                let message = FromSender::XLogData {
                    start: at,
                    end: commit,
                    time: 0,
                    wal: self.read(at, end).into(),
                };
                conn.write_copy(&message.encode()).await?;
                at = end;
            }
            conn.flush().await?;
            tokio::select! {
                said = conn.read_copy() => match said? {
                    None => return Ok(()),
                    Some(said) => self.hear(said),
                },
                _ = self.commit.changed() => {}
                // Begun anew by everything that is said, as safekeepers may do it.
                () = tokio::time::sleep(Duration::from_secs(1)) => {
                    let message = FromSender::Keepalive {
                        end: commit,
                        time: 0,
                        reply: true,
                    };
                    conn.write_copy(&message.encode()).await?;
                }
            }
        }
    }
}

impl Sender {
    fn read(&self, at: Lsn, end: Lsn) -> Vec<u8> {
        let file = self.wal.join(wal_segment_name(1, at, SEGMENT));
        let bytes = std::fs::read(file).unwrap();
        let from = usize::try_from(at.0 % SEGMENT).unwrap();
        let mut sent = bytes[from..from + usize::try_from(end.0 - at.0).unwrap()].to_vec();
        if let Some((flip, bits)) = *self.flip.borrow()
            && (at..end).contains(&flip)
        {
            sent[usize::try_from(flip.0 - at.0).unwrap()] ^= bits;
        }
        sent
    }

    fn hear(&self, said: bytes::Bytes) {
        if let FromReceiver::Pageserver(feedback) = FromReceiver::decode(said).unwrap() {
            let number = |name: &str| {
                let found = feedback.entries.iter().find(|(key, _)| key == name);
                Lsn(u64::from_be_bytes(found.unwrap().1[..].try_into().unwrap()))
            };
            let told = (number("ps_writelsn"), number("ps_applylsn"));
            *self.told.lock().unwrap() = Some(told);
        }
    }
}
