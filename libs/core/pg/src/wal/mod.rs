//! Write-ahead log: framing of pages, records, images, and the writing of the few records that
//! Redoubt makes itself.

mod image;
mod pglz;
mod record;
pub mod rmgr;

pub use image::{Compression, Image, ImageError};
pub use pglz::{PglzError, decompress as pglz_decompress};
pub use record::{
    Block, DecodeError, Malformed, RECORD_HEADER_BYTES, Record, RecordHeader, block_flags, decode,
};
