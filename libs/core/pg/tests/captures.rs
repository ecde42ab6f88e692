//! Recorded connections decode with nothing left over and encode back to the same bytes.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use bytes::Bytes;
use flate2::read::GzDecoder;
use pg::wire::pagestream::{Answer, Request, Version};
use pg::wire::replication::{FromReceiver, FromSender};
use pg::wire::wal_push::{ToAcceptor, ToProposer};

/// The CopyData payloads of both sides, and the first query.
#[derive(Default)]
struct Capture {
    client: Vec<Bytes>,
    server: Vec<Bytes>,
    query: String,
}

#[test]
fn messages_of_wal_push_encode_back_to_their_bytes() {
    let (mut requests, mut answers) = (0, 0);
    for (name, capture) in captures(|q| q.starts_with("START_WAL_PUSH")) {
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
        for (name, capture) in captures(|q| q.starts_with(word)) {
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
    for (name, capture) in captures(|q| q.starts_with("START_REPLICATION")) {
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
    let name = "sync-safekeepers-v3.jsonl.gz";
    for bytes in read(&directory().join(name)).client {
        for end in 0..bytes.len() {
            assert!(ToAcceptor::decode(bytes.slice(..end)).is_err());
        }
    }
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../test_runner/vectors/neon")
}

fn captures(wanted: impl Fn(&str) -> bool) -> Vec<(String, Capture)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".gz") {
            let capture = read(&entry.path());
            if wanted(&capture.query) {
                found.push((name, capture));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

fn read(path: &PathBuf) -> Capture {
    let (mut client, mut server) = (Vec::new(), Vec::new());
    for line in BufReader::new(GzDecoder::new(File::open(path).unwrap())).lines() {
        let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        let bytes = hex::decode(line["hex"].as_str().unwrap()).unwrap();
        if line["from"] == "client" {
            client.extend(bytes)
        } else {
            server.extend(bytes)
        }
    }
    let mut capture = Capture::default();
    let mut rest = &client[..];
    // Startup packets have no type byte; a request for SSL is refused with one byte.
    if rest.starts_with(&[0, 0, 0, 8, 4, 0xD2, 0x16, 0x2F]) {
        rest = &rest[8..];
        server.remove(0);
    }
    let startup = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
    for (kind, body) in frames(&rest[startup..]) {
        match kind {
            b'Q' => {
                capture.query = String::from_utf8_lossy(&body)
                    .trim_end_matches('\0')
                    .to_owned();
            }
            b'd' => capture.client.push(body),
            _ => {}
        }
    }
    capture.server = frames(&server)
        .into_iter()
        .filter(|(kind, _)| *kind == b'd')
        .map(|f| f.1)
        .collect();
    capture
}

fn frames(mut rest: &[u8]) -> Vec<(u8, Bytes)> {
    let mut frames = Vec::new();
    while rest.len() >= 5 {
        let end = 1 + u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        // A connection that was cut may end inside a frame.
        let Some(body) = rest.get(5..end) else { break };
        frames.push((rest[0], Bytes::copy_from_slice(body)));
        rest = &rest[end..];
    }
    frames
}
