//! Recorded conversations between a Neon compute and Neon's storage, read by the tests of other
//! crates. Whatever fails here panics: it is for tests alone.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "only tests link this, and a test may"
)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use bytes::Bytes;
use flate2::read::GzDecoder;
use serde::Deserialize;

const ENDING: &str = ".jsonl.gz";
/// What asks for TLS. It has no type byte, and is refused by one byte.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 0xD2, 0x16, 0x2F];

/// One connection.
#[derive(Debug, Default)]
pub struct Capture {
    /// The client's last query.
    pub query: String,
    /// The payloads of the client's CopyData.
    pub client: Vec<Bytes>,
    /// Those of the server's.
    pub server: Vec<Bytes>,
}

/// What one side was heard to say in one read; reads keep to no border of messages.
#[derive(Deserialize)]
struct Heard {
    from: String,
    hex: String,
}

/// The names of all captures, in their order.
#[must_use]
pub fn names() -> Vec<String> {
    let files = fs::read_dir(directory()).unwrap();
    let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let names = files.filter_map(|file| Some(file.strip_suffix(ENDING)?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

/// The capture of this name.
#[must_use]
pub fn read(name: &str) -> Capture {
    let file = File::open(directory().join(format!("{name}{ENDING}"))).unwrap();
    let (mut client, mut server) = (Vec::new(), Vec::new());
    for line in BufReader::new(GzDecoder::new(file)).lines() {
        let heard: Heard = serde_json::from_str(&line.unwrap()).unwrap();
        let bytes = hex::decode(heard.hex).unwrap();
        match heard.from.as_str() {
            "client" => client.extend(bytes),
            "server" => server.extend(bytes),
            other => panic!("{name}: {other} said something"),
        }
    }
    let (mut client, mut server) = (&client[..], &server[..]);
    if let Some(rest) = client.strip_prefix(&SSL_REQUEST) {
        (client, server) = (rest, &server[1..]);
    }
    let startup = u32::from_be_bytes(client[..4].try_into().unwrap()) as usize;
    let client = frames(&client[startup..]);
    let query = client.iter().rfind(|(kind, _)| *kind == b'Q');
    let query = query.map_or(&[][..], |(_, body)| &body[..]);
    Capture {
        query: String::from_utf8_lossy(query)
            .trim_end_matches('\0')
            .to_owned(),
        client: payloads(client),
        server: payloads(frames(server)),
    }
}

/// The full backup of the timeline of runs A and A2 as of 0/1481660, before the first compute: a
/// tar.
#[must_use]
pub fn full_backup() -> Vec<u8> {
    let file = File::open(directory().join("fullbackup-at-initdb-lsn.tar.zst")).unwrap();
    let mut tar = Vec::new();
    let mut frame = ruzstd::decoding::StreamingDecoder::new(file).unwrap();
    frame.read_to_end(&mut tar).unwrap();
    tar
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../vectors/neon")
}

/// Type and body of each message.
fn frames(mut rest: &[u8]) -> Vec<(u8, Bytes)> {
    let mut frames = Vec::new();
    while rest.len() >= 5 {
        let end = 1 + u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        // A connection that was cut may end inside a message.
        let Some(body) = rest.get(5..end) else { break };
        frames.push((rest[0], Bytes::copy_from_slice(body)));
        rest = &rest[end..];
    }
    frames
}

fn payloads(frames: Vec<(u8, Bytes)>) -> Vec<Bytes> {
    let copied = frames.into_iter().filter(|(kind, _)| *kind == b'd');
    copied.map(|(_, body)| body).collect()
}
