//! Files of a database by its tablespace. Those of a tablespace of the user are below
//! `pg_tblspc/<tablespace>/PG_<major>_<catalogue version>/<database>`, whether `pg_tblspc/<tablespace>`
//! is a link or, as `allow_in_place_tablespaces` makes it, a directory (`relpath.c`).

use ids::{Fork, RelTag};

use crate::PgMajor;
use crate::datadir::{self, DEFAULT_TABLESPACE, GLOBAL_TABLESPACE};

const TABLESPACES: &str = "pg_tblspc/";

/// The directory of a tablespace of the user, below the data directory, that belongs to servers of
/// this version: others may have theirs beside it.
#[must_use]
pub fn version_directory(version: PgMajor, spc: u32) -> String {
    format!("{TABLESPACES}{spc}/{}", version_name(version))
}

/// The directory of a database in a tablespace; `None` where no server has such a database.
#[must_use]
pub fn database_directory(version: PgMajor, spc: u32, db: u32) -> Option<String> {
    match (spc, db) {
        (GLOBAL_TABLESPACE, 0) => Some("global".to_owned()),
        (_, 0) | (GLOBAL_TABLESPACE, _) => None,
        (DEFAULT_TABLESPACE, _) => Some(format!("base/{db}")),
        _ => Some(format!("{}/{db}", version_directory(version, spc))),
    }
}

/// The path of a file of a relation, below the data directory; `None` where no server has such a
/// relation.
#[must_use]
pub fn relation_path(version: PgMajor, rel: RelTag, segment: u32) -> Option<String> {
    let directory = database_directory(version, rel.spc, rel.db)?;
    let (name, fork) = (rel.rel, rel.fork.suffix());
    let segment = match segment {
        0 => String::new(),
        _ => format!(".{segment}"),
    };
    Some(format!("{directory}/{name}{fork}{segment}"))
}

/// The fork and segment that a path is the file of; as [`datadir::parse_relation_path`], in
/// tablespaces of the user too.
#[must_use]
pub fn parse_relation_path(version: PgMajor, path: &str) -> Option<(RelTag, u32)> {
    let Some((spc, rest)) = in_tablespace(version, path) else {
        return datadir::parse_relation_path(path);
    };
    let (rel, segment) = datadir::parse_relation_path(&format!("base/{rest}"))?;
    Some((RelTag { spc, ..rel }, segment))
}

/// The tablespace and database whose relation map is at a path.
#[must_use]
pub fn parse_map_path(version: PgMajor, path: &str) -> Option<(u32, u32)> {
    let directory = path
        .strip_suffix(datadir::FILENODE_MAP)?
        .strip_suffix('/')?;
    // As if there were a relation beside it.
    let (rel, _) = parse_relation_path(version, &format!("{directory}/1"))?;
    Some((rel.spc, rel.db))
}

/// The tablespace of the user that a path is in, and what follows the directory of its version.
#[must_use]
pub fn in_tablespace(version: PgMajor, path: &str) -> Option<(u32, &str)> {
    let (spc, rest) = path.strip_prefix(TABLESPACES)?.split_once('/')?;
    let rest = rest.strip_prefix(&version_name(version))?;
    // A tablespace has a number like any other object.
    let (rel, _) = datadir::parse_relation_path(&format!("global/{spc}"))?;
    let is_plain = rel.fork == Fork::Main && !spc.contains('.');
    let rest = match rest {
        "" => "",
        rest => rest.strip_prefix('/')?,
    };
    is_plain.then_some((rel.rel, rest))
}

fn version_name(version: PgMajor) -> String {
    format!("PG_{}_{}", version.number(), version.catalog_version())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_read_as_they_are_written() {
        let fork = |spc, db, rel, fork| RelTag { spc, db, rel, fork };
        for (path, rel, segment) in [
            ("base/5/16384", fork(1663, 5, 16384, Fork::Main), 0),
            ("global/1262_vm", fork(1664, 0, 1262, Fork::Vm), 0),
            (
                "pg_tblspc/16400/PG_17_202406281/5/16384_fsm.2",
                fork(16400, 5, 16384, Fork::Fsm),
                2,
            ),
        ] {
            let version = PgMajor::V17;
            assert_eq!(relation_path(version, rel, segment).as_deref(), Some(path));
            assert_eq!(parse_relation_path(version, path), Some((rel, segment)));
        }
        for path in [
            "pg_tblspc/16400/PG_16_202307071/5/16384",
            "pg_tblspc/016400/PG_17_202406281/5/16384",
            "pg_tblspc/16400.1/PG_17_202406281/5/16384",
            "pg_tblspc/16400/PG_17_2024062810/5/16384",
            "pg_tblspc/16400/PG_17_202406281/pgsql_tmp/1",
            "pg_tblspc/16400",
        ] {
            assert_eq!(parse_relation_path(PgMajor::V17, path), None, "{path}");
        }
        assert_eq!(
            relation_path(PgMajor::V17, fork(16400, 0, 1, Fork::Main), 0),
            None
        );
    }

    #[test]
    fn maps_are_found_in_every_tablespace() {
        let at = |path| parse_map_path(PgMajor::V17, path);
        assert_eq!(at("global/pg_filenode.map"), Some((1664, 0)));
        assert_eq!(at("base/5/pg_filenode.map"), Some((1663, 5)));
        let path = "pg_tblspc/16400/PG_17_202406281/5/pg_filenode.map";
        assert_eq!(at(path), Some((16400, 5)));
        assert_eq!(at("base/pg_filenode.map"), None);
        assert_eq!(at("pg_filenode.map"), None);
        let empty = "pg_tblspc/16400/PG_17_202406281";
        assert_eq!(in_tablespace(PgMajor::V17, empty), Some((16400, "")));
    }
}
