//! The questions of a recorded Neon compute, asked again of this page server, over the wire. It has
//! the recorded base and the WAL that the compute wrote, and must answer with the recorded bytes.
//!
//! The WAL is of PostgreSQL 17, with heap records of resource manager 134, written with
//! `full_page_writes` off. A question is asked when as much WAL is there as it names, and no more.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test may; its helper modules are no test functions"
)]

mod recorded;
mod world;

use std::collections::BTreeMap;

use api::timeline::{CreateBranch, TimelineInfo, timelines_path};
use ids::{Lsn, TimelineId};
use pg::wire::pagestream::{Answer, Ask, Version};
use recorded::{Asked, START, Wal, asked, data_directory};
use tokio::sync::watch;
use world::postgres::{self, differing};
use world::safekeeper::Safekeeper;
use world::{BRANCH, MAIN, TENANT, World};

/// Where the recorded branch leaves the main timeline.
const BRANCH_POINT: Lsn = Lsn(0x148_F2B0);
/// How far the recorded page server was when a small client asked it for edge cases, as one of its
/// errors says. That client names an older LSN, as if nothing had changed since.
const AT_EDGE_CASES: Lsn = Lsn(0x14A_8148);

/// Ours are in other words.
const BOTH_REFUSE: &str = "both refuse";
/// A page of multixact offsets. Newer minor releases of PostgreSQL redo a multixact together with the
/// offset at which the next one begins, and so do we; the recorded page server leaves that one 0.
const NEXT_OFFSET: &str = "[(8..9, [3], [0])]";
/// Pages of a table whose last record sets bits of its visibility map. It stamps its LSN on the
/// table's page only where the server logs hint bits, which this one says that it does not; the
/// recorded redo stamps it all the same.
const NOT_STAMPED: [&str; 2] = ["[(4..5, [64], [128])]", "[(4..6, [8, 185], [208, 186])]"];

#[tokio::test(flavor = "multi_thread")]
async fn run_a_is_answered_as_recorded() {
    let run = Run::new("v3", Lsn(0x14B_2350));
    let asked = ["first", "second", "replica"].map(|of| format!("pagestream-v3-{of}"));
    let edge_cases = ["v2", "v3"].map(|version| format!("client-pagestream-{version}-edge-cases"));
    let compared = run.replay(&asked, &edge_cases).await;
    let of_client = |name| {
        let refused = [4, 6, 9, 13, 14, 15, 17, 18].map(|number| (name, number, BOTH_REFUSE));
        refused.into_iter().chain([(name, 12, NEXT_OFFSET)])
    };
    let branch = "pagestream-v3-branch-03";
    let mut other = vec![(branch, 63, NOT_STAMPED[0]), (branch, 64, NOT_STAMPED[1])];
    other.extend(edge_cases.iter().flat_map(|name| of_client(name.as_str())));
    compared.hold(
        [
            ("dbsize", 4),
            ("exists", 58),
            ("getpage", 794),
            ("nblocks", 84),
            ("slru", 4),
        ],
        &other,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn run_a2_is_answered_as_recorded() {
    let run = Run::new("v2", Lsn(0x14B_2248));
    let asked = ["first", "second"].map(|of| format!("pagestream-v2-{of}"));
    let compared = run.replay(&asked, &[]).await;
    let branch = "pagestream-v2-branch-04";
    compared.hold(
        [
            ("dbsize", 2),
            ("exists", 54),
            ("getpage", 622),
            ("nblocks", 64),
            ("slru", 5),
        ],
        &[
            ("pagestream-v2-second-01", 2, NEXT_OFFSET),
            (branch, 150, NOT_STAMPED[0]),
            (branch, 151, NOT_STAMPED[1]),
        ],
    );
}

/// A recorded run: a compute until it is killed, one on a branch, a second one.
struct Run {
    /// The version of its computes, as it is in the names of captures.
    name: &'static str,
    main: Wal,
    branch: Wal,
}

impl Run {
    fn new(name: &'static str, end: Lsn) -> Self {
        let proposer = |of| format!("walproposer-{name}-{of}");
        let main = [proposer("first-election"), proposer("second-start")];
        let main = Wal::read(&main, START);
        assert_eq!(main.end(), end);
        let branch = Wal::read(&[proposer("branch")], BRANCH_POINT);
        Self { name, main, branch }
    }

    /// Asks all that was asked of the main timeline in these captures, and of the branch.
    async fn replay(&self, of_main: &[String], edge_cases: &[String]) -> Compared {
        let directory = postgres::directory();
        let at = directory.path();
        data_directory(&at.join("base"));
        let world = World::start(at, "node").await;
        let imported = world.import(&at.join("base")).await;
        assert_eq!((imported.start_lsn, imported.pg_major), (START, 17));
        let keeper = Safekeeper::start(self.main.write(&at.join("main")), START).await;
        world.attach(MAIN, &[keeper.address]).await;
        let main = (&world, MAIN, &keeper.commit, &self.main);
        let mut compared = Compared::default();
        let questions = of_main.iter().flat_map(|begins| asked(begins)).collect();
        ask_in_order(main, questions, &mut compared).await;
        let_through(main, AT_EDGE_CASES).await;
        for name in edge_cases {
            ask(&world, MAIN, &asked(name), &mut compared).await;
        }
        let_through(main, self.main.end()).await;

        let keeper = Safekeeper::start(self.branch.write(&at.join("branch")), BRANCH_POINT).await;
        create_branch(&world, &keeper).await;
        let branch = (&world, BRANCH, &keeper.commit, &self.branch);
        let questions = asked(&format!("pagestream-{}-branch", self.name));
        ask_in_order(branch, questions, &mut compared).await;
        let_through(branch, self.branch.end()).await;
        world.stop().await;
        compared
    }
}

/// Asks each question when the WAL is there that it names, and no more.
async fn ask_in_order(of: Place<'_>, mut questions: Vec<Asked>, to: &mut Compared) {
    questions.sort_by_key(Asked::since);
    for some in questions.chunk_by(|a, b| a.since() == b.since()) {
        let_through(of, some[0].since()).await;
        ask(of.0, of.1, some, to).await;
    }
}

/// Asks, and holds the answers to the recorded ones.
async fn ask(world: &World, timeline: TimelineId, some: &[Asked], to: &mut Compared) {
    let version = some[0].version;
    let name = match version {
        Version::V2 => "pagestream_v2",
        Version::V3 => "pagestream_v3",
    };
    let client = world.client().await;
    let command = format!("{name} {TENANT} {timeline}");
    let mut copy = client.query_copy_both(&command).await.unwrap();
    for one in some {
        assert_eq!(one.version, version);
        copy.write_copy(&one.question).await.unwrap();
        copy.flush().await.unwrap();
        let ours = copy.read_copy().await.unwrap().unwrap();
        if ours == one.answer {
            *to.equal.entry(kind(&one.request.ask)).or_default() += 1;
        } else {
            let [ours, theirs] = [ours, one.answer.clone()]
                .map(|answer| Answer::decode(version, &one.request, answer).unwrap());
            to.other.insert(one.place.clone(), differs(&ours, &theirs));
        }
    }
}

/// A timeline, how much of its WAL its safekeeper lets through, and that WAL.
type Place<'a> = (&'a World, TimelineId, &'a watch::Sender<Lsn>, &'a Wal);

/// Lets WAL through up to `lsn`, and to the end of the record that is under way there.
async fn let_through((world, timeline, commit, wal): Place<'_>, lsn: Lsn) {
    let end = wal.end_from(lsn);
    commit.send_replace(end);
    world.until_at(timeline, end).await;
}

async fn create_branch(world: &World, safekeeper: &Safekeeper) {
    let branch = CreateBranch {
        timeline: BRANCH,
        parent: MAIN,
        lsn: Some(BRANCH_POINT),
        safekeepers: world::set(&[safekeeper.address]),
    };
    let path = timelines_path(TENANT);
    let created: TimelineInfo = world.api.post(&path, &branch).await.unwrap();
    assert_eq!(created.timeline, BRANCH);
}

/// What was compared.
#[derive(Default)]
struct Compared {
    /// By kind, how many answers were the recorded bytes.
    equal: BTreeMap<&'static str, usize>,
    /// How the others differ, by capture and number of the question.
    other: BTreeMap<(String, usize), String>,
}

impl Compared {
    fn hold(self, equal: [(&'static str, usize); 5], other: &[(&str, usize, &str)]) {
        let other = other.iter().copied();
        let other = other.map(|(name, number, how)| ((name.to_owned(), number), how.to_owned()));
        assert_eq!(self.other, other.collect());
        assert_eq!(self.equal, BTreeMap::from(equal));
    }
}

/// How our answer differs from the recorded one.
fn differs(ours: &Answer, theirs: &Answer) -> String {
    match (ours, theirs) {
        (Answer::Error(_), Answer::Error(_)) => BOTH_REFUSE.to_owned(),
        (Answer::Page(ours), Answer::Page(theirs)) | (Answer::Slru(ours), Answer::Slru(theirs)) => {
            let differing = differing(ours, theirs).into_iter();
            let bytes =
                differing.map(|range| (range.clone(), &ours[range.clone()], &theirs[range]));
            format!("{:?}", bytes.collect::<Vec<_>>())
        }
        _ => format!("{ours:?}, not {theirs:?}"),
    }
}

const fn kind(ask: &Ask) -> &'static str {
    match ask {
        Ask::Exists(_) => "exists",
        Ask::Nblocks(_) => "nblocks",
        Ask::GetPage(..) => "getpage",
        Ask::DbSize(_) => "dbsize",
        Ask::Slru { .. } => "slru",
    }
}
