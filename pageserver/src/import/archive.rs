//! Reads the archive: files by their paths, in memory.

use std::io::Read;

use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

/// More than this is not taken into memory.
pub(super) const ARCHIVE_BYTES_MAX: u64 = 1 << 30;

/// The archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// It ends early, or is no tar.
    #[error("the archive cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It is longer than what is taken in.
    #[error(
        "the archive holds more than {ARCHIVE_BYTES_MAX} bytes: larger data directories are not \
         supported yet"
    )]
    TooLarge,
    /// A member whose name is not text.
    #[error("the archive has a member whose name is not UTF-8")]
    Name,
    /// A member that a data directory has no use for.
    #[error("{path} is no file, directory or link")]
    Kind { path: String },
    /// The task that read it is gone.
    #[error("reading the archive was given up")]
    GivenUp,
}

/// Reads all of an uncompressed tar. A link is a file without content: whoever takes the files
/// refuses it by its name.
pub(crate) async fn unpack(
    tar: impl AsyncRead + Send + Unpin + 'static,
) -> Result<Vec<(String, Bytes)>, ArchiveError> {
    let bridge = SyncIoBridge::new(tar);
    let reading = tokio::task::spawn_blocking(move || read(bridge));
    reading.await.map_err(|_| ArchiveError::GivenUp)?
}

pub(super) fn read(tar: impl Read) -> Result<Vec<(String, Bytes)>, ArchiveError> {
    let mut archive = tar::Archive::new(tar);
    let (mut files, mut left) = (Vec::new(), ARCHIVE_BYTES_MAX);
    for member in archive.entries()? {
        let mut member = member?;
        let path = String::from_utf8(member.path_bytes().into_owned());
        let path = path.map_err(|_| ArchiveError::Name)?;
        let path = path.trim_start_matches("./").trim_end_matches('/');
        let kind = member.header().entry_type();
        if kind.is_dir() {
            continue;
        }
        if !(kind.is_file() || kind.is_symlink() || kind.is_hard_link()) {
            let path = path.to_owned();
            return Err(ArchiveError::Kind { path });
        }
        // The length is not believed before the bytes are there.
        left = left
            .checked_sub(member.size())
            .ok_or(ArchiveError::TooLarge)?;
        let mut bytes = Vec::with_capacity(member.size().min(16 << 20) as usize);
        member.read_to_end(&mut bytes)?;
        files.push((path.to_owned(), bytes.into()));
    }
    Ok(files)
}
