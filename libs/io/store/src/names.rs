//! The names of everything in the bucket (part 4 of the design).

use ids::{FileId, KekVersion, Key, Lsn, TenantId, TimelineId};

use crate::documents::Series;

/// The cell whose objects are meant: one installation, named by its operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cell(String);

/// The text cannot be a part of names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot name a cell: expected 1 to 63 of a-z, 0-9 and -")]
pub struct BadCell(pub String);

impl Cell {
    /// The cell `name`.
    ///
    /// # Errors
    /// [`BadCell`].
    pub fn new(name: &str) -> Result<Self, BadCell> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=63).contains(&name.len()) && name.bytes().all(letter) {
            Ok(Self(name.to_owned()))
        } else {
            Err(BadCell(name.to_owned()))
        }
    }

    /// Everything of all tenants.
    #[must_use]
    pub fn tenants(&self) -> String {
        format!("cells/{}/tenants", self.0)
    }

    /// Everything of a tenant.
    #[must_use]
    pub fn tenant(&self, tenant: TenantId) -> String {
        format!("cells/{}/tenants/{tenant}", self.0)
    }

    /// The wrapped KEKs of a tenant.
    #[must_use]
    pub fn keys(&self, tenant: TenantId) -> String {
        format!("{}/keys", self.tenant(tenant))
    }

    /// One version of a tenant's KEK, by its wraps (K10).
    #[must_use]
    pub fn kek(&self, tenant: TenantId, version: KekVersion) -> Series {
        Series::new(self.keys(tenant), format!("kek-{version}"), ".json")
    }

    /// The catalog of a tenant (D7).
    #[must_use]
    pub fn catalog(&self, tenant: TenantId) -> Series {
        Series::new(self.tenant(tenant), "catalog", "")
    }

    /// Everything of a timeline.
    #[must_use]
    pub fn timeline(&self, tenant: TenantId, timeline: TimelineId) -> String {
        format!("{}/timelines/{timeline}", self.tenant(tenant))
    }

    /// The manifest of a timeline (D1).
    #[must_use]
    pub fn manifest(&self, tenant: TenantId, timeline: TimelineId) -> Series {
        Series::new(self.timeline(tenant, timeline), "manifest", "")
    }

    /// The layers of a timeline.
    #[must_use]
    pub fn layers(&self, tenant: TenantId, timeline: TimelineId) -> String {
        format!("{}/layers", self.timeline(tenant, timeline))
    }

    /// The WAL of a timeline.
    #[must_use]
    pub fn wal(&self, tenant: TenantId, timeline: TimelineId) -> String {
        format!("{}/wal", self.timeline(tenant, timeline))
    }

    /// One WAL segment (D5).
    #[must_use]
    pub fn segment(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
        segment: u64,
        file: FileId,
    ) -> String {
        format!("{}/{segment:016x}-{file}", self.wal(tenant, timeline))
    }

    /// The beginning of a WAL segment, up to `end` (D5, D8).
    #[must_use]
    pub fn partial_segment(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
        segment: u64,
        end: Lsn,
        file: FileId,
    ) -> String {
        let wal = self.wal(tenant, timeline);
        format!("{wal}/{segment:016x}.{:016x}-{file}", end.0)
    }
}

/// The last part of a layer's name: keys from `keys.0` to below `keys.1`, LSNs likewise.
#[must_use]
pub fn layer(keys: (Key, Key), lsns: (Lsn, Lsn), file: FileId) -> String {
    format!(
        "{}-{}__{:016x}-{:016x}-{file}",
        keys.0, keys.1, lsns.0.0, lsns.1.0
    )
}

/// What the last part of the name of a segment's beginning says (D8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The segment.
    pub segment: u64,
    /// Where it ends.
    pub end: Lsn,
    /// Its file.
    pub file: FileId,
}

/// The parts of a name of [`Cell::partial_segment`]; `None` for a whole segment's.
#[must_use]
pub fn parse_partial_segment(name: &str) -> Option<Partial> {
    let (place, file) = name.rsplit('/').next()?.split_once('-')?;
    let (segment, end) = place.split_once('.')?;
    Some(Partial {
        segment: sixteen_digits(segment)?,
        end: Lsn(sixteen_digits(end)?),
        file: file.parse().ok()?,
    })
}

fn sixteen_digits(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok())?
}

/// The segment and file id of the last part of a segment's name.
#[must_use]
pub fn parse_segment(name: &str) -> Option<(u64, FileId)> {
    let (segment, file) = name.rsplit('/').next()?.split_once('-')?;
    Some((sixteen_digits(segment)?, file.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_design() {
        let (tenant, timeline) = (TenantId([1; 16]), TimelineId([2; 16]));
        let (one, two) = ("01".repeat(16), "02".repeat(16));
        let cell = Cell::new("c1").unwrap();
        assert_eq!(
            cell.kek(tenant, KekVersion(3)).name(1),
            format!("cells/c1/tenants/{one}/keys/kek-3-fffffffffffffffe.json")
        );
        assert_eq!(
            cell.manifest(tenant, timeline).name(0),
            format!("cells/c1/tenants/{one}/timelines/{two}/manifest-ffffffffffffffff")
        );
        let name = cell.segment(tenant, timeline, 5, FileId([9; 16]));
        assert_eq!(parse_segment(&name), Some((5, FileId([9; 16]))));
        assert_eq!(parse_segment("x/+000000000000005-09"), None);
        assert_eq!(parse_partial_segment(&name), None);
        let name = cell.partial_segment(tenant, timeline, 5, Lsn(0x50), FileId([9; 16]));
        let (segment, end, file) = (5, Lsn(0x50), FileId([9; 16]));
        assert_eq!(
            parse_partial_segment(&name),
            Some(Partial { segment, end, file })
        );
        assert_eq!(parse_segment(&name), None);
        for bad in ["", "..", "a/b", "A"] {
            assert!(Cell::new(bad).is_err());
        }
    }
}
