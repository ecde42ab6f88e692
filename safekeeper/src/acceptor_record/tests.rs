use ids::Generation;
use keyring::Keyring;
use pg::wire::wal_push::{Member, Membership, TermStart};

use super::*;

const TENANT: TenantId = TenantId([7; 16]);
const TIMELINE: TimelineId = TimelineId([8; 16]);
const NODE: NodeId = NodeId(3);
const MARKER: &str = "safekeeper-of-the-customer";

fn example(term: u64) -> AcceptorRecord {
    let start = |term, start| TermStart {
        term: Term(term),
        start: Lsn(start),
    };
    let member = |node| Member {
        node: NodeId(node),
        host: MARKER.to_owned(),
        port: 5454,
    };
    AcceptorRecord {
        durable: Durable {
            term: Term(term),
            history: History::new(vec![start(1, 100), start(2, 200)]).unwrap(),
            membership: Membership {
                generation: Generation(4),
                members: vec![member(3), member(4)],
                new_members: vec![member(5)],
            },
            epoch: EndpointEpoch(6),
            commit: Lsn(u64::MAX),
            truncate: Lsn(150),
            learner: true,
            copying: true,
        },
        anchor: StoreAnchor {
            segment: 9,
            log: Anchor {
                epoch: 10,
                epoch_salt: [11; 32],
                term: Term(2),
                commit_lsn: Lsn(250),
            },
        },
        progress: Progress {
            backup: Lsn(12),
            remote_consistent: Lsn(13),
            trimmed: Lsn(14),
        },
    }
}

async fn keys() -> TenantKeys {
    Keyring::fixed([1; 32]).tenant(TENANT).await.unwrap()
}

#[tokio::test]
async fn a_saved_record_is_loaded_after_a_restart_and_lies_sealed_only() {
    let root = tempfile::tempdir().unwrap();
    let keys = keys().await;
    let state = State::open(root.path()).unwrap();
    let none = RecordFile::load(state.clone(), NODE, TIMELINE, &keys).await;
    assert!(none.unwrap().is_none());
    let mut file = RecordFile::create(state.clone(), NODE, TIMELINE, &keys, &example(5))
        .await
        .unwrap();
    file.save(&example(6)).await.unwrap();
    let again = RecordFile::create(state.clone(), NODE, TIMELINE, &keys, &example(1)).await;
    assert!(matches!(again, Err(RecordAccessError::Exists { .. })));
    drop((file, state));

    let state = State::open(root.path()).unwrap();
    let (_, loaded) = RecordFile::load(state.clone(), NODE, TIMELINE, &keys)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(loaded, example(6));
    assert!(!holds_marker(root.path()));
    let plain = Table::<u64>::new("plain");
    state.put(&plain, &1, MARKER.as_bytes()).await.unwrap();
    assert!(
        holds_marker(root.path()),
        "the search does not find what is there"
    );
}

fn holds_marker(directory: &std::path::Path) -> bool {
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(MARKER.len()).any(|w| w == MARKER.as_bytes())
    })
}

#[tokio::test]
async fn a_record_that_is_damaged_or_of_another_place_is_refused_and_never_none() {
    let root = tempfile::tempdir().unwrap();
    let keys = keys().await;
    let state = State::open(root.path()).unwrap();
    let file = RecordFile::create(state.clone(), NODE, TIMELINE, &keys, &example(5))
        .await
        .unwrap();
    let sound = state.get(&TABLE, &file.key).unwrap().unwrap();
    let load = |node, timeline| RecordFile::load(state.clone(), node, timeline, &keys);
    assert!(load(NODE, TIMELINE).await.is_ok());

    assert!(matches!(
        load(NodeId(4), TIMELINE).await,
        Err(RecordAccessError::Sealed { .. })
    ));
    let other = TimelineId([9; 16]);
    state
        .put(&TABLE, &record_key(TENANT, other), &sound)
        .await
        .unwrap();
    assert!(matches!(
        load(NODE, other).await,
        Err(RecordAccessError::Sealed { .. })
    ));
    for at in [0, 60, 100, 130, 140, sound.len() - 1] {
        let mut bytes = sound.to_vec();
        bytes[at] ^= 1;
        state.put(&TABLE, &file.key, &bytes).await.unwrap();
        let refused = load(NODE, TIMELINE).await.err();
        assert!(
            matches!(
                refused,
                Some(RecordAccessError::Sealed { .. } | RecordAccessError::Key(_))
            ),
            "byte {at}: {refused:?}"
        );
    }
    state.put(&TABLE, &file.key, b"").await.unwrap();
    assert!(matches!(
        load(NODE, TIMELINE).await,
        Err(RecordAccessError::Sealed { .. })
    ));
}

#[tokio::test]
async fn a_record_of_a_later_version_is_refused() {
    let plain = String::from_utf8(stored::encode(&example(5))).unwrap();
    assert_eq!(stored::decode(plain.as_bytes()), Some(example(5)));
    let later = plain.replace("\"version\":1", "\"version\":2");
    assert_ne!(later, plain);
    assert_eq!(stored::decode(later.as_bytes()), None);
    let more = plain.replacen('{', "{\"more\":1,", 1);
    assert_eq!(stored::decode(more.as_bytes()), None);
}

/// As it lies on disks that were written before starts of computes were counted (C1).
#[tokio::test]
async fn a_record_of_the_first_builds_opens_and_is_of_epoch_0() {
    let salt = vec!["3"; 32].join(",");
    let plain = format!(
        r#"{{"version":1,"term":5,"history":[[1,"0/64"]],"generation":0,"members":[],
        "new_members":[],"endpoint_epoch":0,"commit":"0/64","truncate":"0/0","learner":false,
        "segment":0,"log_epoch":1,"log_epoch_salt":[{salt}],"log_term":1,"log_commit":"0/64"}}"#
    );
    let opened = stored::decode(plain.as_bytes()).unwrap();
    assert_eq!(opened.durable.epoch, EndpointEpoch(0));
    assert_eq!(opened.durable.term, Term(5));
}
