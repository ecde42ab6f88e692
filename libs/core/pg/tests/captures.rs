//! Recorded connections decode with nothing left over and encode back to the same bytes.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking

use std::collections::VecDeque;

use captures::Capture;
use pg::wire::pagestream::{Answer, Request, Version};
use pg::wire::replication::{FromReceiver, FromSender};
use pg::wire::wal_push::{ToAcceptor, ToProposer};

#[test]
fn messages_of_wal_push_encode_back_to_their_bytes() {
    let (mut requests, mut answers) = (0, 0);
    for (name, capture) in captures("START_WAL_PUSH (proto_version '3'") {
        for bytes in capture.client {
            let message =
                ToAcceptor::decode(bytes.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(message.encode(), bytes, "{name}: {message:?}");
            requests += 1;
        }
        for bytes in capture.server {
            let message =
                ToProposer::decode(bytes.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(message.encode(), bytes, "{name}: {message:?}");
            answers += 1;
        }
    }
    // As counted when they were recorded: greetings, votes, elections, appends.
    assert_eq!(
        (requests, answers),
        (43 + 41 + 35 + 116 + 213, 43 + 40 + 289 + 84)
    );
}

#[test]
fn pages_and_their_requests_encode_back_to_their_bytes() {
    for (word, version, at_least) in [
        ("pagestream_v2", Version::V2, 20),
        ("pagestream_v3", Version::V3, 100),
    ] {
        let mut seen = 0;
        for (name, capture) in captures(word) {
            let mut open = VecDeque::new();
            for bytes in capture.client {
                let request = Request::decode(version, bytes.clone()).unwrap();
                assert_eq!(request.encode(version), bytes, "{name}");
                open.push_back(request);
            }
            for bytes in capture.server {
                // Answers come in the order of the requests.
                let request = open.pop_front().unwrap();
                let answer = Answer::decode(version, &request, bytes.clone())
                    .unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!(answer.encode(version, &request), bytes, "{name}");
                seen += 1;
            }
        }
        assert!(seen >= at_least, "{word}: {seen}");
    }
}

#[test]
fn streams_of_wal_encode_back_to_their_bytes() {
    let mut seen = 0;
    for (name, capture) in captures("START_REPLICATION") {
        for bytes in capture.client {
            let message = FromReceiver::decode(bytes.clone()).unwrap();
            assert_eq!(message.encode(), bytes, "{name}");
            seen += 1;
        }
        for bytes in capture.server {
            let message = FromSender::decode(bytes.clone()).unwrap();
            assert_eq!(message.encode(), bytes, "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 27 + 4 + 40 + 3 + 1 + 2, "{seen}");
}

#[test]
fn a_message_cut_anywhere_is_refused() {
    for bytes in captures::read("sync-safekeepers-v3").client {
        for end in 0..bytes.len() {
            assert!(ToAcceptor::decode(bytes.slice(..end)).is_err());
        }
    }
}

fn captures(wanted: &str) -> Vec<(String, Capture)> {
    let all = captures::names().into_iter();
    let all = all.map(|name| (captures::read(&name), name));
    let wanted = all.filter(|(capture, _)| capture.query.starts_with(wanted));
    wanted.map(|(capture, name)| (name, capture)).collect()
}
