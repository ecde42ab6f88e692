//! Full-page images inside records.

use std::io::Read;

use super::pglz::{self, PglzError};
use crate::page::{self, BLOCK, Page};

/// How an image is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// PostgreSQL's own.
    Pglz,
    /// LZ4, one block without a frame.
    Lz4,
    /// Zstandard, one frame.
    Zstd,
}

/// A page as it stands in a record: maybe compressed, maybe without the hole in its middle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    /// Where the hole begins.
    pub hole_offset: u16,
    /// The length of the hole; zeros stand there.
    pub hole_length: u16,
    /// How `bytes` are compressed.
    pub compression: Compression,
    /// Whether redo restores it; otherwise it is there to check redo against.
    pub apply: bool,
    /// The page without its hole.
    pub bytes: &'a [u8],
}

/// An image does not make a page.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The hole reaches beyond the page.
    #[error("hole of {length} bytes at {offset} does not lie inside a page")]
    BadHole {
        /// Where it begins.
        offset: u16,
        /// How long it is.
        length: u16,
    },
    /// An uncompressed image and its hole are not a page.
    #[error("image of {bytes} bytes and hole of {hole} do not make a page")]
    WrongLength {
        /// The image.
        bytes: usize,
        /// The hole.
        hole: u16,
    },
    /// Compressed with pglz, wrongly.
    #[error("pglz image")]
    Pglz(#[from] PglzError),
    /// Compressed with LZ4, wrongly.
    #[error("LZ4 image: {0}")]
    Lz4(String),
    /// Compressed with Zstandard, wrongly.
    #[error("Zstandard image: {0}")]
    Zstd(String),
}

impl Image<'_> {
    /// The whole page. Its `pd_lsn` is the one of before the record: redo sets the new one.
    pub fn restore(&self) -> Result<Box<Page>, ImageError> {
        let mut page = page::zeroed();
        self.restore_into(&mut page)?;
        Ok(page)
    }

    /// Writes the whole page over `page`; what is left there after an error means nothing.
    pub fn restore_into(&self, page: &mut Page) -> Result<(), ImageError> {
        let (offset, length) = (usize::from(self.hole_offset), usize::from(self.hole_length));
        let hole_end = offset + length;
        if hole_end > BLOCK {
            return Err(ImageError::BadHole {
                offset: self.hole_offset,
                length: self.hole_length,
            });
        }
        let kept = BLOCK - length;
        // Unpacked to the front of the page, then the part after the hole moves to its place.
        let front = &mut page[..kept];
        match self.compression {
            Compression::None if self.bytes.len() == kept => front.copy_from_slice(self.bytes),
            Compression::None => {
                return Err(ImageError::WrongLength {
                    bytes: self.bytes.len(),
                    hole: self.hole_length,
                });
            }
            Compression::Pglz => pglz::decompress(self.bytes, front)?,
            Compression::Lz4 => unpack_lz4(self.bytes, front)?,
            Compression::Zstd => unpack_zstd(self.bytes, front)?,
        }
        page.copy_within(offset..kept, hole_end);
        page[offset..hole_end].fill(0);
        Ok(())
    }
}

fn unpack_lz4(input: &[u8], output: &mut [u8]) -> Result<(), ImageError> {
    let made = lz4_flex::block::decompress_into(input, output)
        .map_err(|error| ImageError::Lz4(error.to_string()))?;
    if made != output.len() {
        return Err(ImageError::Lz4(format!(
            "makes {made} bytes, not {}",
            output.len()
        )));
    }
    Ok(())
}

fn unpack_zstd(mut input: &[u8], output: &mut [u8]) -> Result<(), ImageError> {
    let refuse = ImageError::Zstd;
    if zstd_window(input).is_none_or(|bytes| bytes > ZSTD_WINDOW_BYTES_MAX) {
        return Err(refuse(
            "no frame, or one with a window that no page needs".to_owned(),
        ));
    }
    let mut frame = ruzstd::decoding::StreamingDecoder::new(&mut input)
        .map_err(|error| refuse(error.to_string()))?;
    frame
        .read_exact(output)
        .map_err(|error| refuse(error.to_string()))?;
    let mut more = [0];
    if frame
        .read(&mut more)
        .map_err(|error| refuse(error.to_string()))?
        != 0
    {
        return Err(refuse(format!("makes more than {} bytes", output.len())));
    }
    Ok(())
}

/// The decoder reserves a frame's window before it reads a byte, and a hostile frame may ask for
/// gigabytes. Compressors round a page's window up, but not beyond this.
const ZSTD_WINDOW_BYTES_MAX: u64 = 1 << 20;

/// The window that a Zstandard frame asks for (RFC 8878, 3.1.1.1).
fn zstd_window(input: &[u8]) -> Option<u64> {
    let &[0x28, 0xB5, 0x2F, 0xFD, descriptor, ref rest @ ..] = input else {
        return None;
    };
    let single_segment = descriptor & 0x20 != 0;
    if !single_segment {
        let window = *rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // The window of a single segment is its content.
    let dictionary_id_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = rest.get(dictionary_id_bytes..)?;
    match descriptor >> 6 {
        0 => size.first().map(|&size| u64::from(size)),
        1 => size
            .first_chunk()
            .map(|&size| u64::from(u16::from_le_bytes(size)) + 256),
        2 => size
            .first_chunk()
            .map(|&size| u64::from(u32::from_le_bytes(size))),
        _ => size.first_chunk().map(|&size| u64::from_le_bytes(size)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(compression: Compression, bytes: &[u8]) -> Image<'_> {
        Image {
            hole_offset: 100,
            hole_length: 8000,
            compression,
            apply: true,
            bytes,
        }
    }

    fn expected(kept: &[u8]) -> Vec<u8> {
        [&kept[..100], &[0; 8000], &kept[100..]].concat()
    }

    #[test]
    fn the_hole_is_put_back() {
        let kept: Vec<u8> = (1..=192).collect();
        assert_eq!(
            image(Compression::None, &kept).restore().unwrap()[..],
            expected(&kept)
        );
        let packed = lz4_flex::block::compress(&kept);
        assert_eq!(
            image(Compression::Lz4, &packed).restore().unwrap()[..],
            expected(&kept)
        );
    }

    #[test]
    fn images_that_do_not_make_a_page_are_refused() {
        let short = [1; 191];
        assert!(image(Compression::None, &short).restore().is_err());
        assert!(image(Compression::Pglz, &short).restore().is_err());
        assert!(
            image(Compression::Lz4, &lz4_flex::block::compress(&short))
                .restore()
                .is_err()
        );
        assert!(
            image(Compression::Lz4, &lz4_flex::block::compress(&[1; 193]))
                .restore()
                .is_err()
        );
        assert!(image(Compression::Zstd, &short).restore().is_err());
        let beyond = Image {
            hole_offset: 8000,
            ..image(Compression::None, &short)
        };
        assert_eq!(
            beyond.restore(),
            Err(ImageError::BadHole {
                offset: 8000,
                length: 8000
            })
        );
    }
}
