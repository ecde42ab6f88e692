//! Reads the archive as it comes: what its files hold goes to a [`Spool`], in memory stays a line for
//! each of them.

use std::io::{self, Read};
use std::ops::Range;

use ids::Lsn;
use pg::page::BLOCK;
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

use super::spool::{Spool, SpoolWriter};
use crate::timeline::Home;

/// Lines are in memory.
const MEMBERS_MAX: usize = 4 << 20;
/// The bytes of a member that are in memory at one time: whole pages.
const READ_BYTES: usize = 32 * BLOCK;
/// A tar ends with two blocks of zeros.
const END_BYTES: u64 = 1024;

/// The archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// It ends early, or is no tar.
    #[error("the archive cannot be read after {members} members: {source}")]
    Read {
        members: usize,
        #[source]
        source: io::Error,
    },
    /// It ends between two members.
    #[error("the archive is cut: it ends after {members} members without the mark of its end")]
    Cut { members: usize },
    /// It has more members than any data directory that is served.
    #[error("the archive has more than {MEMBERS_MAX} members")]
    TooMany,
    /// A member whose name is not text.
    #[error("the archive has a member whose name is not UTF-8")]
    Name,
    /// A member that a data directory has no use for.
    #[error("{path} is no file, directory or link")]
    Kind { path: String },
    /// The disk does not take, or give back, what came.
    #[error("the archive cannot be kept while it is read: {0}")]
    Spool(#[source] io::Error),
    /// The task that read it is gone.
    #[error("reading the archive was given up")]
    GivenUp,
}

/// What a member holds, in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) range: Range<u64>,
    /// Were it pages, the newest and its number.
    pub(super) newest: (Lsn, u32),
}

impl Extent {
    pub(super) fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// An archive that came whole: files by their paths, in its order. Those of directories, which are
/// there for tablespaces alone, end in `/`.
pub(crate) struct Archive {
    pub(super) members: Vec<(String, Extent)>,
    pub(super) spool: Spool,
}

/// Reads all of an uncompressed tar. A link is a file without content: whoever takes the files
/// refuses it by its name.
pub(crate) async fn unpack(
    home: &Home,
    tar: impl AsyncRead + Send + Unpin + 'static,
) -> Result<Archive, ArchiveError> {
    let bridge = SyncIoBridge::new(tar);
    let (cache, tenant, timeline) = (home.cache.clone(), home.tenant, home.timeline);
    let reading = tokio::task::spawn_blocking(move || {
        let file = cache.unnamed_file().map_err(ArchiveError::Spool)?;
        let spool = SpoolWriter::new(file, tenant, timeline).map_err(ArchiveError::Spool)?;
        read(bridge, spool)
    });
    reading.await.map_err(|_| ArchiveError::GivenUp)?
}

pub(super) fn read(tar: impl Read, spool: SpoolWriter) -> Result<Archive, ArchiveError> {
    let mut taking = Taking {
        members: Vec::new(),
        spool,
    };
    let mut archive = tar::Archive::new(Counted::new(tar));
    let mut end = 0;
    let entries = archive.entries();
    for member in entries.map_err(|source| taking.unreadable(source))? {
        let mut member = member.map_err(|source| taking.unreadable(source))?;
        end = member.raw_file_position() + member.size().next_multiple_of(512);
        taking.take(&mut member)?;
    }
    let mut rest = archive.into_inner();
    let drained = io::copy(&mut rest, &mut io::sink());
    drained.map_err(|source| taking.unreadable(source))?;
    // A stream that was cut between two members looks like one that has come to its end.
    let behind = rest.bytes.saturating_sub(end);
    if behind < END_BYTES || rest.zeros < behind {
        let members = taking.members.len();
        return Err(ArchiveError::Cut { members });
    }
    Ok(Archive {
        members: taking.members,
        spool: taking.spool.finish().map_err(ArchiveError::Spool)?,
    })
}

struct Taking {
    members: Vec<(String, Extent)>,
    spool: SpoolWriter,
}

impl Taking {
    fn unreadable(&self, source: io::Error) -> ArchiveError {
        let members = self.members.len();
        ArchiveError::Read { members, source }
    }

    fn take<R: Read>(&mut self, member: &mut tar::Entry<'_, R>) -> Result<(), ArchiveError> {
        let path = String::from_utf8(member.path_bytes().into_owned());
        let path = path.map_err(|_| ArchiveError::Name)?;
        let path = path.trim_start_matches("./").trim_end_matches('/');
        let kind = member.header().entry_type();
        // A tablespace may have no file.
        if kind.is_dir() && path.starts_with("pg_tblspc/") {
            return self.add(format!("{path}/"), member);
        }
        if kind.is_dir() {
            return Ok(());
        }
        if !(kind.is_file() || kind.is_symlink() || kind.is_hard_link()) {
            let path = path.to_owned();
            return Err(ArchiveError::Kind { path });
        }
        self.add(path.to_owned(), member)
    }

    fn add<R: Read>(
        &mut self,
        path: String,
        member: &mut tar::Entry<'_, R>,
    ) -> Result<(), ArchiveError> {
        if self.members.len() >= MEMBERS_MAX {
            return Err(ArchiveError::TooMany);
        }
        let size = member.size();
        let extent = self.content(member)?;
        if extent.bytes() != size {
            let source = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(self.unreadable(source));
        }
        self.members.push((path, extent));
        Ok(())
    }

    fn content(&mut self, from: &mut impl Read) -> Result<Extent, ArchiveError> {
        let start = self.spool.len();
        let (mut newest, mut block) = ((Lsn(0), 0), 0_u32);
        let mut buffer = Vec::with_capacity(READ_BYTES);
        loop {
            buffer.clear();
            let part = from.by_ref().take(READ_BYTES as u64);
            let came = { part }.read_to_end(&mut buffer);
            if came.map_err(|source| self.unreadable(source))? == 0 {
                break;
            }
            // What is no whole number of pages is refused where it is a fork.
            for page in buffer.as_chunks::<BLOCK>().0 {
                newest = newest.max((pg::page::lsn(page), block));
                block = block.saturating_add(1);
            }
            self.spool.put(&buffer).map_err(ArchiveError::Spool)?;
        }
        let range = start..self.spool.len();
        Ok(Extent { range, newest })
    }
}

/// Counts the bytes that came, and the zeros that they end with.
struct Counted<R> {
    from: R,
    bytes: u64,
    zeros: u64,
}

impl<R> Counted<R> {
    const fn new(from: R) -> Self {
        Self {
            from,
            bytes: 0,
            zeros: 0,
        }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let came = self.from.read(buffer)?;
        let zeros = buffer[..came].iter().rev().take_while(|byte| **byte == 0);
        let zeros = zeros.count();
        self.zeros = if zeros == came { self.zeros } else { 0 } + zeros as u64;
        self.bytes += came as u64;
        Ok(came)
    }
}

#[cfg(test)]
impl Archive {
    /// The archive that holds these files.
    pub(crate) fn of(files: impl IntoIterator<Item = (String, bytes::Bytes)>) -> Self {
        let spool = unnamed_spool(tempfile::tempfile().unwrap());
        let mut taking = Taking {
            members: Vec::new(),
            spool,
        };
        for (path, bytes) in files {
            let extent = taking.content(&mut &bytes[..]).unwrap();
            taking.members.push((path, extent));
        }
        Self {
            members: taking.members,
            spool: taking.spool.finish().unwrap(),
        }
    }

    /// What each of the files holds.
    pub(crate) fn files(&self) -> impl Iterator<Item = (String, bytes::Bytes)> {
        let whole = |(path, extent): &(String, Extent)| {
            let bytes = self.spool.read(extent.range.clone());
            (path.clone(), bytes.unwrap())
        };
        self.members.iter().map(whole)
    }
}

#[cfg(test)]
pub(super) fn unnamed_spool(file: std::fs::File) -> SpoolWriter {
    let (tenant, timeline) = (ids::TenantId([1; 16]), ids::TimelineId([2; 16]));
    SpoolWriter::new(file, tenant, timeline).unwrap()
}
