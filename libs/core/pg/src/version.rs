//! The major versions of PostgreSQL that Redoubt stores.

use std::fmt;

/// A major version of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PgMajor {
    /// PostgreSQL 14.
    V14,
    /// PostgreSQL 15.
    V15,
    /// PostgreSQL 16.
    V16,
    /// PostgreSQL 17.
    V17,
    /// PostgreSQL 18.
    V18,
}

/// A version, catalogue or page magic that belongs to no supported major version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value} belongs to no PostgreSQL that is supported (14 to 18)")]
pub struct UnsupportedVersion {
    /// What was looked at.
    pub what: &'static str,
    /// Its value.
    pub value: u32,
}

/// Major, magic of WAL pages, catalogue version of the release.
const MAJORS: [(PgMajor, u32, u16, u32); 5] = [
    (PgMajor::V14, 14, 0xD10D, 202_107_181),
    (PgMajor::V15, 15, 0xD110, 202_209_061),
    (PgMajor::V16, 16, 0xD113, 202_307_071),
    (PgMajor::V17, 17, 0xD116, 202_406_281),
    (PgMajor::V18, 18, 0xD118, 202_506_291),
];

impl PgMajor {
    /// All of them, the oldest first.
    pub const ALL: [Self; 5] = [Self::V14, Self::V15, Self::V16, Self::V17, Self::V18];

    /// The version with this number; also takes the long form (`150020`).
    pub fn from_number(number: u32) -> Result<Self, UnsupportedVersion> {
        let major = if number >= 10_000 {
            number / 10_000
        } else {
            number
        };
        Self::find("version", number, |row| row.1 == major)
    }

    /// The version whose clusters have this catalogue version in `pg_control`.
    pub fn from_catalog_version(value: u32) -> Result<Self, UnsupportedVersion> {
        Self::find("catalogue version", value, |row| row.3 == value)
    }

    /// The version whose WAL pages have this magic.
    pub fn from_wal_magic(value: u16) -> Result<Self, UnsupportedVersion> {
        Self::find("WAL page magic", u32::from(value), |row| row.2 == value)
    }

    fn find(
        what: &'static str,
        value: u32,
        wanted: impl Fn(&(Self, u32, u16, u32)) -> bool,
    ) -> Result<Self, UnsupportedVersion> {
        MAJORS
            .iter()
            .find(|row| wanted(row))
            .map(|row| row.0)
            .ok_or(UnsupportedVersion { what, value })
    }

    /// The number: 14 to 18.
    #[must_use]
    pub const fn number(self) -> u32 {
        MAJORS[self as usize].1
    }

    /// The magic of WAL pages.
    #[must_use]
    pub const fn wal_magic(self) -> u16 {
        MAJORS[self as usize].2
    }

    /// The catalogue version of the release.
    #[must_use]
    pub const fn catalog_version(self) -> u32 {
        MAJORS[self as usize].3
    }
}

impl fmt::Display for PgMajor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.number(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_found_by_each_of_its_numbers() {
        for row in MAJORS {
            assert_eq!(PgMajor::from_number(row.1), Ok(row.0));
            assert_eq!(PgMajor::from_number(row.0.number() * 10_000 + 3), Ok(row.0));
            assert_eq!(PgMajor::from_wal_magic(row.0.wal_magic()), Ok(row.0));
            assert_eq!(
                PgMajor::from_catalog_version(row.0.catalog_version()),
                Ok(row.0)
            );
        }
        assert!(PgMajor::from_number(13).is_err());
        assert!(PgMajor::from_wal_magic(0xD10E).is_err());
    }
}
