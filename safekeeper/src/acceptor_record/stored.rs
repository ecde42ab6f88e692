//! How a record is written down: version 1 is JSON.

use ids::Generation;
use pg::wire::wal_push::{Member, Membership, TermStart};
use serde::{Deserialize, Serialize};

use super::{
    AcceptorRecord, Anchor, Durable, EndpointEpoch, History, Lsn, NodeId, Progress, StoreAnchor,
    Term,
};

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    term: u64,
    /// Terms and starts.
    history: Vec<(u64, Lsn)>,
    generation: u32,
    members: Vec<StoredMember>,
    new_members: Vec<StoredMember>,
    endpoint_epoch: u64,
    commit: Lsn,
    truncate: Lsn,
    learner: bool,
    #[serde(default)]
    copying: bool,
    segment: u64,
    log_epoch: u32,
    log_epoch_salt: [u8; 32],
    log_term: u64,
    log_commit: Lsn,
    #[serde(default)]
    backup: Lsn,
    #[serde(default)]
    remote_consistent: Lsn,
    #[serde(default)]
    trimmed: Lsn,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredMember {
    node: u64,
    host: String,
    port: u16,
}

pub(super) fn encode(record: &AcceptorRecord) -> Vec<u8> {
    let AcceptorRecord {
        durable,
        anchor,
        progress,
    } = record;
    let entries = durable.history.entries();
    let stored = Stored {
        version: VERSION,
        term: durable.term.0,
        history: entries.iter().map(|e| (e.term.0, e.start)).collect(),
        generation: durable.membership.generation.0,
        members: durable.membership.members.iter().map(store).collect(),
        new_members: durable.membership.new_members.iter().map(store).collect(),
        endpoint_epoch: durable.epoch.0,
        commit: durable.commit,
        truncate: durable.truncate,
        learner: durable.learner,
        copying: durable.copying,
        segment: anchor.segment,
        log_epoch: anchor.log.epoch,
        log_epoch_salt: anchor.log.epoch_salt,
        log_term: anchor.log.term.0,
        log_commit: anchor.log.commit_lsn,
        backup: progress.backup,
        remote_consistent: progress.remote_consistent,
        trimmed: progress.trimmed,
    };
    serde_json::to_vec(&stored).expect("numbers and texts always have a JSON form")
}

pub(super) fn decode(bytes: &[u8]) -> Option<AcceptorRecord> {
    let stored: Stored = serde_json::from_slice(bytes).ok()?;
    if stored.version != VERSION {
        return None;
    }
    let entries = stored.history.into_iter().map(|(term, start)| TermStart {
        term: Term(term),
        start,
    });
    Some(AcceptorRecord {
        durable: Durable {
            term: Term(stored.term),
            history: History::new(entries.collect())?,
            membership: Membership {
                generation: Generation(stored.generation),
                members: stored.members.into_iter().map(load).collect(),
                new_members: stored.new_members.into_iter().map(load).collect(),
            },
            epoch: EndpointEpoch(stored.endpoint_epoch),
            commit: stored.commit,
            truncate: stored.truncate,
            learner: stored.learner,
            copying: stored.copying,
        },
        anchor: StoreAnchor {
            segment: stored.segment,
            log: Anchor {
                epoch: stored.log_epoch,
                epoch_salt: stored.log_epoch_salt,
                term: Term(stored.log_term),
                commit_lsn: stored.log_commit,
            },
        },
        progress: Progress {
            backup: stored.backup,
            remote_consistent: stored.remote_consistent,
            trimmed: stored.trimmed,
        },
    })
}

fn store(member: &Member) -> StoredMember {
    StoredMember {
        node: member.node.0,
        host: member.host.clone(),
        port: member.port,
    }
}

fn load(member: StoredMember) -> Member {
    Member {
        node: NodeId(member.node),
        host: member.host,
        port: member.port,
    }
}
