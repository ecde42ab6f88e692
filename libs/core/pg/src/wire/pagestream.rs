//! Requests for pages and their answers, versions 2 and 3: one message is one CopyData.
//!
//! Version 3 echoes the whole request in its answer, so that an answer cannot be taken for that of
//! another request.

use bytes::{BufMut, Bytes, BytesMut};
use ids::{Fork, Lsn, RelTag};

use super::field::{Fields, WireError, put_text};

/// The version of the protocol, named by the command that started the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `pagestream_v2`: no request ids, answers bare.
    V2,
    /// `pagestream_v3`.
    V3,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the client; 0 in version 2.
    pub request_id: u64,
    /// The version wanted; [`Lsn::MAX`] for the latest.
    pub at: Lsn,
    /// The page is known not to have changed between this and `at`.
    pub not_modified_since: Lsn,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Whether a fork exists.
    Exists(RelTag),
    /// How many blocks a fork has.
    Nblocks(RelTag),
    /// One block of a fork.
    GetPage(RelTag, u32),
    /// The bytes of all relations of a database.
    DbSize(u32),
    /// A segment of an SLRU.
    Slru {
        /// 0 commit log, 1 multixact members, 2 multixact offsets.
        kind: u8,
        /// The segment.
        segment: u32,
    },
}

/// One answer, to be sent for its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Whether the fork exists.
    Exists(bool),
    /// How many blocks it has.
    Nblocks(u32),
    /// The page.
    Page(Bytes),
    /// The bytes of the database.
    DbSize(i64),
    /// Whole blocks of a segment.
    Slru(Bytes),
    /// Why not; the stream goes on.
    Error(String),
}

impl Request {
    /// Decodes one CopyData payload.
    pub fn decode(version: Version, message: Bytes) -> Result<Self, WireError> {
        let mut f = Fields(message);
        let tag = f.u8("tag")?;
        let request = Self::read(version, tag, &mut f)?;
        f.end()?;
        Ok(request)
    }

    /// The payload of its CopyData.
    #[must_use]
    pub fn encode(&self, version: Version) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(match self.ask {
            Ask::Exists(_) => 0,
            Ask::Nblocks(_) => 1,
            Ask::GetPage(..) => 2,
            Ask::DbSize(_) => 3,
            Ask::Slru { .. } => 4,
        });
        self.write(version, &mut out);
        out.freeze()
    }

    fn read(version: Version, tag: u8, f: &mut Fields) -> Result<Self, WireError> {
        let request_id = if version == Version::V3 {
            f.u64("request_id")?
        } else {
            0
        };
        let (at, not_modified_since) = (Lsn(f.u64("at")?), Lsn(f.u64("not_modified_since")?));
        let ask = match tag {
            0 => Ask::Exists(read_rel(f)?),
            1 => Ask::Nblocks(read_rel(f)?),
            2 => Ask::GetPage(read_rel(f)?, f.u32("block")?),
            3 => Ask::DbSize(f.u32("db")?),
            4 => Ask::Slru {
                kind: f.u8("slru")?,
                segment: f.u32("segment")?,
            },
            tag => return Err(WireError::UnknownTag { tag }),
        };
        Ok(Self {
            request_id,
            at,
            not_modified_since,
            ask,
        })
    }

    fn write(&self, version: Version, out: &mut BytesMut) {
        self.write_header(version, out);
        match &self.ask {
            Ask::Exists(rel) | Ask::Nblocks(rel) => write_rel(out, rel),
            Ask::GetPage(rel, block) => {
                write_rel(out, rel);
                out.put_u32(*block);
            }
            Ask::DbSize(db) => out.put_u32(*db),
            Ask::Slru { kind, segment } => {
                out.put_u8(*kind);
                out.put_u32(*segment);
            }
        }
    }

    fn write_header(&self, version: Version, out: &mut BytesMut) {
        if version == Version::V3 {
            out.put_u64(self.request_id);
        }
        out.put_u64(self.at.0);
        out.put_u64(self.not_modified_since.0);
    }
}

impl Answer {
    /// The payload of its CopyData, as the answer to `request`.
    #[must_use]
    pub fn encode(&self, version: Version, request: &Request) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(self.tag());
        if version == Version::V3 {
            match self {
                Self::Error(_) => request.write_header(version, &mut out),
                _ => request.write(version, &mut out),
            }
        }
        match self {
            Self::Exists(exists) => out.put_u8(u8::from(*exists)),
            Self::Nblocks(n) => out.put_u32(*n),
            Self::Page(page) => out.put_slice(page),
            Self::DbSize(bytes) => out.put_i64(*bytes),
            Self::Slru(blocks) => {
                out.put_u32((blocks.len() / crate::page::BLOCK) as u32);
                out.put_slice(blocks);
            }
            Self::Error(text) => put_text(&mut out, text),
        }
        out.freeze()
    }

    /// Decodes the answer to `request`; in version 3 an answer that echoes another request is
    /// refused.
    pub fn decode(version: Version, request: &Request, message: Bytes) -> Result<Self, WireError> {
        let mut f = Fields(message);
        let tag = f.u8("tag")?;
        if version == Version::V3 {
            let mut expected = BytesMut::new();
            match tag {
                103 => request.write_header(version, &mut expected),
                _ => request.write(version, &mut expected),
            }
            let echo = f.bytes("echo", expected.len())?;
            if echo != expected {
                return Err(WireError::BadValue {
                    field: "echo",
                    value: request.request_id,
                });
            }
        }
        let answer = match (tag, &request.ask) {
            (100, Ask::Exists(_)) => Self::Exists(f.flag("exists")?),
            (101, Ask::Nblocks(_)) => Self::Nblocks(f.u32("blocks")?),
            (102, Ask::GetPage(..)) => Self::Page(f.bytes("page", crate::page::BLOCK)?),
            (104, Ask::DbSize(_)) => Self::DbSize(f.i64("bytes")?),
            (105, Ask::Slru { .. }) => {
                let n = f.count("blocks", crate::page::BLOCK)?;
                Self::Slru(f.bytes("blocks", n * crate::page::BLOCK)?)
            }
            (103, _) => Self::Error(f.text("error")?),
            (tag, _) => return Err(WireError::UnknownTag { tag }),
        };
        f.end()?;
        Ok(answer)
    }

    fn tag(&self) -> u8 {
        match self {
            Self::Exists(_) => 100,
            Self::Nblocks(_) => 101,
            Self::Page(_) => 102,
            Self::Error(_) => 103,
            Self::DbSize(_) => 104,
            Self::Slru(_) => 105,
        }
    }
}

fn read_rel(f: &mut Fields) -> Result<RelTag, WireError> {
    let (spc, db, rel) = (f.u32("spc")?, f.u32("db")?, f.u32("rel")?);
    let fork = f.u8("fork")?;
    let fork = Fork::from_number(fork).ok_or(WireError::BadValue {
        field: "fork",
        value: u64::from(fork),
    })?;
    Ok(RelTag { spc, db, rel, fork })
}

fn write_rel(out: &mut BytesMut, rel: &RelTag) {
    for word in [rel.spc, rel.db, rel.rel] {
        out.put_u32(word);
    }
    out.put_u8(rel.fork as u8);
}
