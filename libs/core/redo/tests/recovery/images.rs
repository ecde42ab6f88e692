//! A page is the same whichever image it is rebuilt from.
//!
//! Of some pages, the records are kept and now and then the page as it was: an image. After each
//! record the page is rebuilt from one of its images, drawn anew, and the records after that.

use std::collections::HashMap;

use ids::{Fork, Lsn, RelTag};
use pg::wal::{Record, decode};
use redo::{Page, Settings};

use crate::cluster::Cluster;

/// One page of so many is followed.
const FOLLOWED: u32 = 29;
/// An image is kept every so many records.
const APART: usize = 4;
/// After so many records a page is followed anew, so that a rebuild stays short.
const RECORDS: usize = 48;

/// Where a record begins and ends, its bytes, and which of its blocks the page is.
type Step = (Lsn, Lsn, Vec<u8>, usize);

struct Followed {
    steps: Vec<Step>,
    /// Before how many of the steps, and the page.
    images: Vec<(usize, Box<Page>)>,
}

/// Pages that are followed.
#[derive(Default)]
pub(crate) struct Images {
    followed: HashMap<(RelTag, u32), Followed>,
    drawn: u64,
    /// How often a page was rebuilt from an image that was not the last before it.
    pub(crate) rebuilt: u64,
}

impl Images {
    /// Redoes a block, as [`Cluster::redo_block`] does, and holds the page to a rebuilt one.
    pub(crate) fn redo_block(
        &mut self,
        cluster: &mut Cluster,
        record: &Record,
        bytes: &[u8],
        index: usize,
    ) {
        let block = &record.blocks[index];
        let (key, settings) = ((block.rel, block.blkno), cluster.settings);
        let is_followed = (block.rel.rel ^ block.blkno).is_multiple_of(FOLLOWED);
        if block.rel.fork == Fork::Vm || !is_followed {
            cluster.redo_block(record, index).unwrap();
            return;
        }
        // What happened to its relation beside records of its own begins the page anew.
        let (before, is_known) = (cluster.peek(key.0, key.1), cluster.pages.contains_key(&key));
        let followed = self
            .followed
            .entry(key)
            .or_insert_with(|| Followed::from(before.clone()));
        if !is_known || followed.steps.len() >= RECORDS {
            *followed = Followed::from(before);
        }
        followed
            .steps
            .push((record.start, record.end, bytes.to_vec(), index));
        let page = cluster.redo_block(record, index).unwrap();
        self.drawn = self
            .drawn
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let image = (self.drawn >> 33) as usize % followed.images.len();
        self.rebuilt += u64::from(image + 1 < followed.images.len());
        let rebuilt = followed.rebuild(settings, image);
        assert!(
            rebuilt[..] == page[..],
            "{} {} at {} from image {image}",
            key.0,
            key.1,
            record.end
        );
        if followed.steps.len().is_multiple_of(APART) {
            followed
                .images
                .push((followed.steps.len(), Box::new(*page)));
        }
    }
}

impl Followed {
    fn from(page: Box<Page>) -> Self {
        Self {
            steps: Vec::new(),
            images: vec![(0, page)],
        }
    }

    /// The page as of its last record, from the image with this index.
    fn rebuild(&self, settings: Settings, image: usize) -> Box<Page> {
        let (from, mut page) = self.images[image].clone();
        for (start, end, bytes, index) in &self.steps[from..] {
            let record = decode(settings.version, *start, *end, bytes).unwrap();
            redo::apply(settings, &record, *index, &mut page).unwrap();
        }
        page
    }
}
