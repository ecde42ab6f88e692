//! A page server in this process, over a bucket in a directory, and stock PostgreSQL beside it.

#![allow(dead_code, reason = "nobody who includes it needs all of it")]

pub(crate) mod postgres;
pub(crate) mod safekeeper;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::timeline::{
    AttachTimeline, CreateBranch, Imported, NodeAddress, PageserverStatus, SafekeeperSet,
    TimelineInfo, timeline_path, timelines_path,
};
use bytes::Bytes;
use ids::{Generation, Lsn, RelTag, SlruKind, TenantId, TimelineId};
use keyring::{FixedConfig, Keyring};
use pageserver::config::Config;
use pageserver::server::Server;
use pg::PgMajor;
use pg::wire::pagestream::{Answer, Ask, Request, Version};
use service::libpq::WireError;
use service::libpq::client::{Client, CopyStream};
use service::task::Shutdown;

pub(crate) const TENANT: TenantId = TenantId([0x11; 16]);
pub(crate) const MAIN: TimelineId = TimelineId([0x22; 16]);
pub(crate) const BRANCH: TimelineId = TimelineId([0x33; 16]);

/// Questions whose answers are not waited for one by one.
const AT_A_TIME: usize = 256;

/// A page server that runs.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) api: api::Client,
    shutdown: Shutdown,
}

impl World {
    /// With its bucket and `node`, its own directory, below `directory`.
    pub(crate) async fn start(directory: &Path, node: &str) -> Self {
        Self::start_with(directory, node, "").await
    }

    pub(crate) async fn start_with(directory: &Path, node: &str, more: &str) -> Self {
        service::init();
        let path = directory.join("pageserver.toml");
        let at = directory.display();
        let kek = "5a".repeat(32);
        let text = format!(
            "node_id = 7\nlisten = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n\
             data_directory = \"{at}/{node}\"\ncell = \"test\"\n\
             development_kek = \"{kek}\"\nread_wait_ms = 2000\n{more}\n\
             [bucket]\nurl = \"file://{at}/bucket\"\n"
        );
        std::fs::write(&path, text).unwrap();
        let config: Config = service::config::load(&path).unwrap();
        // The same key as development_kek, with a drain that a test can wait for.
        assert!(config.keyring().is_ok());
        let drain = Duration::from_millis(50);
        let keyring = Keyring::fixed_with([0x5a; 32], FixedConfig { drain, lease: None });
        let (keyring, shutdown) = (Arc::new(keyring), Shutdown::new());
        let server = Server::start(&config, Arc::clone(&keyring), &shutdown).await;
        let server = server.unwrap();
        let api = api::Client::new(&format!("http://{}", server.http), None).unwrap();
        Self {
            server,
            keyring,
            api,
            shutdown,
        }
    }

    /// As SIGTERM does it.
    pub(crate) async fn stop(self) {
        self.shutdown.request();
        let finished = tokio::time::timeout(Duration::from_secs(60), self.shutdown.finished());
        finished.await.expect("it ends");
    }

    pub(crate) async fn import(&self, data: &Path) -> Imported {
        let version = std::fs::read_to_string(data.join("PG_VERSION")).unwrap();
        let version = version.trim();
        let path = format!("{}/import?pg_major={version}", timeline_path(TENANT, MAIN));
        let longest = Duration::from_secs(300);
        let body = api::Body::from(postgres::tar(data));
        self.api.post_stream(&path, body, longest).await.unwrap()
    }

    pub(crate) async fn attach(
        &self,
        timeline: TimelineId,
        safekeepers: &[std::net::SocketAddr],
    ) -> PageserverStatus {
        let asked = AttachTimeline {
            safekeepers: set(safekeepers),
        };
        let path = timeline_path(TENANT, timeline);
        self.api.put(&path, &asked).await.unwrap()
    }

    /// Makes and attaches a branch of [`MAIN`].
    pub(crate) async fn branch(&self, timeline: TimelineId, lsn: Option<Lsn>) -> TimelineInfo {
        let branch = CreateBranch {
            timeline,
            parent: MAIN,
            lsn,
            safekeepers: set(&[]),
        };
        let path = timelines_path(TENANT);
        self.api.post(&path, &branch).await.unwrap()
    }

    pub(crate) async fn status(
        &self,
        timeline: TimelineId,
    ) -> Result<PageserverStatus, api::ClientError> {
        self.api.get(&timeline_path(TENANT, timeline)).await
    }

    /// Returns once everything up to `lsn` was taken in.
    pub(crate) async fn until_ingested(&self, lsn: Lsn) {
        self.until_at(MAIN, lsn).await;
    }

    pub(crate) async fn until_at(&self, timeline: TimelineId, lsn: Lsn) {
        for _ in 0..600 {
            let status = self.status(timeline).await.unwrap();
            assert_eq!(status.stopped, None);
            if status.last_record_lsn >= lsn {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{lsn} was not ingested: {:?}", self.status(timeline).await);
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.server.libpq, &[], "").await.unwrap()
    }

    pub(crate) async fn pages(&self, timeline: TimelineId) -> Pages {
        let command = format!("pagestream_v3 {TENANT} {timeline}");
        let copy = self.client().await.query_copy_both(&command).await.unwrap();
        let at = Lsn::MAX;
        Pages { copy, next: 1, at }
    }

    /// The files of a backup, by name.
    pub(crate) async fn backup(
        &self,
        command: &str,
    ) -> Result<BTreeMap<String, Vec<u8>>, WireError> {
        let mut copy = self.client().await.query_copy_out(command).await?;
        let mut tar = Vec::new();
        while let Some(piece) = copy.read_copy().await? {
            tar.extend_from_slice(&piece);
        }
        let mut files = BTreeMap::new();
        for member in tar::Archive::new(&tar[..]).entries().unwrap() {
            let mut member = member.unwrap();
            if member.header().entry_type().is_file() {
                let path = member.path().unwrap().to_str().unwrap().to_owned();
                let mut bytes = Vec::new();
                member.read_to_end(&mut bytes).unwrap();
                files.insert(path, bytes);
            }
        }
        Ok(files)
    }
}

pub(crate) fn set(safekeepers: &[std::net::SocketAddr]) -> SafekeeperSet {
    let member = |(node, address): (u64, &std::net::SocketAddr)| NodeAddress {
        node: ids::NodeId(node),
        libpq: address.to_string(),
        http: String::new(),
    };
    SafekeeperSet {
        generation: Generation(1),
        members: (1..).zip(safekeepers).map(member).collect(),
    }
}

/// A page stream.
pub(crate) struct Pages {
    copy: CopyStream,
    next: u64,
    /// As of when questions are asked.
    pub(crate) at: Lsn,
}

impl Pages {
    /// One question.
    pub(crate) async fn ask(&mut self, ask: Ask) -> Answer {
        self.ask_at(vec![ask], self.at, Lsn(0)).await.remove(0)
    }

    /// Many at once; the answers come in their order, as version 3 proves.
    pub(crate) async fn ask_at(
        &mut self,
        asks: Vec<Ask>,
        at: Lsn,
        not_modified_since: Lsn,
    ) -> Vec<Answer> {
        let mut requests = Vec::new();
        for ask in asks {
            let request = Request {
                request_id: self.next,
                at,
                not_modified_since,
                ask,
            };
            self.next += 1;
            let message = request.encode(Version::V3);
            self.copy.write_copy(&message).await.unwrap();
            requests.push(request);
        }
        self.copy.flush().await.unwrap();
        let mut answers = Vec::new();
        for request in &requests {
            let answer = self.copy.read_copy().await.unwrap().unwrap();
            answers.push(Answer::decode(Version::V3, request, answer).unwrap());
        }
        answers
    }

    /// As many as one likes, so many at a time.
    async fn ask_many(&mut self, asks: impl IntoIterator<Item = Ask>) -> Vec<Answer> {
        let asks: Vec<Ask> = asks.into_iter().collect();
        let mut answers = Vec::new();
        for some in asks.chunks(AT_A_TIME) {
            answers.extend(self.ask_at(some.to_vec(), self.at, Lsn(0)).await);
        }
        answers
    }

    /// A segment of an SLRU; empty where there is none.
    pub(crate) async fn slru(&mut self, kind: SlruKind, segment: u32) -> Bytes {
        let kind = kind as u8;
        match self.ask(Ask::Slru { kind, segment }).await {
            Answer::Slru(pages) => pages,
            answer => panic!("{kind} {segment}: {answer:?}"),
        }
    }

    /// Which of the forks exist.
    pub(crate) async fn existing(&mut self, of: impl Iterator<Item = RelTag>) -> Vec<RelTag> {
        let of: Vec<RelTag> = of.collect();
        let answers = self.ask_many(of.iter().copied().map(Ask::Exists)).await;
        let exists = |(fork, answer): (RelTag, Answer)| match answer {
            Answer::Exists(exists) => exists.then_some(fork),
            answer => panic!("{fork}: {answer:?}"),
        };
        of.into_iter().zip(answers).filter_map(exists).collect()
    }

    /// Holds every page to the files of a data directory.
    pub(crate) async fn compare(&mut self, data: &Path) -> usize {
        let theirs = postgres::forks(PgMajor::V15, postgres::relation_files(data));
        let (compared, differences) = self.differences(&theirs).await;
        assert_eq!(differences, Vec::<String>::new());
        compared
    }

    /// How many pages were held to those of `theirs`, and what is not the same.
    pub(crate) async fn differences(
        &mut self,
        theirs: &BTreeMap<RelTag, Bytes>,
    ) -> (usize, Vec<String>) {
        let (mut pages, mut differences, at) = (Vec::new(), Vec::new(), self.at);
        let lengths = self.ask_many(theirs.keys().copied().map(Ask::Nblocks));
        for ((fork, file), ours) in theirs.iter().zip(lengths.await) {
            let theirs = file.chunks(8192);
            if ours != Answer::Nblocks(u32::try_from(theirs.len()).unwrap()) {
                differences.push(format!("{at}: {fork} has {ours:?}, not {}", theirs.len()));
            }
            pages.extend((0..).zip(theirs).map(|(block, page)| (*fork, block, page)));
        }
        let asks = pages
            .iter()
            .map(|(fork, block, _)| Ask::GetPage(*fork, *block));
        let answers = self.ask_many(asks).await;
        for ((fork, block, theirs), ours) in pages.iter().zip(answers) {
            let Answer::Page(ours) = ours else {
                differences.push(format!("{at}: {fork} {block}: {ours:?}"));
                continue;
            };
            let ranges = postgres::differing_of(*fork, *block, &ours, theirs);
            if !ranges.is_empty() {
                differences.push(format!("{at}: {fork} {block} differs at {ranges:?}"));
            }
        }
        (pages.len(), differences)
    }
}
