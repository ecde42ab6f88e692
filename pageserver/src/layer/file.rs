//! The plaintext of a layer file. It is one sealed object, so integrity is `sealed`'s; what is
//! checked here is that the writer kept its own rules.
//!
//! | part | content |
//! |---|---|
//! | blocks | entries `key 18, LSN 8, length 4, values`, sorted by (key, LSN); a block is closed at 8 KiB |
//! | index | per block: `first key 18, first LSN 8, offset 8, length 4` |
//! | footer, 48 bytes | magic 8, index offset 8, blocks 8, entries 8, first LSN 8, last LSN 8 |
//!
//! Integers are little-endian. L1: entries are strictly ascending, in the whole file.

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ids::{Key, Lsn};

use super::collect::Collected;
use crate::value::{self, Value, ValueError};

const MAGIC: &[u8; 8] = b"rdlayer1";
/// The length of the footer.
pub(crate) const FOOTER_BYTES: usize = 48;
const INDEX_ENTRY_BYTES: usize = Key::BYTES + 8 + 8 + 4;
const ENTRY_HEAD_BYTES: usize = Key::BYTES + 8 + 4;
const BLOCK_TARGET_BYTES: usize = 8192;
const PIECE_BYTES: usize = 1 << 20;

/// The bytes are not a layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LayerError {
    /// The footer or the index contradicts itself or the file.
    #[error("the layer is malformed: {0}")]
    Malformed(&'static str),
    /// L1 is broken.
    #[error("the entries of the layer are out of order at {key} {lsn}")]
    OutOfOrder { key: Key, lsn: Lsn },
    /// A value of an entry.
    #[error("the layer holds, at {key} {lsn}, what is not a value")]
    Value {
        key: Key,
        lsn: Lsn,
        #[source]
        source: ValueError,
    },
}

/// Builds the plaintext of a layer from entries in order.
#[derive(Debug, Default)]
pub(crate) struct LayerWriter {
    /// What is written, in pieces that are given back one by one: while a layer is sealed its
    /// plaintext goes as its ciphertext comes, and it is not in memory twice.
    full: Vec<Bytes>,
    full_bytes: usize,
    out: BytesMut,
    index: Vec<IndexEntry>,
    entries: u64,
    last: Option<(Key, Lsn)>,
    lsns: Option<(Lsn, Lsn)>,
}

#[derive(Debug, Clone, Copy)]
struct IndexEntry {
    key: Key,
    lsn: Lsn,
    offset: u64,
    length: u32,
}

impl LayerWriter {
    /// Adds an entry; (key, LSN) must be above the one before (L1).
    pub(crate) fn put(&mut self, key: Key, lsn: Lsn, values: &[Value]) {
        assert!(self.last.is_none_or(|last| last < (key, lsn)), "L1");
        self.last = Some((key, lsn));
        self.lsns = Some(
            self.lsns
                .map_or((lsn, lsn), |(low, high)| (low.min(lsn), high.max(lsn))),
        );
        self.entries += 1;
        let bytes = value::encode(values);
        if self.out.len() >= PIECE_BYTES {
            self.next_piece();
        }
        if self
            .index
            .last()
            .is_none_or(|block| block.length as usize >= BLOCK_TARGET_BYTES)
        {
            self.index.push(IndexEntry {
                key,
                lsn,
                offset: self.len() as u64,
                length: 0,
            });
        }
        self.out.put_slice(&key.0);
        self.out.put_u64_le(lsn.0);
        self.out
            .put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.out.put_slice(&bytes);
        if let Some(block) = self.index.last_mut() {
            block.length += u32::try_from(ENTRY_HEAD_BYTES + bytes.len()).unwrap_or(u32::MAX);
        }
    }

    /// The bytes so far; where a writer of several files decides to go on to the next one.
    pub(crate) fn len(&self) -> usize {
        self.full_bytes + self.out.len()
    }

    fn next_piece(&mut self) {
        let piece = std::mem::take(&mut self.out).freeze();
        self.full_bytes += piece.len();
        self.full.push(piece);
    }

    /// The lowest and the highest LSN of an entry.
    pub(crate) fn lsns(&self) -> Option<(Lsn, Lsn)> {
        self.lsns
    }

    /// The whole plaintext, in pieces.
    pub(crate) fn finish(mut self) -> Pieces {
        let index_offset = self.len() as u64;
        for block in &self.index {
            self.out.put_slice(&block.key.0);
            self.out.put_u64_le(block.lsn.0);
            self.out.put_u64_le(block.offset);
            self.out.put_u32_le(block.length);
        }
        let (low, high) = self.lsns.unwrap_or_default();
        self.out.put_slice(MAGIC);
        self.out.put_u64_le(index_offset);
        self.out.put_u64_le(self.index.len() as u64);
        self.out.put_u64_le(self.entries);
        self.out.put_u64_le(low.0);
        self.out.put_u64_le(high.0);
        self.next_piece();
        Pieces {
            bytes: self.full_bytes,
            pieces: self.full.into_iter(),
        }
    }
}

/// The plaintext of a layer. A piece that was taken is not kept.
pub(crate) struct Pieces {
    bytes: usize,
    pieces: std::vec::IntoIter<Bytes>,
}

impl Pieces {
    /// All of them together.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.pieces.next()
    }
}

/// Where the index of a layer is, from its last [`FOOTER_BYTES`].
pub(crate) fn index_range(footer: &[u8], plaintext_len: u64) -> Result<Range<u64>, LayerError> {
    let mut footer = footer;
    if footer.len() != FOOTER_BYTES || !footer.starts_with(MAGIC) {
        return Err(LayerError::Malformed("no footer"));
    }
    footer.advance(MAGIC.len());
    let (offset, blocks) = (footer.get_u64_le(), footer.get_u64_le());
    let end = blocks
        .checked_mul(INDEX_ENTRY_BYTES as u64)
        .and_then(|len| offset.checked_add(len));
    match end {
        Some(end) if end.checked_add(FOOTER_BYTES as u64) == Some(plaintext_len) => Ok(offset..end),
        _ => Err(LayerError::Malformed("the footer does not fit the length")),
    }
}

/// The index of a layer, resident while the layer is open.
#[derive(Debug)]
pub(crate) struct LayerIndex {
    blocks: Vec<IndexEntry>,
}

impl LayerIndex {
    /// Reads the index; `offset` is where it starts.
    pub(crate) fn parse(mut bytes: &[u8], offset: u64) -> Result<Self, LayerError> {
        if !bytes.len().is_multiple_of(INDEX_ENTRY_BYTES) {
            return Err(LayerError::Malformed("the index is cut"));
        }
        let mut blocks: Vec<IndexEntry> = Vec::with_capacity(bytes.len() / INDEX_ENTRY_BYTES);
        let mut expected = 0;
        while !bytes.is_empty() {
            let mut key = [0; Key::BYTES];
            bytes.copy_to_slice(&mut key);
            let block = IndexEntry {
                key: Key(key),
                lsn: Lsn(bytes.get_u64_le()),
                offset: bytes.get_u64_le(),
                length: bytes.get_u32_le(),
            };
            if block.offset != expected {
                return Err(LayerError::Malformed("the blocks leave a gap"));
            }
            if blocks
                .last()
                .is_some_and(|last| (last.key, last.lsn) >= (block.key, block.lsn))
            {
                return Err(LayerError::OutOfOrder {
                    key: block.key,
                    lsn: block.lsn,
                });
            }
            expected += u64::from(block.length);
            blocks.push(block);
        }
        if expected != offset {
            return Err(LayerError::Malformed("the blocks do not end at the index"));
        }
        Ok(Self { blocks })
    }

    /// The number of the last block that may hold `key` at or below `lsn`.
    pub(crate) fn last_block(&self, key: Key, lsn: Lsn) -> Option<usize> {
        self.blocks
            .partition_point(|b| (b.key, b.lsn) <= (key, lsn))
            .checked_sub(1)
    }

    /// How many blocks there are.
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Where block `n` is in the plaintext.
    pub(crate) fn range(&self, n: usize) -> Option<Range<u64>> {
        self.blocks
            .get(n)
            .map(|b| b.offset..b.offset + u64::from(b.length))
    }
}

/// The entries of a block, in order.
pub(crate) fn parse_block(mut block: Bytes) -> Result<Vec<(Key, Lsn, Bytes)>, LayerError> {
    let mut entries: Vec<(Key, Lsn, Bytes)> = Vec::new();
    while !block.is_empty() {
        if block.len() < ENTRY_HEAD_BYTES {
            return Err(LayerError::Malformed("an entry is cut"));
        }
        let mut key = [0; Key::BYTES];
        block.copy_to_slice(&mut key);
        let (key, lsn, length) = (
            Key(key),
            Lsn(block.get_u64_le()),
            block.get_u32_le() as usize,
        );
        if block.len() < length {
            return Err(LayerError::Malformed("a value is cut"));
        }
        if entries
            .last()
            .is_some_and(|(k, l, _)| (*k, *l) >= (key, lsn))
        {
            return Err(LayerError::OutOfOrder { key, lsn });
        }
        entries.push((key, lsn, block.split_to(length)));
    }
    Ok(entries)
}

/// Collects what the entries of one block have of `key` at or below `lsn`. True where the block
/// before it may have more.
pub(crate) fn collect_block(
    entries: &[(Key, Lsn, Bytes)],
    key: Key,
    lsn: Lsn,
    into: &mut Collected,
) -> Result<bool, LayerError> {
    let begins_with_key = entries.first().is_some_and(|(k, _, _)| *k == key);
    let end = entries.partition_point(|(k, l, _)| (*k, *l) <= (key, lsn));
    let below = entries.get(..end).unwrap_or_default();
    for (_, at, bytes) in below.iter().rev().take_while(|(k, _, _)| *k == key) {
        if into.is_complete() {
            return Ok(false);
        }
        let values = value::decode(bytes.clone()).map_err(|source| LayerError::Value {
            key,
            lsn: *at,
            source,
        })?;
        into.push(*at, values);
    }
    Ok(begins_with_key && !into.is_complete())
}

#[cfg(test)]
mod tests {
    use ids::KeyKind;

    use super::*;

    fn key(n: u16) -> Key {
        Key::new(KeyKind::ReplOrigin(n))
    }

    fn collect(layer: &Bytes, key: Key, lsn: Lsn) -> Result<Vec<(Lsn, Value)>, LayerError> {
        let footer = layer
            .len()
            .checked_sub(FOOTER_BYTES)
            .map_or(&[][..], |at| &layer[at..]);
        let range = index_range(footer, layer.len() as u64)?;
        let index = LayerIndex::parse(
            &layer[range.start as usize..range.end as usize],
            range.start,
        )?;
        let mut collected = Collected::default();
        let mut next = index.last_block(key, lsn);
        while let Some(n) = next {
            let range = index.range(n).unwrap();
            let block = layer.slice(range.start as usize..range.end as usize);
            next = if collect_block(&parse_block(block)?, key, lsn, &mut collected)? {
                n.checked_sub(1)
            } else {
                None
            };
        }
        Ok(collected.into_oldest_first())
    }

    fn sample() -> Bytes {
        let mut writer = LayerWriter::default();
        for n in 0..40 {
            writer.put(
                key(n),
                Lsn(100),
                &[Value::Image(vec![n as u8; 1000].into())],
            );
            for change in 1..=n {
                let bytes = Bytes::from(vec![0; 500]);
                let lsn = Lsn(100 + u64::from(change));
                writer.put(
                    key(n),
                    lsn,
                    &[Value::Patch {
                        offset: change,
                        bytes,
                    }],
                );
            }
        }
        whole(writer)
    }

    fn whole(writer: LayerWriter) -> Bytes {
        let pieces = writer.finish();
        let bytes = pieces.bytes();
        let whole = pieces.collect::<Vec<_>>().concat();
        assert_eq!(whole.len(), bytes);
        whole.into()
    }

    #[test]
    fn a_layer_of_many_pieces_is_read_as_one_and_gives_each_piece_once() {
        let mut writer = LayerWriter::default();
        for n in 0..400 {
            writer.put(key(n), Lsn(7), &[Value::Image(vec![n as u8; 8192].into())]);
        }
        let length = writer.len();
        let pieces: Vec<Bytes> = writer.finish().collect();
        assert_eq!(pieces.len(), 4);
        assert!(
            pieces
                .iter()
                .all(|piece| piece.len() < PIECE_BYTES + 10_000)
        );
        let layer = Bytes::from(pieces.concat());
        assert!(layer.len() > length);
        for n in [0, 127, 128, 129, 399] {
            let image = Value::Image(vec![n as u8; 8192].into());
            assert_eq!(collect(&layer, key(n), Lsn(9)).unwrap(), [(Lsn(7), image)]);
        }
    }

    #[test]
    fn a_chain_is_found_over_the_borders_of_blocks() {
        let layer = sample();
        for n in [0, 1, 17, 39] {
            for changes in [0, n / 2, n] {
                let found = collect(&layer, key(n), Lsn(100 + u64::from(changes))).unwrap();
                assert_eq!(
                    found.len(),
                    usize::from(changes) + 1,
                    "key {n}, {changes} changes"
                );
                assert_eq!(
                    found[0],
                    (Lsn(100), Value::Image(vec![n as u8; 1000].into()))
                );
            }
        }
        assert_eq!(collect(&layer, key(3), Lsn(99)), Ok(vec![]));
        assert_eq!(collect(&layer, key(40), Lsn(1000)), Ok(vec![]));
    }

    #[test]
    fn an_empty_layer_is_a_layer() {
        let layer = whole(LayerWriter::default());
        assert_eq!(collect(&layer, key(0), Lsn(1)), Ok(vec![]));
    }

    #[test]
    fn cut_layers_are_refused() {
        let layer = sample();
        for cut in (0..layer.len()).step_by(97) {
            assert!(
                collect(&layer.slice(..cut), key(3), Lsn(1000)).is_err(),
                "cut at {cut}"
            );
        }
    }

    #[test]
    #[should_panic(expected = "L1")]
    fn a_writer_that_goes_back_is_stopped() {
        let mut writer = LayerWriter::default();
        writer.put(key(2), Lsn(1), &[Value::Zeros]);
        writer.put(key(1), Lsn(2), &[Value::Zeros]);
    }
}
