//! Records: header, block references, images, data (`xlogrecord.h`).

use ids::{Fork, Lsn, RelTag};
use smallvec::SmallVec;

use super::image::{Compression, Image};
use super::rmgr;
use crate::PgMajor;
use crate::cursor::Cursor;
use crate::datadir::FilenodeMapError;
use crate::page::BLOCK;

/// The length of a record's header.
pub const RECORD_HEADER_BYTES: usize = 24;

/// Bits of [`Block::flags`].
pub mod block_flags {
    /// The fork's number.
    pub const FORK_MASK: u8 = 0x0F;
    /// There is an image.
    pub const HAS_IMAGE: u8 = 0x10;
    /// There is data.
    pub const HAS_DATA: u8 = 0x20;
    /// Redo makes the page anew.
    pub const WILL_INIT: u8 = 0x40;
    /// The relation is that of the block before.
    pub const SAME_REL: u8 = 0x80;
}

const BLOCK_ID_MAX: u8 = 32;
const ID_DATA_SHORT: u8 = 255;
const ID_DATA_LONG: u8 = 254;
const ID_ORIGIN: u8 = 253;
const ID_TOPLEVEL_XID: u8 = 252;

const IMAGE_HAS_HOLE: u8 = 0x01;

/// The blocks of a record: most have at most two, which then need no memory of their own.
pub type Blocks<'a> = SmallVec<[Block<'a>; 2]>;

/// A record, taken apart as far as every resource manager has the same form. It borrows its
/// payloads from the bytes that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it begins: what the next record calls its previous one.
    pub start: Lsn,
    /// Where it ends, rounded up to 8: what `pd_lsn` of the pages that it changes becomes.
    pub end: Lsn,
    /// The record before it.
    pub prev: Lsn,
    /// The transaction; 0 where there is none.
    pub xid: u32,
    /// The resource manager's four bits (high) and those common to all (low).
    pub info: u8,
    /// The resource manager.
    pub rmid: u8,
    /// The replication origin, where there is one.
    pub origin: Option<u16>,
    /// The top-level transaction, in the first record of a subtransaction (logical WAL only).
    pub toplevel_xid: Option<u32>,
    /// The payload that belongs to no block.
    pub main_data: &'a [u8],
    /// The blocks that it changes, by ascending id.
    pub blocks: Blocks<'a>,
}

impl<'a> Record<'a> {
    /// The opcode and its modifiers: the resource manager's four bits of `info`.
    #[must_use]
    pub const fn op(&self) -> u8 {
        self.info & 0xF0
    }

    /// The block with this id; ids need not be without gaps.
    #[must_use]
    pub fn block(&self, id: u8) -> Option<&Block<'a>> {
        self.blocks.iter().find(|block| block.id == id)
    }
}

/// A block that a record changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// Its number in the record: its role, to the resource manager.
    pub id: u8,
    /// The fork that it is in.
    pub rel: RelTag,
    /// Its number in the fork.
    pub blkno: u32,
    /// See [`block_flags`].
    pub flags: u8,
    /// A full-page image.
    pub image: Option<Image<'a>>,
    /// The payload that belongs to this block.
    pub data: &'a [u8],
}

impl<'a> Block<'a> {
    /// Whether redo makes the page anew, so that what stood there does not matter.
    #[must_use]
    pub const fn will_init(&self) -> bool {
        self.flags & block_flags::WILL_INIT != 0
    }

    /// The image, where redo restores it rather than change the page.
    #[must_use]
    pub fn applied_image(&self) -> Option<&Image<'a>> {
        self.image.as_ref().filter(|image| image.apply)
    }
}

/// The 24 bytes before a record's blocks and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The length of all of it, header included.
    pub total_bytes: u32,
    /// The transaction.
    pub xid: u32,
    /// The record before.
    pub prev: Lsn,
    /// Bits of the resource manager and of all.
    pub info: u8,
    /// The resource manager.
    pub rmid: u8,
    /// CRC-32C of what follows the header, then of the header up to here.
    pub crc: u32,
}

impl RecordHeader {
    /// Reads the header off the front of a record; `None` where it is not all there.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let (total_bytes, xid) = (cursor.u32()?, cursor.u32()?);
        let prev = Lsn(cursor.u64()?);
        let (info, rmid) = (cursor.u8()?, cursor.u8()?);
        let _padding = cursor.u16()?;
        Some(Self {
            total_bytes,
            xid,
            prev,
            info,
            rmid,
            crc: cursor.u32()?,
        })
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.total_bytes.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.xid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.prev.0.to_le_bytes());
        bytes[16] = self.info;
        bytes[17] = self.rmid;
        bytes[20..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }
}

/// A record cannot be taken apart, or not understood. Ingest stops at its LSN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("WAL record at {lsn} ({} rmgr {rmid}, info {info:#04x}): {reason}", rmgr::name(*rmid))]
pub struct DecodeError {
    /// Where the record begins.
    pub lsn: Lsn,
    /// Its resource manager.
    pub rmid: u8,
    /// Its info byte.
    pub info: u8,
    /// What is wrong.
    pub reason: Malformed,
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is shorter than its own header.
    #[error("no whole record header")]
    NoHeader,
    /// The length in the header is not the length.
    #[error("header says {header} bytes, there are {actual}")]
    Length {
        /// In the header.
        header: u32,
        /// Really.
        actual: usize,
    },
    /// The record ends inside this.
    #[error("ends inside {0}")]
    Truncated(&'static str),
    /// Bytes are left over after everything.
    #[error("{bytes} bytes left over after {what}")]
    Trailing {
        /// How many.
        bytes: usize,
        /// After what.
        what: &'static str,
    },
    /// An id that is neither a block nor any other part.
    #[error("unknown block id {0}")]
    BlockId(u8),
    /// Block ids do not ascend.
    #[error("block id {0} out of order")]
    BlockOrder(u8),
    /// A part stands there twice.
    #[error("second {0}")]
    Twice(&'static str),
    /// The first block says that its relation is that of the block before.
    #[error("block {0} refers to a relation before it, and there is none")]
    NoPreviousRelation(u8),
    /// A fork that does not exist.
    #[error("block {block} is in unknown fork {fork}")]
    Fork {
        /// The block's id.
        block: u8,
        /// The fork number.
        fork: u8,
    },
    /// The invalid block number.
    #[error("block {0} has the invalid block number")]
    BlockNumber(u8),
    /// The flag and the length of data disagree.
    #[error("block {block} has {bytes} bytes of data, against its flags")]
    Data {
        /// The block's id.
        block: u8,
        /// The length of the data.
        bytes: u16,
    },
    /// The image's bits, length and hole do not fit together.
    #[error(
        "image of block {block} makes no sense: info {info:#04x}, {bytes} bytes, \
         hole of {hole_length} at {hole_offset}"
    )]
    Image {
        /// The block's id.
        block: u8,
        /// The image's bits.
        info: u8,
        /// The length of the image.
        bytes: u16,
        /// Where the hole begins.
        hole_offset: u16,
        /// Its length.
        hole_length: u16,
    },
    /// The relation map in it cannot be used.
    #[error(transparent)]
    FilenodeMap(FilenodeMapError),
    /// A resource manager that this version does not have.
    #[error("unknown resource manager")]
    UnknownRmgr,
    /// An opcode that the resource manager does not have in this version.
    #[error("unknown opcode")]
    UnknownOp,
    /// A bit, a count or another field has a value that is not understood.
    #[error("{what} is {value:#x}, which is not understood")]
    Field {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
}

/// Takes a record apart. `bytes` is the whole record as the framing gave it; its checksum was
/// checked there.
pub fn decode(
    version: PgMajor,
    start: Lsn,
    end: Lsn,
    bytes: &[u8],
) -> Result<Record<'_>, DecodeError> {
    // Filled where it is returned from: to move a record takes as long as to read it.
    let mut decoded = read_header(version, (start, end), bytes);
    if let Ok(record) = &mut decoded
        && let Err(reason) = read_parts(version, bytes, record)
    {
        let (rmid, info) = (record.rmid, record.info);
        decoded = Err(DecodeError {
            lsn: start,
            rmid,
            info,
            reason,
        });
    }
    decoded
}

/// The record without its parts.
#[inline]
fn read_header(
    version: PgMajor,
    (start, end): (Lsn, Lsn),
    bytes: &[u8],
) -> Result<Record<'_>, DecodeError> {
    let fail = |reason| DecodeError {
        lsn: start,
        rmid: bytes.get(17).copied().unwrap_or(0),
        info: bytes.get(16).copied().unwrap_or(0),
        reason,
    };
    let header = RecordHeader::decode(bytes).ok_or_else(|| fail(Malformed::NoHeader))?;
    if header.total_bytes as usize != bytes.len() {
        return Err(fail(Malformed::Length {
            header: header.total_bytes,
            actual: bytes.len(),
        }));
    }
    if header.rmid > rmgr::LOGICALMSG && (header.rmid < rmgr::CUSTOM_MIN || version < PgMajor::V15)
    {
        return Err(fail(Malformed::UnknownRmgr));
    }
    Ok(Record {
        start,
        end,
        prev: header.prev,
        xid: header.xid,
        info: header.info,
        rmid: header.rmid,
        origin: None,
        toplevel_xid: None,
        main_data: &[],
        blocks: SmallVec::new(),
    })
}

/// Reads what stands behind the header: the headers of all parts, then their payloads in the same
/// order.
fn read_parts<'a>(
    version: PgMajor,
    bytes: &'a [u8],
    record: &mut Record<'a>,
) -> Result<(), Malformed> {
    let mut cursor = Cursor::new(bytes.get(RECORD_HEADER_BYTES..).unwrap_or_default());
    let mut payload_bytes = 0;
    while cursor.remaining() > payload_bytes {
        let main_bytes = match cursor.u8().ok_or(Malformed::Truncated("part id"))? {
            id @ 0..=BLOCK_ID_MAX => {
                payload_bytes += read_block(version, id, &mut cursor, &mut record.blocks)?;
                continue;
            }
            ID_ORIGIN => {
                let origin = cursor.u16().ok_or(Malformed::Truncated("origin"))?;
                if record.origin.replace(origin).is_some() {
                    return Err(Malformed::Twice("origin"));
                }
                continue;
            }
            ID_TOPLEVEL_XID => {
                let xid = cursor.u32().ok_or(Malformed::Truncated("top-level xid"))?;
                if record.toplevel_xid.replace(xid).is_some() {
                    return Err(Malformed::Twice("top-level xid"));
                }
                continue;
            }
            ID_DATA_SHORT => cursor.u8().map(usize::from),
            ID_DATA_LONG => cursor.u32().map(|bytes| bytes as usize),
            id => return Err(Malformed::BlockId(id)),
        };
        payload_bytes += main_bytes.ok_or(Malformed::Truncated("main data length"))?;
        break; // main data is the last part
    }
    if payload_bytes > cursor.remaining() {
        return Err(Malformed::Truncated("payload"));
    }
    if payload_bytes < cursor.remaining() {
        let bytes = cursor.remaining() - payload_bytes;
        return Err(Malformed::Trailing {
            bytes,
            what: "payload",
        });
    }
    let mut payload = |bytes| cursor.take(bytes).ok_or(Malformed::Truncated("payload"));
    for block in &mut record.blocks {
        if let Some(image) = &mut block.image {
            image.bytes = payload(image.bytes.len())?;
        }
        block.data = payload(block.data.len())?;
    }
    record.main_data = cursor.rest();
    Ok(())
}

/// Reads the header of a block; answers how long its image and data are. Both are slices of that
/// length, of whatever follows, until all headers are read.
fn read_block<'a>(
    version: PgMajor,
    id: u8,
    cursor: &mut Cursor<'a>,
    blocks: &mut Blocks<'a>,
) -> Result<usize, Malformed> {
    const HEADER: Malformed = Malformed::Truncated("block header");
    if blocks.last().is_some_and(|last| last.id >= id) {
        return Err(Malformed::BlockOrder(id));
    }
    let flags = cursor.u8().ok_or(HEADER)?;
    let data_bytes = cursor.u16().ok_or(HEADER)?;
    if (flags & block_flags::HAS_DATA != 0) != (data_bytes != 0) {
        return Err(Malformed::Data {
            block: id,
            bytes: data_bytes,
        });
    }
    let image = if flags & block_flags::HAS_IMAGE != 0 {
        Some(read_image_header(version, id, cursor)?)
    } else {
        None
    };
    let fork_number = flags & block_flags::FORK_MASK;
    let fork = Fork::from_number(fork_number).ok_or(Malformed::Fork {
        block: id,
        fork: fork_number,
    })?;
    let rel = if flags & block_flags::SAME_REL != 0 {
        let last = blocks.last().ok_or(Malformed::NoPreviousRelation(id))?;
        RelTag { fork, ..last.rel }
    } else {
        read_relation(cursor, fork).ok_or(HEADER)?
    };
    let blkno = cursor.u32().ok_or(HEADER)?;
    if blkno == u32::MAX {
        return Err(Malformed::BlockNumber(id));
    }
    let data = ahead(cursor, data_bytes)?;
    let image_bytes = image.as_ref().map_or(0, |image| image.bytes.len());
    // Filled where it stays: a copy would wait until all of its fields are stored.
    blocks.push(NO_BLOCK);
    if let Some(block) = blocks.last_mut() {
        (block.id, block.rel, block.blkno) = (id, rel, blkno);
        (block.flags, block.image, block.data) = (flags, image, data);
    }
    Ok(image_bytes + data.len())
}

const NO_BLOCK: Block<'static> = Block {
    id: 0,
    rel: RelTag {
        spc: 0,
        db: 0,
        rel: 0,
        fork: Fork::Main,
    },
    blkno: 0,
    flags: 0,
    image: None,
    data: &[],
};

/// So many bytes of those that are not read yet.
fn ahead<'a>(cursor: &Cursor<'a>, bytes: u16) -> Result<&'a [u8], Malformed> {
    let ahead = cursor.rest().get(..usize::from(bytes));
    ahead.ok_or(Malformed::Truncated("payload"))
}

/// `RelFileNode` (14, 15), `RelFileLocator` (16 on): the same 12 bytes.
pub(crate) fn read_relation(cursor: &mut Cursor<'_>, fork: Fork) -> Option<RelTag> {
    let (spc, db, rel) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
    Some(RelTag { spc, db, rel, fork })
}

fn read_image_header<'a>(
    version: PgMajor,
    block: u8,
    cursor: &mut Cursor<'a>,
) -> Result<Image<'a>, Malformed> {
    const HEADER: Malformed = Malformed::Truncated("image header");
    let bytes = cursor.u16().ok_or(HEADER)?;
    let hole_offset = cursor.u16().ok_or(HEADER)?;
    let info = cursor.u8().ok_or(HEADER)?;
    let wrong = |hole_length| Malformed::Image {
        block,
        info,
        bytes,
        hole_offset,
        hole_length,
    };
    let (apply, compression) = image_bits(version, info).ok_or_else(|| wrong(0))?;
    let has_hole = info & IMAGE_HAS_HOLE != 0;
    let hole_length = match (compression, has_hole) {
        (Compression::None, _) => (BLOCK as u16).checked_sub(bytes).ok_or_else(|| wrong(0))?,
        (_, true) => cursor.u16().ok_or(HEADER)?,
        (_, false) => 0,
    };
    let hole_inside = usize::from(hole_offset) + usize::from(hole_length) <= BLOCK;
    let sane = if has_hole {
        hole_offset != 0 && hole_length != 0 && hole_inside && bytes != 0
    } else {
        hole_offset == 0 && hole_length == 0 && bytes != 0
    };
    // PostgreSQL logs a page of zeros as it is; Neon's servers log nothing but a hole.
    let all_hole = has_hole && compression == Compression::None && (bytes, hole_offset) == (0, 0);
    let packed = compression == Compression::None || usize::from(bytes) < BLOCK;
    if !(sane && packed || all_hole) {
        return Err(wrong(hole_length));
    }
    Ok(Image {
        hole_offset,
        hole_length,
        compression,
        apply,
        bytes: ahead(cursor, bytes)?,
    })
}

/// Whether redo applies the image, and how it is compressed: the bits were renumbered in 15.
fn image_bits(version: PgMajor, info: u8) -> Option<(bool, Compression)> {
    if version == PgMajor::V14 {
        let compression = if info & 0x02 != 0 {
            Compression::Pglz
        } else {
            Compression::None
        };
        return (info & !0x07 == 0).then_some((info & 0x04 != 0, compression));
    }
    let compression = match info & 0xFC {
        0x00 => Compression::None,
        0x04 => Compression::Pglz,
        0x08 => Compression::Lz4,
        0x10 => Compression::Zstd,
        _ => return None,
    };
    Some((info & 0x02 != 0, compression))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of one block, which has an image with this header and no more bytes.
    fn with_image(image: [u8; 5]) -> Vec<u8> {
        let header = RecordHeader {
            total_bytes: 49,
            xid: 738,
            prev: Lsn(0x80),
            info: 0xB0,
            rmid: 0,
            crc: 0,
        };
        let block = [0, block_flags::HAS_IMAGE, 0, 0];
        let place = [1663_u32, 5, 2658, 15].map(u32::to_le_bytes);
        [&header.encode()[..], &block, &image, place.as_flattened()].concat()
    }

    #[test]
    fn an_image_that_is_a_hole_and_nothing_else_is_a_page_of_zeros() {
        let bytes = with_image([0, 0, 0, 0, 3]);
        let record = decode(PgMajor::V17, Lsn(0x100), Lsn(0x138), &bytes).unwrap();
        let image = record.blocks[0].applied_image().unwrap();
        assert_eq!(image.restore().unwrap(), crate::page::zeroed());
        // Such a hole has its place, and what is compressed says how long it is.
        for wrong in [
            [0, 0, 8, 0, 3],
            [0, 0, 0, 0, 2],
            [0, 0, 0, 0, 7],
            [8, 0, 0, 0, 3],
        ] {
            let bytes = with_image(wrong);
            assert!(decode(PgMajor::V17, Lsn(0x100), Lsn(0x138), &bytes).is_err());
        }
    }
}
