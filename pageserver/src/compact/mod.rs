//! Compaction: images of every key, so that reads at the end find what they need near the top.
//!
//! Deltas stay, for they are the history. What was dropped or cut off does not come into images.

mod keys;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use ids::{Key, KeyKind, Lsn, RelTag, SlruKind};
use pg::page::BLOCK;

use crate::layer::file::LayerWriter;
use crate::layer::map::LayerDescription;
use crate::timeline::{Chain, Closed, ReadError, Timeline, WriteError};
use crate::value::Value;
use crate::view::ViewError;
use keys::Keys;

/// How many contents are rebuilt at a time, and so how many are in memory.
const KEYS_AT_A_TIME: usize = 64;

/// When, and how large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompactConfig {
    /// As many deltas above the images are compacted, where they are large beside the images.
    pub(crate) deltas: usize,
    /// As many are compacted however small they are.
    pub(crate) deltas_max: usize,
    /// The bytes of one image layer, and so of what is in memory.
    pub(crate) image_bytes: usize,
}

impl Default for CompactConfig {
    fn default() -> Self {
        Self {
            deltas: 4,
            deltas_max: 32,
            image_bytes: 64 << 20,
        }
    }
}

/// A compaction was given up; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompactError {
    #[error(transparent)]
    View(#[from] ViewError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<ReadError> for CompactError {
    fn from(error: ReadError) -> Self {
        Self::View(error.into())
    }
}

impl From<Closed> for CompactError {
    fn from(closed: Closed) -> Self {
        ReadError::from(closed).into()
    }
}

/// Compacts where reads have become long and nobody does so already; to be called after flushes.
/// Answers the LSN of the new images.
pub(crate) async fn compact_if_due(
    timeline: &Arc<Timeline>,
    config: CompactConfig,
) -> Result<Option<Lsn>, CompactError> {
    let Ok(_one) = timeline.compacting().try_lock() else {
        return Ok(None);
    };
    let chain = timeline.chain()?;
    // Images are written anew as a whole: in all, no more than a few times what came in.
    let large = chain.delta_bytes >= chain.image_bytes / 2;
    if chain.deltas >= config.deltas_max || (chain.deltas >= config.deltas && large) {
        return Ok(Some(write_images(timeline, chain, config).await?));
    }
    Ok(None)
}

/// Writes images of every key as of what is in the bucket.
#[cfg(test)]
pub(crate) async fn compact(
    timeline: &Arc<Timeline>,
    config: CompactConfig,
) -> Result<Lsn, CompactError> {
    let _one = timeline.compacting().lock().await;
    write_images(timeline, timeline.chain()?, config).await
}

async fn write_images(
    timeline: &Timeline,
    chain: Chain,
    config: CompactConfig,
) -> Result<Lsn, CompactError> {
    let lsn = chain.end;
    if chain.deltas == 0 {
        return Ok(lsn);
    }
    let mut images = Images::new(timeline, lsn, config.image_bytes);
    let mut keys = Keys::new(timeline.runs(lsn));
    let mut live = Live::new(timeline, lsn);
    let mut unmade = None;
    loop {
        let mut batch = Vec::with_capacity(KEYS_AT_A_TIME);
        while batch.len() < KEYS_AT_A_TIME
            && let Some(key) = keys.next().await?
        {
            if live.names_something(key).await? {
                batch.push(key);
            }
        }
        if batch.is_empty() {
            break;
        }
        for (key, value) in values(timeline, batch, lsn).await? {
            let value = value.unwrap_or_else(|error| {
                unmade.get_or_insert((0_u64, error)).0 += 1;
                Value::Below
            });
            images.put_value(key, value).await?;
        }
    }
    if let Some((pages, error)) = unmade {
        tracing::error!(timeline = %timeline.id(), pages, first = %error, "pages cannot be made");
    }
    let written = images.finish().await?;
    tracing::info!(
        timeline = %timeline.id(),
        %lsn,
        deltas = chain.deltas,
        images = written.len(),
        "compacted"
    );
    timeline.add_images(written).await?;
    // Written anew as a whole each time, they would fill the bucket.
    let superseded = timeline.superseded_images();
    if !superseded.is_empty() {
        timeline.retire(&superseded).await?;
    }
    Ok(lsn)
}

/// What images hold of each key, or why it cannot be redone: that harms nobody but who asks for it.
async fn values(
    timeline: &Timeline,
    keys: Vec<Key>,
    lsn: Lsn,
) -> Result<Vec<(Key, Result<Value, ReadError>)>, ReadError> {
    let values = stream::iter(keys).map(async |key| match timeline.content(key, lsn).await {
        Err(error @ ReadError::Rebuild { .. }) => Ok((key, Err(error))),
        content => Ok((key, Ok(imaged(content?)))),
    });
    // All of them, before anything else is waited for: a read that nobody polls may hold what
    // others, and we ourselves, wait for.
    values.buffered(KEYS_AT_A_TIME).try_collect().await
}

/// The images that are being written. Together they hold every key.
pub(crate) struct Images<'a> {
    timeline: &'a Timeline,
    lsn: Lsn,
    bytes: usize,
    writer: LayerWriter,
    /// Where the layer begins that is being written, and the last key in it.
    first: Key,
    last: Key,
    /// Whether it leaves keys out that could not be made.
    has_gaps: bool,
    written: Vec<LayerDescription>,
}

impl<'a> Images<'a> {
    /// Images at `lsn`, of about `bytes` each.
    pub(crate) fn new(timeline: &'a Timeline, lsn: Lsn, bytes: usize) -> Self {
        Self {
            timeline,
            lsn,
            bytes,
            writer: LayerWriter::default(),
            first: Key::MIN,
            last: Key::MIN,
            has_gaps: false,
            written: Vec::new(),
        }
    }

    /// Adds a value that stands by itself, or leaves a gap; keys come in ascending order.
    pub(crate) async fn put_value(&mut self, key: Key, value: Value) -> Result<(), WriteError> {
        let is_gap = value == Value::Below;
        debug_assert!(
            is_gap || value.is_base(),
            "an image holds what needs nothing older"
        );
        if self.writer.len() >= self.bytes {
            self.put(self.last).await?;
            self.first = self.last.next();
        }
        self.last = key;
        if value != Value::Gone {
            self.has_gaps |= is_gap;
            self.writer.put(key, self.lsn, &[value]);
        }
        Ok(())
    }

    /// Ends them where all was `added`; where not, what was put already is deleted.
    pub(crate) async fn finish_or_delete<E: From<WriteError>>(
        mut self,
        added: Result<(), E>,
    ) -> Result<Vec<LayerDescription>, E> {
        let all = match added {
            Ok(()) => self.put(Key::MAX).await.map_err(E::from),
            Err(error) => Err(error),
        };
        if all.is_err() {
            self.timeline.delete_unnamed(&self.written).await;
        }
        all.map(|()| self.written)
    }

    async fn put(&mut self, last: Key) -> Result<(), WriteError> {
        let writer = std::mem::take(&mut self.writer);
        let keys = (self.first, last);
        let has_gaps = std::mem::take(&mut self.has_gaps);
        let image = self.timeline.put_image(writer, keys, self.lsn, has_gaps);
        let image = image.await?;
        self.written.push(image);
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<LayerDescription>, WriteError> {
        self.put(Key::MAX).await?;
        Ok(self.written)
    }
}

/// What an image holds for a content; a key that names nothing is not in it.
pub(crate) fn imaged(content: Option<Bytes>) -> Value {
    match content {
        None => Value::Gone,
        Some(page) if page.len() == BLOCK && page.iter().all(|byte| *byte == 0) => Value::Zeros,
        Some(content) => Value::Image(content),
    }
}

/// Tells blocks that are there from those of what was dropped or cut off.
struct Live<'a> {
    timeline: &'a Timeline,
    lsn: Lsn,
    fork: Option<(RelTag, u32)>,
    segment: Option<((SlruKind, u32), u32)>,
}

impl<'a> Live<'a> {
    const fn new(timeline: &'a Timeline, lsn: Lsn) -> Self {
        Self {
            timeline,
            lsn,
            fork: None,
            segment: None,
        }
    }

    async fn names_something(&mut self, key: Key) -> Result<bool, ViewError> {
        match key.kind() {
            Some(KeyKind::RelBlock(fork, block)) => Ok(block < self.fork_blocks(fork).await?),
            Some(KeyKind::SlruBlock(slru, segment, block)) => {
                Ok(block < self.segment_blocks(slru, segment).await?)
            }
            // Also what a later version keeps: what is not known is not thrown away.
            _ => Ok(true),
        }
    }

    async fn fork_blocks(&mut self, fork: RelTag) -> Result<u32, ViewError> {
        if let Some((_, blocks)) = self.fork.filter(|(known, _)| *known == fork) {
            return Ok(blocks);
        }
        let blocks = self.timeline.relation_blocks(fork, self.lsn).await?;
        let blocks = blocks.unwrap_or(0);
        self.fork = Some((fork, blocks));
        Ok(blocks)
    }

    async fn segment_blocks(&mut self, slru: SlruKind, segment: u32) -> Result<u32, ViewError> {
        let place = (slru, segment);
        if let Some((_, blocks)) = self.segment.filter(|(known, _)| *known == place) {
            return Ok(blocks);
        }
        let blocks = self.timeline.slru_blocks(slru, segment, self.lsn).await?;
        let blocks = blocks.unwrap_or(0);
        self.segment = Some((place, blocks));
        Ok(blocks)
    }
}
