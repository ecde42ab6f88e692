//! Making branches known to the pageserver, and finding the LSN that a user means.

use std::time::{Duration, Instant};

use api::timeline::{
    AttachTimeline, CreateBranch, LsnAtTime, PageserverStatus, SafekeeperStatus, TimeRelation,
    TimelineInfo, timeline_path, timelines_path,
};
use api::{ClientError, Grade};
use ids::{Lsn, TimelineId};

use super::clock::UnixTime;
use super::home::Home;
use super::launch::{LOOK, run_once};
use super::node::Operator;
use super::programs::{self, Kind, Program, the_pageserver};
use super::system::{Branch, System};
use crate::exit::Failure;

/// For the pageserver to ingest what was committed before a branch point was asked for.
const INGEST: Duration = Duration::from_secs(60);

/// Where a branch is to begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum At {
    /// At the last record.
    End,
    /// At the end of the last record at or before.
    Lsn(Lsn),
    /// At the last commit at or before.
    Time(UnixTime),
}

impl At {
    /// An LSN, a time, or a time ago.
    pub(crate) fn parse(text: &str, now: UnixTime) -> Result<Self, Failure> {
        if let Ok(lsn) = text.parse() {
            return Ok(Self::Lsn(lsn));
        }
        UnixTime::parse(text, now).map(Self::Time).map_err(|_| {
            Failure::fix(format_args!(
                "--at {text:?} is neither an LSN (0/16B3748), nor a time \
                 (2026-11-24T08:30:00Z), nor a time ago ('5 minutes ago')"
            ))
        })
    }
}

/// What the pageserver says of a timeline; none where it does not have it.
pub(crate) fn status(
    operator: &Operator,
    system: &System,
    timeline: TimelineId,
) -> Result<PageserverStatus, ClientError> {
    let base = pageserver_url(system);
    operator.get(&base, &timeline_path(system.tenant, timeline))
}

/// Brings what is ingested into the bucket.
pub(crate) fn flush(
    operator: &Operator,
    system: &System,
    timeline: TimelineId,
) -> Result<PageserverStatus, ClientError> {
    let path = format!("{}/flush", timeline_path(system.tenant, timeline));
    operator.post(&pageserver_url(system), &path, &())
}

/// Makes a project's first branch: initdb in a compute, imported by the pageserver.
pub(crate) fn import(
    home: &Home,
    system: &System,
    operator: &Operator,
    compute: &Program,
    branch: &Branch,
) -> Result<(), Failure> {
    // An import whose end this command did not see is there.
    if status(operator, system, branch.timeline).is_ok() {
        return Ok(());
    }
    let (config, password) = (home.config(&compute.name), home.password());
    let arguments = [
        "create",
        "--config",
        &config.display().to_string(),
        "--password-file",
        &password.display().to_string(),
    ];
    run_once(home, compute, &arguments)
}

/// Tells the pageserver who keeps the WAL of a branch, which attaches it (D1); idempotent.
pub(crate) fn attach(system: &System, operator: &Operator, branch: &Branch) -> Result<(), Failure> {
    let body = AttachTimeline {
        safekeepers: programs::safekeeper_set(system)?,
    };
    let path = timeline_path(system.tenant, branch.timeline);
    let _: PageserverStatus = operator.put(&pageserver_url(system), &path, &body)?;
    Ok(())
}

/// The branch point that is meant, once everything committed before is ingested.
pub(crate) fn resolve(
    system: &System,
    operator: &Operator,
    parent: &Branch,
    at: At,
) -> Result<Option<Lsn>, Failure> {
    until_ingested(system, operator, parent)?;
    let time = match at {
        At::End => return Ok(None),
        At::Lsn(lsn) => {
            let end = status(operator, system, parent.timeline)?.last_record_lsn;
            return within(lsn, end, &parent.name).map(Some);
        }
        At::Time(time) => time,
    };
    let path = timeline_path(system.tenant, parent.timeline);
    let path = format!("{path}/lsn_at?unix={:.6}", time.0);
    let answer: LsnAtTime = operator.get(&pageserver_url(system), &path)?;
    chosen(&answer, &parent.name, time).map(Some)
}

/// Of a position that has no WAL yet nobody knows what it will be.
fn within(lsn: Lsn, end: Lsn, parent: &str) -> Result<Lsn, Failure> {
    if lsn > end {
        return Err(Failure::fix(format_args!(
            "LSN {lsn} is beyond the end of {parent}, which is at {end}"
        )));
    }
    Ok(lsn)
}

fn chosen(answer: &LsnAtTime, parent: &str, time: UnixTime) -> Result<Lsn, Failure> {
    match answer.relation {
        TimeRelation::Present | TimeRelation::Future => Ok(answer.lsn),
        TimeRelation::Past => Err(Failure::fix(format_args!(
            "{time} is before the first commit on {parent}"
        ))),
        TimeRelation::NoData => Err(Failure::fix(format_args!(
            "there is no commit on {parent} yet, so no time of one"
        ))),
    }
}

/// Waits until the pageserver has what safekeepers hold as committed now.
pub(crate) fn until_ingested(
    system: &System,
    operator: &Operator,
    branch: &Branch,
) -> Result<(), Failure> {
    let wanted = committed(system, operator, branch)?;
    let begin = Instant::now();
    loop {
        let status = status(operator, system, branch.timeline)?;
        if let Some(why) = status.stopped {
            return Err(Failure::new(
                Grade::Bug,
                format_args!("the pageserver stopped on {}: {why}", branch.name),
            ));
        }
        if status.last_record_lsn >= wanted {
            return Ok(());
        }
        if begin.elapsed() > INGEST {
            return Err(Failure::retry(format_args!(
                "the pageserver is at {} and not at {wanted}, which is committed on {}",
                status.last_record_lsn, branch.name
            )));
        }
        std::thread::sleep(LOOK);
    }
}

/// The highest position that a safekeeper knows as committed; 0/0 where there is no WAL yet.
fn committed(system: &System, operator: &Operator, branch: &Branch) -> Result<Lsn, Failure> {
    let path = timeline_path(system.tenant, branch.timeline);
    let answers = programs::all(system)?
        .into_iter()
        .filter(|program| program.kind == Kind::Safekeeper)
        .filter_map(|program| {
            let status: Result<SafekeeperStatus, _> = operator.get(&program.url(), &path);
            status.ok()
        });
    Ok(answers.map(|s| s.commit_lsn).max().unwrap_or(Lsn(0)))
}

/// Makes the branch at the pageserver.
pub(crate) fn create(
    system: &System,
    operator: &Operator,
    parent: &Branch,
    branch: &Branch,
) -> Result<TimelineInfo, Failure> {
    let body = CreateBranch {
        timeline: branch.timeline,
        parent: parent.timeline,
        lsn: branch.at,
        safekeepers: programs::safekeeper_set(system)?,
    };
    let path = timelines_path(system.tenant);
    Ok(operator.post(&pageserver_url(system), &path, &body)?)
}

fn pageserver_url(system: &System) -> String {
    the_pageserver(system).map_or_else(|_| String::new(), |program| program.url())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::system::MAIN;

    #[test]
    fn a_branch_point_is_an_lsn_or_a_time() {
        let now = UnixTime(1000.0);
        assert_eq!(
            At::parse("0/16B3748", now).unwrap(),
            At::Lsn(Lsn(0x16B_3748))
        );
        assert_eq!(
            At::parse("1 minute ago", now).unwrap(),
            At::Time(UnixTime(940.0))
        );
        let failure = At::parse("yesterday", now).err().unwrap();
        assert_eq!(failure.code(), 2);
    }

    #[test]
    fn a_branch_point_beyond_the_end_is_refused() {
        assert_eq!(within(Lsn(7), Lsn(7), MAIN).unwrap(), Lsn(7));
        let failure = within(Lsn(8), Lsn(7), MAIN).err().unwrap();
        assert!(failure.is_final(), "{failure}");
    }

    #[test]
    fn a_time_without_a_commit_before_it_is_refused() {
        let answer = |relation| LsnAtTime {
            lsn: Lsn(7),
            relation,
        };
        let choose = |relation| chosen(&answer(relation), "main", UnixTime(1.0));
        assert_eq!(choose(TimeRelation::Present).unwrap(), Lsn(7));
        assert_eq!(choose(TimeRelation::Future).unwrap(), Lsn(7));
        assert!(choose(TimeRelation::Past).is_err());
        assert!(choose(TimeRelation::NoData).is_err());
    }
}
