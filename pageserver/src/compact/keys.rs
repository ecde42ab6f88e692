//! The keys of many layers, each once, in order.

use std::sync::Arc;

use ids::Key;

use crate::layer::cache::Block;
use crate::layer::sealed_file::SealedLayer;
use crate::timeline::{ReadError, Run};

/// A walk through all keys of some layers.
pub(super) struct Keys<'a> {
    cursors: Vec<Cursor<'a>>,
}

struct Cursor<'a> {
    run: Run<'a>,
    /// The next layer of the run.
    next_layer: usize,
    layer: Option<Arc<SealedLayer>>,
    /// The next block of the layer.
    next_block: usize,
    block: Option<Arc<Block>>,
    /// The next entry of the block.
    entry: usize,
}

impl<'a> Keys<'a> {
    pub(super) fn new(runs: Vec<Run<'a>>) -> Self {
        let cursor = |run| Cursor {
            run,
            next_layer: 0,
            layer: None,
            next_block: 0,
            block: None,
            entry: 0,
        };
        Self {
            cursors: runs.into_iter().map(cursor).collect(),
        }
    }

    /// The next key.
    pub(super) async fn next(&mut self) -> Result<Option<Key>, ReadError> {
        let mut lowest: Option<Key> = None;
        for cursor in &mut self.cursors {
            if let Some(key) = cursor.key().await? {
                lowest = Some(lowest.map_or(key, |lowest| lowest.min(key)));
            }
        }
        if let Some(lowest) = lowest {
            for cursor in &mut self.cursors {
                while cursor.key().await? == Some(lowest) {
                    cursor.entry += 1;
                }
            }
        }
        Ok(lowest)
    }
}

impl Cursor<'_> {
    /// The key of the entry that it stands at.
    async fn key(&mut self) -> Result<Option<Key>, ReadError> {
        loop {
            if let Some((key, _, _)) = self.block.as_ref().and_then(|b| b.entries.get(self.entry)) {
                return Ok(Some(*key));
            }
            if !self.advance().await? {
                return Ok(None);
            }
        }
    }

    /// Goes to the next block; false after the last one.
    async fn advance(&mut self) -> Result<bool, ReadError> {
        loop {
            if let Some(layer) = &self.layer
                && self.next_block < layer.blocks()
            {
                self.block = Some(self.run.block(layer, self.next_block).await?);
                self.next_block += 1;
                self.entry = 0;
                return Ok(true);
            }
            self.layer = self.run.open(self.next_layer).await?;
            if self.layer.is_none() {
                return Ok(false);
            }
            self.next_layer += 1;
            self.next_block = 0;
        }
    }
}
