//! The PostgreSQL releases that are here.

use std::path::PathBuf;

use pg::PgMajor;

use crate::shell::is_root;

/// Every release, old to new: Debian's 15, and those of `releases.txt`.
pub const RELEASES: [&str; 7] = ["14.23", DEBIAN, "16.15", "17.10", "17.11", "18.4", "18.6"];
/// Debian's own, whichever minor it is.
pub const DEBIAN: &str = "15";

/// The programs of one PostgreSQL release.
#[derive(Clone, Debug)]
pub struct Release {
    /// `17.11`, or `15` for Debian's.
    pub name: &'static str,
    /// Its major version.
    pub major: PgMajor,
    /// The minor version; none of Debian's, which moves.
    pub minor: Option<u32>,
    /// Where `initdb`, `pg_ctl` and `psql` are.
    pub bin: PathBuf,
}

impl Release {
    /// The release of this name, of [`RELEASES`].
    pub fn of(name: &'static str) -> Self {
        assert!(RELEASES.contains(&name), "no release is called {name}");
        let (major, minor) = name.split_once('.').unwrap_or((name, ""));
        let major = PgMajor::from_number(major.parse().unwrap()).unwrap();
        let (bin, mend) = match name {
            DEBIAN => (PathBuf::from("/usr/lib/postgresql/15/bin"), "make deps"),
            _ => (installed().join(name).join("bin"), "make postgres"),
        };
        let initdb = bin.join("initdb");
        assert!(initdb.exists(), "no {}: run `{mend}`", initdb.display());
        Self {
            name,
            major,
            minor: minor.parse().ok(),
            bin,
        }
    }
}

/// Where `scripts/postgres` puts releases.
fn installed() -> PathBuf {
    let from = |name| std::env::var_os(name).map(PathBuf::from);
    if let Some(place) = from("REDOUBT_POSTGRES") {
        return place;
    }
    if is_root() {
        return PathBuf::from("/var/cache/redoubt/postgres");
    }
    let home = || from("HOME").unwrap().join(".cache");
    from("XDG_CACHE_HOME")
        .unwrap_or_else(home)
        .join("redoubt/postgres")
}
