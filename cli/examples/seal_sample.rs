//! `seal_sample DIRECTORY`: writes a sealed layer and a sealed WAL segment with a row's text
//! inside, under a key that is forgotten at once. `make run` looks at them.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use anyhow::Context;
use ids::{FileId, Generation, KekId, KekVersion, Lsn, NodeId, TenantId, Term, TimelineId};
use sealed::log::{EpochStart, LogWriter, SegmentSpec};
use sealed::object::{self, ObjectSpec};
use sealed::{Dek, Entropy, Kek, ObjectKind, wrap};

/// The text that nobody must find in the files.
pub const MARKER: &str = "the-row-that-nobody-must-find";

/// Random bytes of the kernel; asked for once per fill.
struct Urandom(File);

impl Entropy for Urandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0
            .read_exact(bytes)
            .expect("the kernel always has random bytes");
    }
}

fn main() -> anyhow::Result<()> {
    let directory = PathBuf::from(
        std::env::args()
            .nth(1)
            .context("usage: seal_sample DIRECTORY")?,
    );
    let mut entropy = Urandom(File::open("/dev/urandom")?);
    let mut id = || {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes);
        bytes
    };
    let (tenant, timeline, kek_id) = (TenantId(id()), TimelineId(id()), KekId(id()));
    let files = [FileId(id()), FileId(id())];
    let mut kek = [0; 32];
    entropy.fill(&mut kek);
    let kek = Kek::from_bytes(kek);
    let rows = format!("{MARKER}\n").repeat(2_000);

    let dek = Dek::generate(&mut entropy);
    let slot = wrap::wrap(&kek, tenant, kek_id, KekVersion(1), &dek, &mut entropy);
    let spec = ObjectSpec {
        kind: ObjectKind::DeltaLayer,
        tenant,
        timeline,
        generation: Generation(1),
        name: "layer".to_owned(),
        aux: 0x0200_0000,
        created_unix: 0,
        file_id: files[0],
    };
    std::fs::write(
        directory.join("layer"),
        object::seal(&spec, &dek, &slot, rows.as_bytes()),
    )?;

    let dek = Dek::generate(&mut entropy);
    let slot = wrap::wrap(&kek, tenant, kek_id, KekVersion(1), &dek, &mut entropy);
    let segment = SegmentSpec {
        tenant,
        timeline,
        generation: Generation(1),
        name: "wal".to_owned(),
        segment: 1,
        created_unix: 0,
        file_id: files[1],
    };
    let start_lsn = Lsn(0x0100_0000);
    let start = EpochStart {
        term: Term(1),
        start_lsn,
        node: NodeId(1),
        boot_nonce: 1,
    };
    let (mut writer, first) = LogWriter::create(&segment, &dek, &slot, 1, &start, &mut entropy);
    let mut bytes = first.to_vec();
    for payload in rows.as_bytes().chunks(8192) {
        let at = writer.log().end_lsn();
        bytes.extend_from_slice(&writer.append(at, payload)?);
    }
    std::fs::write(directory.join("wal"), bytes)?;
    Ok(())
}
