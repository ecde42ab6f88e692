//! The local copies of layers save trips to the bucket, and are never a reason for a wrong page.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ids::Lsn;
use store::fault::{Fault, Operation};

use super::{World, get, image, key, layers, set};
use crate::layer::cache::{CacheConfig, LayerCache};
use crate::layer::map::LayerDescription;
use crate::timeline::Timeline;
use crate::timeline::home::Home;

/// Two layers in the bucket, and a page server that counts how often it asks for them.
struct Cached {
    world: World,
    named: Vec<LayerDescription>,
    gets: Arc<AtomicUsize>,
}

type Damage = fn(&Cached);

impl Cached {
    async fn new() -> Self {
        let world = World::created().await;
        let timeline = world.attach().await;
        for n in [1, 2] {
            set(&timeline, 100 + 10 * n, key(n as u16), n as u8);
            timeline.flush().await.unwrap();
        }
        let named = layers(&timeline);
        let gets = Arc::default();
        Self { world, named, gets }
    }

    fn folder(&self) -> PathBuf {
        self.world.directory.path().join("cache")
    }

    fn copy(&self, layer: &LayerDescription) -> PathBuf {
        let name = format!("{}{}", self.world.home.layers(), layer.name);
        self.folder().join(name)
    }

    /// As after a restart: the disk is all that is left.
    async fn restart(&self) -> Arc<Timeline> {
        let gets = Arc::clone(&self.gets);
        let bucket = self
            .world
            .home
            .bucket
            .with_faults(Arc::new(move |asked, name| {
                if asked == Operation::Get && name.contains("layers/") {
                    gets.fetch_add(1, Ordering::SeqCst);
                }
                Fault::None
            }));
        let config = CacheConfig {
            directory: Some(self.folder()),
            ..CacheConfig::default()
        };
        let home = Home {
            bucket,
            cache: LayerCache::open(config).unwrap(),
            ..self.world.home.clone()
        };
        let timeline = self.world.try_attach(home, 0).await.unwrap();
        self.gets.store(0, Ordering::SeqCst);
        timeline
    }

    fn gets(&self) -> usize {
        self.gets.swap(0, Ordering::SeqCst)
    }

    async fn is_right(&self, timeline: &Timeline) -> bool {
        get(timeline, key(1), 120).await == Some(image(1))
            && get(timeline, key(2), 120).await == Some(image(2))
    }
}

#[tokio::test]
async fn a_layer_is_fetched_once_and_found_again_after_a_restart() {
    let cached = Cached::new().await;
    let timeline = cached.restart().await;
    assert!(cached.is_right(&timeline).await);
    assert_eq!(cached.gets(), 4, "header and whole, of two layers");
    assert!(cached.is_right(&timeline).await);
    assert_eq!(cached.gets(), 0);
    let bucket = fs::read(cached.world.layer(&cached.named[0])).unwrap();
    assert_eq!(fs::read(cached.copy(&cached.named[0])).unwrap(), bucket);
    let timeline = cached.restart().await;
    assert!(cached.is_right(&timeline).await);
    assert_eq!(cached.gets(), 0);
}

#[tokio::test]
async fn a_damaged_copy_is_removed_and_read_from_the_bucket() {
    let damages: [Damage; 6] = [
        |c| fs::write(c.copy(&c.named[0]), []).unwrap(),
        |c| fs::write(c.copy(&c.named[0]), [0; 4000]).unwrap(),
        |c| assert!(fs::copy(c.copy(&c.named[1]), c.copy(&c.named[0])).is_ok()),
        // In the name, in the content, in the index.
        |c| flip(&c.copy(&c.named[0]), 80),
        |c| flip(&c.copy(&c.named[0]), 600),
        |c| flip(&c.copy(&c.named[0]), 3600),
    ];
    for (n, damage) in damages.iter().enumerate() {
        let cached = Cached::new().await;
        let timeline = cached.restart().await;
        assert!(cached.is_right(&timeline).await);
        damage(&cached);
        let timeline = cached.restart().await;
        assert!(cached.is_right(&timeline).await, "{n}");
        assert!(cached.gets() > 0, "{n}");
        let timeline = cached.restart().await;
        assert!(cached.is_right(&timeline).await, "{n}");
        let bucket = fs::read(cached.world.layer(&cached.named[0])).unwrap();
        assert_eq!(fs::read(cached.copy(&cached.named[0])).unwrap(), bucket);
    }
}

#[tokio::test]
async fn damage_in_the_bucket_is_an_error_that_names_the_layer() {
    let damages: [(Damage, &str); 4] = [
        (
            |c| fs::remove_file(c.world.layer(&c.named[0])).unwrap(),
            "not",
        ),
        (|c| flip(&c.world.layer(&c.named[0]), 600), "chunk"),
        (|c| flip(&c.world.layer(&c.named[0]), 3600), "chunk"),
        (
            |c| {
                let (a, b) = (c.world.layer(&c.named[0]), c.world.layer(&c.named[1]));
                let (first, second) = (fs::read(&a).unwrap(), fs::read(&b).unwrap());
                fs::write(a, second).unwrap();
                fs::write(b, first).unwrap();
            },
            "name differs",
        ),
    ];
    for (damage, reason) in damages {
        let cached = Cached::new().await;
        damage(&cached);
        // The copy that was fetched from there is no better the next time.
        for _ in 0..2 {
            let timeline = cached.restart().await;
            let read = timeline.read(key(1), Lsn(120)).await;
            let error = read.expect_err(reason).to_string();
            assert!(error.contains(&cached.named[0].name), "{error}");
            assert!(error.contains(reason), "{error}");
        }
    }
}

#[tokio::test]
async fn a_disk_without_room_is_done_without() {
    let cached = Cached::new().await;
    fs::write(cached.folder(), b"not a directory").unwrap();
    assert!(
        LayerCache::open(CacheConfig {
            directory: Some(cached.folder()),
            ..CacheConfig::default()
        })
        .is_err()
    );
    fs::remove_file(cached.folder()).unwrap();
    let timeline = cached.restart().await;
    fs::remove_dir(cached.folder()).unwrap();
    fs::write(cached.folder(), b"not a directory").unwrap();
    assert!(cached.is_right(&timeline).await);
    assert!(cached.gets() > 4);
}

fn flip(path: &PathBuf, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}
