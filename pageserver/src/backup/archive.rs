//! An uncompressed tar, sent as it is made.

use bytes::{Bytes, BytesMut};
use tar::{EntryType, Header};
use tokio::sync::mpsc;

use super::BackupError;

const RECORD_BYTES: u64 = 512;
const ZEROS: [u8; 1024] = [0; 1024];

pub(super) struct Archive {
    sink: mpsc::Sender<Bytes>,
    /// Small members are sent together.
    pending: BytesMut,
    created: u64,
}

/// A member whose content is still to come.
pub(super) struct Member {
    left: u64,
    padding: usize,
}

impl Archive {
    pub(super) fn new(sink: mpsc::Sender<Bytes>) -> Self {
        Self {
            sink,
            pending: BytesMut::new(),
            created: service::clock::unix_seconds(),
        }
    }

    pub(super) async fn directory(&mut self, path: &str) -> Result<(), BackupError> {
        self.header(&format!("{path}/"), EntryType::Directory, 0o700, 0)?;
        self.send_pending().await
    }

    pub(super) async fn file(&mut self, path: &str, content: Bytes) -> Result<(), BackupError> {
        let mut member = self.begin(path, content.len() as u64)?;
        self.append(&mut member, content).await?;
        self.end(member);
        Ok(())
    }

    /// Begins a file of `length` bytes.
    pub(super) fn begin(&mut self, path: &str, length: u64) -> Result<Member, BackupError> {
        self.header(path, EntryType::Regular, 0o600, length)?;
        let padding = length.next_multiple_of(RECORD_BYTES) - length;
        Ok(Member {
            left: length,
            padding: padding as usize, // below 512
        })
    }

    pub(super) async fn append(
        &mut self,
        member: &mut Member,
        content: Bytes,
    ) -> Result<(), BackupError> {
        member.left -= content.len() as u64;
        self.pending.extend_from_slice(&content);
        self.send_pending().await
    }

    pub(super) fn end(&mut self, member: Member) {
        assert_eq!(member.left, 0, "a member is as long as its header says");
        self.pending.extend_from_slice(&ZEROS[..member.padding]);
    }

    /// Without these two records the archive is not whole.
    pub(super) async fn finish(mut self) -> Result<(), BackupError> {
        self.pending.extend_from_slice(&ZEROS);
        let rest = self.pending.split().freeze();
        self.send(rest).await
    }

    fn header(
        &mut self,
        path: &str,
        kind: EntryType,
        mode: u32,
        length: u64,
    ) -> Result<(), BackupError> {
        let mut header = Header::new_ustar();
        header
            .set_path(path)
            .map_err(|_| BackupError::Member(path.to_owned()))?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(length);
        header.set_mtime(self.created);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        self.pending.extend_from_slice(header.as_bytes());
        Ok(())
    }

    async fn send_pending(&mut self) -> Result<(), BackupError> {
        const PIECE_BYTES: usize = 128 << 10;
        if self.pending.len() < PIECE_BYTES {
            return Ok(());
        }
        let piece = self.pending.split().freeze();
        self.send(piece).await
    }

    async fn send(&self, piece: Bytes) -> Result<(), BackupError> {
        let sent = self.sink.send(piece).await;
        sent.map_err(|_| BackupError::ReceiverGone)
    }
}
