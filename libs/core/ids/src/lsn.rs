//! A position in a WAL stream, in bytes.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A position in WAL, in bytes from the beginning of the stream; text form `X/X` as in
/// PostgreSQL. Zero means "none", as `InvalidXLogRecPtr` does there.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// The text is not two hexadecimal halves of up to 8 digits around a slash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an LSN: expected two hexadecimal numbers around a slash, as in 0/1A2B3C")]
pub struct LsnParseError(pub String);

impl Lsn {
    /// No position.
    pub const INVALID: Self = Self(0);
    /// After everything.
    pub const MAX: Self = Self(u64::MAX);

    /// Whether this is a position at all.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// Rounded up to the 8-byte alignment of WAL records.
    #[must_use]
    pub const fn align8(self) -> Self {
        Self(self.0.next_multiple_of(8))
    }

    /// The number of the segment that holds this position, for segments of `bytes`.
    #[must_use]
    pub const fn segment(self, bytes: u64) -> u64 {
        self.0 / bytes
    }

    /// The offset inside its segment, for segments of `bytes`.
    #[must_use]
    pub const fn segment_offset(self, bytes: u64) -> u64 {
        self.0 % bytes
    }

    /// The distance from `earlier` in bytes; `None` where `earlier` is later.
    #[must_use]
    pub const fn checked_sub(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// This position moved on by `bytes`; `None` at the end of the number space.
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(v) => Some(Self(v)),
            None => None,
        }
    }
}

impl Add<u64> for Lsn {
    type Output = Self;
    fn add(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

impl Sub for Lsn {
    type Output = u64;
    fn sub(self, earlier: Self) -> u64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Lsn {
    type Err = LsnParseError;
    fn from_str(text: &str) -> Result<Self, LsnParseError> {
        let refuse = || LsnParseError(text.to_owned());
        let (high, low) = text.split_once('/').ok_or_else(refuse)?;
        let half = |digits: &str| {
            let hexadecimal =
                (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            if !hexadecimal {
                return Err(refuse());
            }
            u64::from_str_radix(digits, 16).map_err(|_| refuse())
        };
        Ok(Self(half(high)? << 32 | half(low)?))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_that_of_postgres() {
        for (value, text) in [
            (0x1_481_660, "0/1481660"),
            (0xA_0000_00FF, "A/FF"),
            (u64::MAX, "FFFFFFFF/FFFFFFFF"),
        ] {
            assert_eq!(Lsn(value).to_string(), text);
            assert_eq!(text.parse(), Ok(Lsn(value)));
        }
    }

    #[test]
    fn text_that_is_not_a_position_is_refused() {
        for text in [
            "",
            "/",
            "0",
            "0/",
            "/0",
            "0/+1",
            "0/123456789",
            "G/0",
            "0/0/0",
            " 0/0",
        ] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
    }
}
