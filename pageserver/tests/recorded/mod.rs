//! What a Neon compute and Neon's storage were heard to say: the data directory that they began
//! with, the WAL that the compute wrote, and every question about pages with its answer.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use captures::Capture;
use ids::Lsn;
use pg::PgMajor;
use pg::control::ControlFile;
use pg::datadir::wal_segment_name;
use pg::wal::{Decoder, WalShape, segment_prefix, shutdown_checkpoint};
use pg::wire::pagestream::{Request, Version};
use pg::wire::wal_push::ToAcceptor;

const SEGMENT_BYTES: u64 = 16 << 20;
/// Where initdb's shutdown checkpoint begins, and the first record of the compute after it.
const CHECKPOINT: Lsn = Lsn(0x148_15E8);
pub(crate) const START: Lsn = Lsn(0x148_1660);

/// Makes a directory of the recorded full backup: the data directory that it is one of. Neon leaves
/// out the WAL, and with it the place of the shutdown checkpoint that `pg_control` repeats.
pub(crate) fn data_directory(into: &Path) {
    tar::Archive::new(&captures::full_backup()[..])
        .unpack(into)
        .unwrap();
    let control = into.join("global/pg_control");
    let mut mended = ControlFile::parse(&fs::read(&control).unwrap()).unwrap();
    let shape = shape(mended.system_id());
    let (from, before) = (CHECKPOINT, Lsn(SEGMENT_BYTES));
    let (written, checkpoint) = shutdown_checkpoint(&shape, from, before, &mended.checkpoint());
    assert_eq!((written.start, written.end), (CHECKPOINT, START));
    mended.set_shutdown(CHECKPOINT, &checkpoint);
    fs::write(control, mended.as_bytes()).unwrap();
    let segment = [segment_prefix(&shape, CHECKPOINT), written.bytes].concat();
    let name = wal_segment_name(1, START, SEGMENT_BYTES);
    fs::write(into.join("pg_wal").join(name), segment).unwrap();
}

const fn shape(system_id: u64) -> WalShape {
    WalShape {
        version: PgMajor::V17,
        segment_bytes: SEGMENT_BYTES,
        system_id,
        tli: 1,
    }
}

/// WAL of one timeline, as its proposers sent it.
pub(crate) struct Wal {
    pub(crate) start: Lsn,
    bytes: Vec<u8>,
    /// Where records end, in their order.
    ends: Vec<Lsn>,
}

impl Wal {
    /// That of several proposers, one after the other. What one appends takes the place of
    /// whatever was there from its begin on.
    pub(crate) fn read(proposers: &[String], start: Lsn) -> Self {
        let mut wal = Vec::new();
        for name in proposers {
            let Capture { query, client, .. } = captures::read(name);
            for message in client {
                let Some((begin, bytes)) = appended(&query, message) else {
                    continue;
                };
                let at = usize::try_from(begin.0 - start.0).unwrap();
                assert!(at <= wal.len(), "{name} leaves a gap before {begin}");
                wal.truncate(at);
                wal.extend_from_slice(&bytes);
            }
        }
        let mut decoder = Decoder::new(shape(0), start);
        decoder.feed(&wal);
        let mut ends = Vec::new();
        while let Some((_, end, _)) = decoder.next().unwrap() {
            ends.push(end);
        }
        let end = start + wal.len() as u64;
        assert_eq!(ends.last(), Some(&end), "it ends inside of a record");
        let bytes = wal;
        Self { start, bytes, ends }
    }

    /// Where its last record ends.
    pub(crate) fn end(&self) -> Lsn {
        *self.ends.last().unwrap()
    }

    /// The first place from `lsn` on where no record is under way.
    pub(crate) fn end_from(&self, lsn: Lsn) -> Lsn {
        match self.ends.partition_point(|end| *end < lsn) {
            0 if lsn <= self.start => self.start,
            place => self.ends[place],
        }
    }

    /// Puts it into a directory like `pg_wal`.
    pub(crate) fn write(&self, into: &Path) -> PathBuf {
        fs::create_dir(into).unwrap();
        let begin = usize::try_from(self.start.segment_offset(SEGMENT_BYTES)).unwrap();
        let mut segment = [vec![0; begin], self.bytes.clone()].concat();
        segment.resize(usize::try_from(SEGMENT_BYTES).unwrap(), 0);
        let name = wal_segment_name(1, self.start, SEGMENT_BYTES);
        fs::write(into.join(name), segment).unwrap();
        into.to_owned()
    }
}

/// Where the WAL begins that a message to a safekeeper carries, and the WAL.
fn appended(query: &str, mut message: Bytes) -> Option<(Lsn, Bytes)> {
    if query.contains("proto_version '3'") {
        return match ToAcceptor::decode(message).unwrap() {
            ToAcceptor::Append(append) => Some((append.begin, append.wal)),
            _ => None,
        };
    }
    // Version 2, which this safekeeper does not speak, is little-endian: tag, term, start of the
    // epoch, begin, end, commit and truncate positions, the proposer's 16 bytes, WAL.
    assert!(query.contains("proto_version '2'"), "{query}");
    if message.get_u64_le() != u64::from(b'a') {
        return None;
    }
    let (_term, _epoch) = (message.get_u64_le(), message.get_u64_le());
    let (begin, end) = (Lsn(message.get_u64_le()), Lsn(message.get_u64_le()));
    message.advance(8 + 8 + 16);
    assert_eq!(begin + message.len() as u64, end);
    Some((begin, message))
}

/// One question that was asked, and what was answered.
pub(crate) struct Asked {
    /// The capture, and the number of the question in it from 1 on.
    pub(crate) place: (String, usize),
    pub(crate) version: Version,
    pub(crate) request: Request,
    pub(crate) question: Bytes,
    pub(crate) answer: Bytes,
}

impl Asked {
    /// How much WAL must be there for the answer.
    pub(crate) const fn since(&self) -> Lsn {
        self.request.not_modified_since
    }
}

/// What was asked in the captures whose names begin like this.
pub(crate) fn asked(begins: &str) -> Vec<Asked> {
    let mut all = Vec::new();
    for name in captures::names() {
        if !name.starts_with(begins) {
            continue;
        }
        let capture = captures::read(&name);
        let version = match capture.query.split_once(' ') {
            Some(("pagestream_v2", _)) => Version::V2,
            Some(("pagestream_v3", _)) => Version::V3,
            _ => panic!("{name}: {}", capture.query),
        };
        assert_eq!(capture.client.len(), capture.server.len(), "{name}");
        let numbered = (1..).zip(capture.client).zip(capture.server);
        all.extend(numbered.map(|((number, question), answer)| Asked {
            place: (name.clone(), number),
            version,
            request: Request::decode(version, question.clone()).unwrap(),
            question,
            answer,
        }));
    }
    all
}
