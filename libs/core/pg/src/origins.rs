//! The progress of replication origins, as the file holds it that a checkpoint writes
//! (`CheckPointReplicationOrigin` in `origin.c`).

use std::collections::BTreeMap;

use ids::Lsn;

use crate::cursor::Cursor;

/// The file, below the data directory.
pub const ORIGINS: &str = "pg_logical/replorigin_checkpoint";

const MAGIC: u32 = 0x1257_DADE;
const PADDING: [u8; 6] = [0; 6];

/// The file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginsError {
    /// It is something else, or cut.
    #[error("it is no file of replication origins")]
    Shape,
    /// It fails its checksum.
    #[error("it fails its checksum")]
    Checksum,
}

/// The file that holds this progress.
#[must_use]
pub fn encode(origins: &BTreeMap<u16, Lsn>) -> Vec<u8> {
    let mut file = MAGIC.to_le_bytes().to_vec();
    for (origin, lsn) in origins {
        file.extend(origin.to_le_bytes());
        file.extend(PADDING);
        file.extend(lsn.0.to_le_bytes());
    }
    file.extend(crc32c::crc32c(&file).to_le_bytes());
    file
}

/// What such a file holds.
pub fn decode(file: &[u8]) -> Result<BTreeMap<u16, Lsn>, OriginsError> {
    const SHAPE: OriginsError = OriginsError::Shape;
    let (content, checksum) = file.split_last_chunk::<4>().ok_or(SHAPE)?;
    let mut cursor = Cursor::new(content);
    if cursor.u32() != Some(MAGIC) || !cursor.remaining().is_multiple_of(16) {
        return Err(SHAPE);
    }
    if crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
        return Err(OriginsError::Checksum);
    }
    let mut origins = BTreeMap::new();
    while cursor.remaining() > 0 {
        let origin = cursor.u16().ok_or(SHAPE)?;
        cursor.take(PADDING.len()).ok_or(SHAPE)?;
        origins.insert(origin, Lsn(cursor.u64().ok_or(SHAPE)?));
    }
    Ok(origins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_back_and_nothing_else_is() {
        let origins = BTreeMap::from([(1, Lsn(0xAFFE)), (7, Lsn(u64::MAX))]);
        let file = encode(&origins);
        assert_eq!(file.len(), 4 + 2 * 16 + 4);
        assert_eq!(decode(&file), Ok(origins));
        assert_eq!(decode(&encode(&BTreeMap::new())), Ok(BTreeMap::new()));
        for cut in 0..file.len() {
            assert!(decode(&file[..cut]).is_err());
        }
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_err());
        }
    }
}
