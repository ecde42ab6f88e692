use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use ids::{Fork, RelTag, SlruKind, TenantId, TimelineId};
use keyring::Keyring;
use pg::control::ControlFile;
use pg::page::BLOCK;
use store::names::Cell;
use store::{Bucket, BucketConfig};

use super::*;
use crate::ingest::Directory;

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// Runs a script as a user that may run servers.
fn sh(at: &Path, script: &str) {
    let is_root = std::fs::read_to_string("/proc/self/status")
        .unwrap()
        .contains("Uid:\t0\t");
    let mut command = Command::new(if is_root { "runuser" } else { "sh" });
    if is_root {
        command.args(["-u", "postgres", "--", "sh"]);
    }
    let output = command.args(["-c", script]).current_dir(at).output();
    let output = output.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
}

/// The archive of a fresh data directory.
pub(crate) fn initdb() -> Vec<u8> {
    let directory = tempfile::Builder::new()
        .prefix("redoubt-import")
        .tempdir_in("/tmp")
        .unwrap();
    let at = directory.path();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(at, open).unwrap();
    sh(at, &format!("{BIN}/initdb -D data -U postgres -A trust -N"));
    sh(at, "tar -C data -cf data.tar . && chmod a+r data.tar");
    std::fs::read(at.join("data.tar")).unwrap()
}

pub(crate) fn files(tar: &[u8]) -> BTreeMap<String, Bytes> {
    read(tar).unwrap().files().collect()
}

fn read(tar: &[u8]) -> Result<Archive, ArchiveError> {
    archive::read(tar, archive::unnamed_spool(tempfile::tempfile().unwrap()))
}

/// Imports files, by their paths.
pub(crate) async fn import_files(
    home: &Home,
    files: impl IntoIterator<Item = (String, Bytes)>,
) -> Result<(Arc<Timeline>, Imported), ImportError> {
    import(home, Archive::of(files), IMAGE_BYTES).await
}

pub(crate) fn home(at: &Path) -> Home {
    Home {
        bucket: Bucket::open(&BucketConfig::directory(at)).unwrap(),
        keyring: Arc::new(Keyring::fixed([7; 32])),
        cell: Cell::new("c1").unwrap(),
        tenant: TenantId([1; 16]),
        timeline: TimelineId([2; 16]),
        cache: crate::layer::cache::LayerCache::in_memory(),
    }
}

#[tokio::test]
async fn a_fresh_data_directory_becomes_a_timeline_that_holds_all_of_it() {
    let tar = initdb();
    let files = files(&tar);
    let bucket = tempfile::tempdir().unwrap();
    let home = home(bucket.path());
    let (timeline, imported) = import_tar(&home, std::io::Cursor::new(tar)).await.unwrap();
    assert_eq!(imported.pg_major, 15);
    assert_eq!(timeline.last_lsn().unwrap(), imported.start_lsn);
    assert_eq!(
        timeline.remote_consistent_lsn().unwrap(),
        imported.start_lsn
    );
    let start = imported.start_lsn;
    // A shutdown checkpoint has 114 bytes, and does not cross a page here.
    assert_eq!(start, (imported.previous_record + 114).align8());
    let content = async |kind| timeline.content(Key::new(kind), start).await.unwrap();
    let control = content(KeyKind::ControlFile).await.unwrap();
    assert_eq!(control, files["global/pg_control"]);
    let control = ControlFile::parse(&control).unwrap();
    let checkpoint = content(KeyKind::Checkpoint).await.unwrap();
    assert_eq!(checkpoint[..], control.checkpoint().encode());
    for (path, bytes) in &files {
        if let Some((fork, segment)) = pg::datadir::parse_relation_path(path) {
            assert_eq!(segment, 0);
            let size = content(KeyKind::RelSize(fork)).await.unwrap();
            assert_eq!(size[..], (bytes.len() as u32 / 8192).to_le_bytes());
            for (block, page) in (0..).zip(bytes.chunks(BLOCK)) {
                let held = content(KeyKind::RelBlock(fork, block)).await.unwrap();
                assert!(held == page, "{path} {block}");
            }
        }
    }
    let clog = content(KeyKind::SlruBlock(SlruKind::Clog, 0, 0)).await;
    assert_eq!(clog.unwrap(), files["pg_xact/0000"].slice(..BLOCK));
    let map = content(KeyKind::RelMap { spc: 1664, db: 0 }).await;
    assert_eq!(map.unwrap(), files["global/pg_filenode.map"]);
    let directory = Directory::load(&timeline, start).await.unwrap();
    assert_eq!(directory.databases.len(), 3);
    assert_eq!(directory.values(), {
        let mut again = Directory::load(&timeline, start).await.unwrap();
        again.prepared.clear();
        again.values()
    });
    let (again, same) = import_files(&home, files.clone()).await.unwrap();
    assert_eq!((same, again.last_lsn().unwrap()), (imported, start));
    again
        .ingest(imported.previous_record, start, start + 8, [])
        .unwrap();
    again.flush().await.unwrap();
    let error = import_files(&home, files).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, ImportError::Occupied { .. }), "{error}");
}

#[test]
fn what_cannot_be_a_timeline_is_refused_by_name() {
    let good = files(&initdb());
    let refuse = |change: &dyn Fn(&mut BTreeMap<String, Bytes>), words: &str| {
        let mut files = good.clone();
        change(&mut files);
        let error = plan(&Archive::of(files))
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{words:?} in {error:?}");
    };
    let pg_control = "global/pg_control".to_owned();
    let control = |files: &mut BTreeMap<String, Bytes>, at: usize, value: u8| {
        let mut bytes = files[&pg_control].to_vec();
        bytes[at] = value;
        let crc = crc32c(&bytes[..288]).to_le_bytes();
        bytes[288..292].copy_from_slice(&crc);
        files.insert(pg_control.clone(), bytes.into());
    };
    refuse(&|files| control(files, 16, 6), "in production");
    refuse(&|files| control(files, 35, 9), "is missing");
    refuse(&|files| control(files, 64, 99), "no shutdown checkpoint");
    refuse(&|files| drop(files.remove(&pg_control)), "is missing");
    let add = |path: &'static str, bytes: &'static [u8]| {
        move |files: &mut BTreeMap<String, Bytes>| {
            files.insert(path.to_owned(), Bytes::from_static(bytes));
        }
    };
    refuse(
        &add("pg_tblspc/16400", b""),
        "is a link to files that are not in the archive",
    );
    let origins = "pg_logical/replorigin_checkpoint";
    refuse(&add(origins, b"garbage"), "replication origins");
    refuse(&add("backup_label", b""), "backup_label");
    refuse(&add("base/1/9999", b"half a page"), "has 11 bytes");
    refuse(&add("base/1/9999.1", b""), "before segment 1");
    refuse(&add("base/77/9999", b""), "no relation map");
    refuse(&add("pg_twophase/x", b""), "no file of a data directory");
    let page = &[0; BLOCK];
    refuse(
        &add("pg_xact/FFFFFFFF", page),
        "no file of a data directory",
    );
    refuse(&add("base/1/9999", &[0xFF; BLOCK]), "after the end of WAL");
    refuse(&add("base/1/pg_filenode.map", b"short"), "relation map");
}

#[test]
fn the_data_of_unlogged_relations_stays_behind() {
    let mut files = files(&initdb());
    for name in ["base/1/9999", "base/1/9999_init", "base/1/9999_fsm"] {
        files.insert(name.to_owned(), vec![0; BLOCK].into());
    }
    let values = plan(&Archive::of(files)).unwrap().parts;
    let size = |fork| {
        let rel = RelTag {
            spc: 1663,
            db: 1,
            rel: 9999,
            fork,
        };
        values
            .iter()
            .any(|(key, _)| *key == Key::new(KeyKind::RelSize(rel)))
    };
    assert!(size(Fork::Init) && !size(Fork::Main) && !size(Fork::Fsm));
}

#[tokio::test]
async fn an_archive_that_is_larger_than_the_memory_it_may_take_comes_in_by_layers() {
    const BOUND: usize = 1 << 20;
    let tar = initdb();
    assert!(tar.len() > 20 * BOUND);
    let bucket = tempfile::tempdir().unwrap();
    let home = home(bucket.path());
    let archive = read(&tar).unwrap();
    let (timeline, imported) = import(&home, archive, BOUND).await.unwrap();
    let layers = layers(&home).await;
    assert!(layers.len() > 15, "{}", layers.len());
    // An entry more than the bound, the index, the tags.
    let most = (BOUND + 100_000) as u64;
    assert!(layers.iter().all(|bytes| *bytes < most));
    let start = imported.start_lsn;
    for (path, bytes) in files(&tar) {
        if let Some((fork, 0)) = pg::datadir::parse_relation_path(&path)
            && let Some(last) = bytes.chunks(BLOCK).last()
        {
            let block = (bytes.len() / BLOCK - 1) as u32;
            let held = timeline.content(Key::new(KeyKind::RelBlock(fork, block)), start);
            assert!(held.await.unwrap().as_deref() == Some(last), "{path}");
        }
    }
    assert_eq!(timeline.remote_consistent_lsn().unwrap(), start);
}

#[tokio::test]
async fn an_archive_that_is_cut_or_garbled_is_refused_by_name_and_nothing_is_begun() {
    let mut builder = tar::Builder::new(Vec::new());
    // The last one looks, cut behind its content, like the mark of an end.
    let members = [
        (0, b'a'),
        (700, b'b'),
        (9000, b'c'),
        (300_000, b'd'),
        (4096, 0),
    ];
    for (n, (length, byte)) in members.into_iter().enumerate() {
        let mut header = tar::Header::new_gnu();
        header.set_size(length as u64);
        let content = vec![byte; length];
        let path = format!("base/1/{n}");
        builder
            .append_data(&mut header, path, &content[..])
            .unwrap();
    }
    let tar = builder.into_inner().unwrap();
    assert_eq!(read(&tar).unwrap().members.len(), members.len());
    let bucket = tempfile::tempdir().unwrap();
    let home = home(bucket.path());
    let refused = async |tar: &[u8]| {
        let error = import_tar(&home, std::io::Cursor::new(tar.to_vec())).await;
        error.map(|_| ()).unwrap_err().to_string()
    };
    // In headers, at their ends, in contents, between members, in the mark of the end.
    let bounds = boundaries(&tar);
    let around = |at: &usize| [*at, at + 1, at + 100, at + 511, at + 512, at + 513];
    let cuts = bounds.iter().flat_map(around).chain([tar.len() - 1]);
    for cut in cuts {
        let words = refused(&tar[..cut]).await;
        let named = words.contains("is cut") || words.contains("cannot be read");
        assert!(named, "cut at {cut}: {words}");
    }
    let mut garbled = tar.clone();
    garbled[bounds[2]..bounds[2] + 100].fill(b'x');
    assert!(refused(&garbled).await.contains("cannot be read"));
    assert!(refused(&tar).await.contains("pg_control"));
    let begun = home.bucket.list("cells").await.unwrap();
    assert_eq!(begun, [], "D1");
}

/// Where members begin, and where the last one ends.
fn boundaries(tar: &[u8]) -> Vec<usize> {
    let mut archive = tar::Archive::new(tar);
    let (mut at, mut end) = (Vec::new(), 0);
    for member in archive.entries().unwrap() {
        let member = member.unwrap();
        at.push(member.raw_header_position() as usize);
        end = member.raw_file_position() + member.size().next_multiple_of(512);
    }
    at.push(end as usize);
    at
}

#[tokio::test]
async fn an_import_that_fails_midway_leaves_no_layer_and_the_same_import_completes_it() {
    let bucket = tempfile::tempdir().unwrap();
    let home = home(bucket.path());
    let files = files(&initdb());
    // The spool is read again while layers are written: where the end of it is gone, which holds the
    // highest keys, the first layers are written and the last are not.
    let (pages, rest): (Vec<_>, Vec<_>) = files
        .clone()
        .into_iter()
        .partition(|(path, _)| path.starts_with("global/") && !path.contains("pg_"));
    let broken = Archive::of(rest.into_iter().chain(pages));
    broken.spool.cut(100_000);
    let error = import(&home, broken, 1 << 20)
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(error.to_string().contains("kept"), "{error}");
    assert_eq!(layers(&home).await, [0; 0]);
    let (timeline, imported) = import_files(&home, files).await.unwrap();
    assert_eq!(timeline.last_lsn().unwrap(), imported.start_lsn);
}

/// The lengths of the layers in the bucket.
async fn layers(home: &Home) -> Vec<u64> {
    let objects = home.bucket.list("cells").await.unwrap().into_iter();
    let layers = objects.filter(|object| object.name.contains("/layers/"));
    layers.map(|object| object.bytes).collect()
}

/// Of `pg_control`, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg())
        })
    })
}
