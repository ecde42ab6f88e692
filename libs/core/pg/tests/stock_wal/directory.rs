//! The data directory that a stock server made, held to what `datadir` says of one.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use pg::PgMajor;
use pg::datadir::{
    DIRECTORIES, FILENODE_MAP, FilenodeMap, parse_relation_path, parse_slru_path, relation_path,
    slru_path,
};

/// Checks every directory and every file but those that have no form of name in common.
pub(super) fn check(data: &Path, version: PgMajor) {
    let (mut directories, mut files) = (BTreeSet::new(), BTreeSet::new());
    walk(data, data, &mut directories, &mut files);
    let database = |path: &str| {
        path.strip_prefix("base/")
            .is_some_and(|db| db.parse::<u32>().is_ok())
    };
    // The server makes them itself: that for temporary files when it first spills.
    let made = ["base/pgsql_tmp", "pg_wal/summaries"];
    directories.retain(|path| !database(path) && !made.contains(&path.as_str()));
    assert_eq!(directories, DIRECTORIES.map(str::to_owned).into());

    let (mut relations, mut slrus, mut maps) = (0, 0, 0);
    for path in &files {
        let name = path.rsplit('/').next().unwrap();
        if name == FILENODE_MAP {
            let bytes = Bytes::from(std::fs::read(data.join(path)).unwrap());
            let map = FilenodeMap::parse(version, bytes).unwrap();
            // pg_class maps itself, and nothing shared does; VACUUM FULL gave it a new file.
            let has_class = map.mappings().iter().any(|(oid, _)| *oid == 1259);
            assert_eq!(has_class, path.starts_with("base/"), "{path}");
            maps += 1;
        } else if let Some((rel, segment)) = parse_relation_path(path) {
            assert_eq!(relation_path(rel, segment).as_ref(), Some(path));
            relations += 1;
        } else if let Some((kind, segment)) = parse_slru_path(path) {
            assert_eq!(&slru_path(kind, segment), path);
            slrus += 1;
        } else {
            let known = ["PG_VERSION", "pg_internal.init", "pg_control"].contains(&name);
            let holds_relations = path.starts_with("base/") || path.starts_with("global/");
            assert!(known || !holds_relations, "{path} is none of ours");
        }
    }
    assert!(relations > 1000 && slrus >= 4 && maps >= 5);
}

fn walk(
    root: &Path,
    folder: &Path,
    directories: &mut BTreeSet<String>,
    files: &mut BTreeSet<String>,
) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        if path.is_dir() {
            directories.insert(name);
            walk(root, &path, directories, files);
        } else {
            files.insert(name);
        }
    }
}
