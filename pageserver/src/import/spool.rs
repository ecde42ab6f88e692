//! Where the content of an archive waits until all of it is there: a file without a name, sealed as
//! one object under a key that is nowhere but in this memory. Dropping the spool is its end.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::{Bytes, BytesMut};
use ids::{FileId, Generation, KekId, KekVersion, TenantId, TimelineId};
use sealed::object::{Attempt, Expected, ObjectSpec, ObjectWriter, Reader};
use sealed::{Dek, HEADER_BYTES, Kek, ObjectKind, wrap};
use service::entropy::OsEntropy;

/// Sealed bytes are written as many at a time.
const WRITE_BYTES: usize = 1 << 20;
/// Its name is in its header, which is nowhere.
const NAME: &str = "import";
const KIND: ObjectKind = ObjectKind::BaseBackup;

/// Takes content, in order.
pub(super) struct SpoolWriter {
    file: File,
    dek: Dek,
    spec: ObjectSpec,
    writer: ObjectWriter,
    pending: BytesMut,
}

impl SpoolWriter {
    /// Begins a spool in `file`, which nobody else can open.
    pub(super) fn new(mut file: File, tenant: TenantId, timeline: TimelineId) -> io::Result<Self> {
        // The header stays in memory, and so does everything that could open the file.
        file.seek(SeekFrom::Start(HEADER_BYTES as u64))?;
        let dek = Dek::generate(&mut OsEntropy);
        let forgotten = Kek::from_bytes(OsEntropy::bytes());
        let (kek, version) = (KekId([0; 16]), KekVersion(0));
        let slot = wrap::wrap(&forgotten, tenant, kek, version, &dek, &mut OsEntropy);
        let attempt = Attempt::begin(&dek, slot, &mut OsEntropy);
        let spec = spec(tenant, timeline, attempt.file_id());
        Ok(Self {
            file,
            dek,
            spec,
            writer: ObjectWriter::new(attempt, KIND),
            pending: BytesMut::with_capacity(WRITE_BYTES + (128 << 10)),
        })
    }

    /// How much was taken: where the next content begins.
    pub(super) fn len(&self) -> u64 {
        self.writer.plaintext_len()
    }

    /// Takes more.
    pub(super) fn put(&mut self, content: &[u8]) -> io::Result<()> {
        self.writer.push(content, &mut self.pending);
        if self.pending.len() >= WRITE_BYTES {
            self.file.write_all(&self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }

    /// Ends it; from here on it can be read.
    pub(super) fn finish(mut self) -> io::Result<Spool> {
        let finished = self.writer.finish(&self.spec, &mut self.pending);
        self.file.write_all(&self.pending)?;
        let expected = Expected {
            kind: KIND,
            tenant: self.spec.tenant,
            timeline: self.spec.timeline,
            name: self.spec.name,
        };
        let (header, length) = (finished.header, finished.sealed_len);
        let reader = Reader::open(&header, length, &self.dek, &expected);
        Ok(Spool {
            file: self.file,
            reader: reader.map_err(io::Error::other)?,
        })
    }
}

fn spec(tenant: TenantId, timeline: TimelineId, file_id: FileId) -> ObjectSpec {
    ObjectSpec {
        kind: KIND,
        tenant,
        timeline,
        generation: Generation(0),
        name: NAME.to_owned(),
        aux: 0,
        created_unix: 0,
        file_id,
    }
}

/// All content of an archive.
pub(super) struct Spool {
    file: File,
    reader: Reader,
}

impl Spool {
    /// Content, as it was taken. It blocks.
    pub(super) fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let at = self.reader.sealed_range(range.clone());
        let length = usize::try_from(at.end - at.start).map_err(io::Error::other)?;
        let mut sealed = vec![0; length];
        self.file.read_exact_at(&mut sealed, at.start)?;
        let opened = self.reader.open_range(range, &sealed);
        opened.map_err(io::Error::other)
    }

    /// Takes the last bytes of the file away.
    #[cfg(test)]
    pub(super) fn cut(&self, bytes: u64) {
        let length = self.file.metadata().unwrap().len();
        self.file.set_len(length - bytes).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_comes_back_and_is_not_in_the_file_and_a_changed_file_is_refused() {
        let file = tempfile::tempfile().unwrap();
        let (tenant, timeline) = (TenantId([1; 16]), TimelineId([2; 16]));
        let mut spool = SpoolWriter::new(file.try_clone().unwrap(), tenant, timeline).unwrap();
        let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
        for piece in content.chunks(70_001) {
            spool.put(piece).unwrap();
        }
        assert_eq!(spool.len(), 3_000_000);
        let spool = spool.finish().unwrap();
        assert_eq!(spool.read(0..3_000_000).unwrap(), content);
        assert_eq!(spool.read(70_000..70_010).unwrap(), content[70_000..70_010]);
        let mut raw = vec![0; 1000];
        file.read_exact_at(&mut raw, 0).unwrap();
        assert_eq!(
            raw[..HEADER_BYTES],
            [0; HEADER_BYTES],
            "the header is nowhere"
        );
        assert!(!raw.windows(100).any(|w| w == &content[..100]));
        file.write_all_at(&[raw[600] ^ 1], 600).unwrap();
        assert!(spool.read(0..10).is_err());
        assert!(spool.read(100_000..100_010).is_ok());
    }
}
