//! Write-ahead log: framing of pages, records, images, and the writing of the few records that
//! Redoubt makes itself.

mod frame;
mod image;
mod input;
mod op;
pub mod page_header;
mod pglz;
mod record;
pub mod rmgr;
mod write;

pub use frame::{Decoder, FrameError, Framed, record_crc};
pub use image::{Compression, Image, ImageError};
pub use op::op_name;
pub use page_header::WalShape;
pub use pglz::{PglzError, decompress as pglz_decompress};
pub use record::{
    Block, Blocks, DecodeError, Malformed, RECORD_HEADER_BYTES, Record, RecordHeader, block_flags,
    decode,
};
pub use write::{
    LaidOut, encode_record, lay_out, record_start, segment_prefix, shutdown_checkpoint,
};
