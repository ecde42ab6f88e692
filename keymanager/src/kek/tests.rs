//! KEK documents in a local bucket, wrapped by a local KMS.

use std::path::Path;
use std::sync::Arc;

use api::keys::RevokeReason;
use sealed::{Dek, wrap};
use service::entropy::OsEntropy;
use store::fault::{Fault, Faults, Operation};
use store::names::Cell;
use store::{Bucket, BucketConfig};

use super::*;
use crate::class::ErrorClass;
use crate::kms::local::{KeyState, LocalKms};

const TENANT: TenantId = TenantId([5; 16]);
const LOWEST: KekVersion = KekVersion(1);

struct World {
    directory: tempfile::TempDir,
    bucket: Bucket,
    kms: LocalKms,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bucket = directory.path().join("bucket");
        let bucket = Bucket::open(&BucketConfig::directory(&bucket)).unwrap();
        let kms = LocalKms::new(&directory.path().join("kms"));
        kms.rotate().unwrap();
        Self {
            directory,
            bucket,
            kms,
        }
    }

    /// A keymanager of its own: it shares nothing with others but the bucket and the KMS.
    fn ring(&self) -> KekRing {
        self.ring_on(self.bucket.clone())
    }

    fn ring_on(&self, bucket: Bucket) -> KekRing {
        let provider = Provider {
            kind: "local".to_owned(),
            key: "test".to_owned(),
        };
        let cell = Cell::new("c1").unwrap();
        let kms = Arc::new(self.kms.clone());
        KekRing::new(KekDocuments::new(bucket, cell, kms, provider))
    }

    fn faulty(&self, at: Operation, fault: Fault) -> KekRing {
        let faults: Faults = Arc::new(
            move |operation, _: &str| {
                if operation == at { fault } else { Fault::None }
            },
        );
        self.ring_on(self.bucket.with_faults(faults))
    }

    fn documents(&self) -> Vec<std::path::PathBuf> {
        let directory = self.directory.path().join("bucket");
        let keys = format!("cells/c1/tenants/{TENANT}/keys");
        list(&directory.join(keys))
    }
}

fn list(directory: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut all: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

/// Whether both hold the same key: only then does one open what the other wrapped.
fn same_key(a: &Opened, b: &Opened) -> bool {
    let dek = Dek::generate(&mut OsEntropy);
    let slot = wrap::wrap(&a.kek, TENANT, a.id, a.version, &dek, &mut OsEntropy);
    wrap::unwrap(&b.kek, TENANT, &slot).is_ok_and(|got| got.expose() == dek.expose())
}

#[tokio::test]
async fn a_kek_outlives_its_keymanager_and_is_never_in_the_bucket_in_clear() {
    let world = World::new();
    let first = world.ring().activate(TENANT, LOWEST).await.unwrap();
    assert_eq!(first.version, KekVersion(1));
    let again = world.ring();
    assert!(again.active(TENANT).is_none());
    let second = again.activate(TENANT, LOWEST).await.unwrap();
    assert!(second.id == first.id && same_key(&first, &second));
    let [document] = world.documents().try_into().unwrap();
    let text = std::fs::read_to_string(document).unwrap();
    for in_clear in ["\"local\"", "\"test\"", &TENANT.to_string()] {
        assert!(text.contains(in_clear), "K10: a recovery needs {in_clear}");
    }
}

#[tokio::test]
async fn a_lost_put_answer_is_settled_by_reading_back() {
    let world = World::new();
    let ring = world.faulty(Operation::Put, Fault::AnswerLost);
    let opened = ring.activate(TENANT, LOWEST).await.unwrap();
    assert_eq!(world.documents().len(), 1);
    let other = world.ring().activate(TENANT, LOWEST).await.unwrap();
    assert!(same_key(&opened, &other), "what mints is what is stored");
}

#[tokio::test]
async fn nothing_is_minted_under_a_document_that_was_not_read_back() {
    let world = World::new();
    for (at, fault) in [
        (Operation::Put, Fault::Lost),
        (Operation::Get, Fault::Lost),
        (Operation::List, Fault::Lost),
    ] {
        let ring = world.faulty(at, fault);
        let refused = ring.activate(TENANT, LOWEST).await.err().unwrap();
        assert!(matches!(refused, KekError::Bucket { .. }), "{refused}");
        assert!(ring.active(TENANT).is_none(), "K10");
    }
}

#[tokio::test]
async fn keymanagers_that_race_end_with_one_kek() {
    for _ in 0..20 {
        let world = World::new();
        let (a, b) = (world.ring(), world.ring());
        let (a, b) = tokio::join!(a.activate(TENANT, LOWEST), b.activate(TENANT, LOWEST));
        let (a, b) = (a.unwrap(), b.unwrap());
        assert!(a.id == b.id && a.version == b.version && same_key(&a, &b));
        assert_eq!(world.documents().len(), 1);
    }
}

#[tokio::test]
async fn a_faster_keymanager_wins_the_version() {
    let world = World::new();
    let (slow, fast) = (world.ring(), world.ring());
    let won = fast.activate(TENANT, LOWEST).await.unwrap();
    // As if the slow one had listed before: it still mints the same version.
    let documents = slow_documents(&world);
    documents
        .mint(TENANT, ids::KekId([9; 16]), won.version)
        .await
        .unwrap();
    let lost = slow.activate(TENANT, LOWEST).await.unwrap();
    assert!(lost.id == won.id && same_key(&lost, &won));
    assert_eq!(world.documents().len(), 1);
}

fn slow_documents(world: &World) -> KekDocuments {
    let provider = Provider {
        kind: "local".to_owned(),
        key: "test".to_owned(),
    };
    let kms = Arc::new(world.kms.clone());
    KekDocuments::new(
        world.bucket.clone(),
        Cell::new("c1").unwrap(),
        kms,
        provider,
    )
}

#[tokio::test]
async fn a_disabled_key_opens_and_mints_nothing() {
    let world = World::new();
    let ring = world.ring();
    world.kms.set_state(KeyState::Disabled).unwrap();
    let refused = ring.activate(TENANT, LOWEST).await.err().unwrap();
    let disabled = ErrorClass::Refused {
        reason: RevokeReason::Disabled,
        at_once: true,
    };
    assert!(matches!(&refused, KekError::Kms { source, .. } if source.class == disabled));
    assert!(world.documents().is_empty(), "nothing was put");
    world.kms.set_state(KeyState::Enabled).unwrap();
    ring.activate(TENANT, LOWEST).await.unwrap();
    ring.probe(TENANT, LOWEST).await.unwrap();
    world.kms.set_state(KeyState::Disabled).unwrap();
    assert!(
        ring.probe(TENANT, LOWEST).await.is_err(),
        "K1: a real decrypt"
    );
    assert!(world.ring().activate(TENANT, LOWEST).await.is_err());
}

#[tokio::test]
async fn a_fence_empties_memory_and_the_next_version_is_new() {
    let world = World::new();
    let (ring, other) = (world.ring(), world.ring());
    let old = ring.activate(TENANT, LOWEST).await.unwrap();
    other.activate(TENANT, LOWEST).await.unwrap();
    ring.fence(TENANT);
    other.fence(TENANT);
    assert!(ring.active(TENANT).is_none());
    let new = ring.activate(TENANT, LOWEST).await.unwrap();
    assert_eq!(new.version, KekVersion(2), "K8");
    assert!(new.id == old.id && !same_key(&old, &new));
    let met = other.activate(TENANT, LOWEST).await.unwrap();
    assert_eq!(
        met.version,
        KekVersion(2),
        "the other's new version will do"
    );
    assert!(same_key(&new, &met));
    let kept = ring.get(TENANT, KekVersion(1), LOWEST).await.unwrap();
    assert!(same_key(&old, &kept), "old files stay readable");
}

#[tokio::test]
async fn a_keymanager_that_began_during_a_revocation_makes_a_new_version_too() {
    let world = World::new();
    world.ring().activate(TENANT, LOWEST).await.unwrap();
    world.kms.set_state(KeyState::Disabled).unwrap();
    let ring = world.ring();
    assert!(ring.probe(TENANT, LOWEST).await.is_err());
    ring.fence(TENANT);
    assert!(ring.probe(TENANT, LOWEST).await.is_err(), "still disabled");
    world.kms.set_state(KeyState::Enabled).unwrap();
    ring.probe(TENANT, LOWEST).await.unwrap();
    let new = ring.active(TENANT).unwrap();
    assert_eq!(new.version, KekVersion(2), "K8");
    assert_eq!(world.documents().len(), 2);
}

#[tokio::test]
async fn versions_that_are_too_low_are_refused() {
    let world = World::new();
    let ring = world.ring();
    ring.activate(TENANT, LOWEST).await.unwrap();
    ring.fence(TENANT);
    ring.activate(TENANT, LOWEST).await.unwrap();
    let refused = ring.get(TENANT, KekVersion(1), KekVersion(2)).await;
    assert!(matches!(refused, Err(KekError::TooLow { .. })), "K10");
    let refused = ring.get(TENANT, KekVersion(3), LOWEST).await;
    assert!(matches!(refused, Err(KekError::Missing { .. })));
    // The bucket goes back in time: the newest document is gone.
    let newest = world
        .documents()
        .into_iter()
        .find(|path| path.to_string_lossy().contains("kek-2-"));
    std::fs::remove_file(newest.unwrap()).unwrap();
    let refused = ring.activate(TENANT, LOWEST).await;
    assert!(matches!(refused, Err(KekError::TooLow { .. })), "K10");
}

#[tokio::test]
async fn a_damaged_document_is_named() {
    let world = World::new();
    world.ring().activate(TENANT, LOWEST).await.unwrap();
    let [path] = world.documents().try_into().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let good = std::fs::read_to_string(&path).unwrap();
    let at = good.find("\"wrapped\": \"").unwrap() + 40;
    let mut flipped = good.clone();
    let digit = if &good[at..=at] == "0" { "1" } else { "0" };
    flipped.replace_range(at..=at, digit);
    let other = good.replace("\"version\": 1", "\"version\": 2");
    let later = good.replace("\"format\": 1", "\"format\": 2");
    for damaged in [&good[..good.len() / 2], "", &flipped, &other, &later] {
        assert_ne!(damaged, good);
        std::fs::write(&path, damaged).unwrap();
        let refused = world.ring().activate(TENANT, LOWEST).await.err().unwrap();
        assert!(
            matches!(
                refused,
                KekError::Damaged { .. } | KekError::DoesNotOpen { .. }
            ),
            "{refused}"
        );
        assert!(refused.to_string().contains(name), "{refused}");
    }
}

#[tokio::test]
async fn a_raised_lowest_version_mints_nothing_below_it() {
    let world = World::new();
    let old = world.ring().activate(TENANT, LOWEST).await.unwrap();
    let (lowest, ring) = (KekVersion(5), world.ring());
    let new = ring.activate(TENANT, lowest).await.unwrap();
    assert_eq!((new.version, new.id), (lowest, old.id), "K10");
    assert!(ring.get(TENANT, new.version, lowest).await.is_ok());
    let again = ring.activate(TENANT, lowest).await.unwrap();
    assert_eq!(again.version, lowest, "once");
}

#[tokio::test]
async fn a_canary_that_was_wrapped_anew_is_read_again_once_it_does_not_open() {
    let world = World::new();
    let ring = world.ring();
    ring.activate(TENANT, LOWEST).await.unwrap();
    let [path] = world.documents().try_into().unwrap();
    let good = std::fs::read_to_string(&path).unwrap();
    // What opened does no longer: as if its master key's version were destroyed.
    let kms = world.directory.path().join("kms");
    let key = std::fs::read(kms.join("1.key")).unwrap();
    std::fs::write(kms.join("1.key"), [7; 32]).unwrap();
    let refused = ring.probe(TENANT, LOWEST).await.err().unwrap();
    assert!(matches!(refused, KekError::DoesNotOpen { .. }), "{refused}");
    // A second wrap of the same version, under another version of the master key.
    std::fs::write(kms.join("2.key"), key).unwrap();
    let at = good.find("\"wrapped\": \"").unwrap() + 12;
    let mut anew = good.clone();
    anew.replace_range(at..at + 8, "02000000");
    let series = Cell::new("c1").unwrap().kek(TENANT, KekVersion(1));
    let name = series.name(2);
    world
        .bucket
        .put_if_absent(&name, anew.into())
        .await
        .unwrap();
    ring.probe(TENANT, LOWEST).await.unwrap();
}
