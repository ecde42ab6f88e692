//! Points in time, as people write them and as programs exchange them.

use std::fmt;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Seconds since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct UnixTime(pub(crate) f64);

/// Text that is no point in time.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{0:?} is no point in time: expected 2026-11-24T08:30:00Z or '5 minutes ago'")]
pub(crate) struct NoTime(String);

impl UnixTime {
    /// Now. The clock of the machine is read here alone.
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::CLOCK_REALTIME)
            .map(Duration::from)
            .unwrap_or_default();
        Self(now.as_secs_f64())
    }

    /// Whole seconds.
    pub(crate) fn seconds(self) -> u64 {
        Duration::try_from_secs_f64(self.0)
            .unwrap_or_default()
            .as_secs()
    }

    /// RFC 3339, or so long ago as `3 minutes ago` says.
    pub(crate) fn parse(text: &str, now: Self) -> Result<Self, NoTime> {
        ago(text)
            .map(|seconds| Self(now.0 - seconds))
            .or_else(|| rfc3339(text))
            .filter(|time| time.0 >= 0.0)
            .ok_or_else(|| NoTime(text.to_owned()))
    }
}

impl fmt::Display for UnixTime {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = Duration::try_from_secs_f64(self.0).unwrap_or_default();
        let seconds = i64::try_from(time.as_secs()).unwrap_or(0);
        let (year, month, day) = date_of(seconds.div_euclid(86_400));
        let second = seconds.rem_euclid(86_400);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            second / 3600,
            second / 60 % 60,
            second % 60,
            time.subsec_millis()
        )
    }
}

fn ago(text: &str) -> Option<f64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [number, unit, "ago"] = words.as_slice() else {
        return None;
    };
    let number: f64 = number.parse().ok()?;
    let seconds = match unit.strip_suffix('s').unwrap_or(unit) {
        "second" | "sec" => 1.0,
        "minute" | "min" => 60.0,
        "hour" => 3600.0,
        "day" => 86_400.0,
        "week" => 604_800.0,
        _ => return None,
    };
    (number.is_finite() && number >= 0.0).then_some(number * seconds)
}

fn rfc3339(text: &str) -> Option<UnixTime> {
    let text = text.trim();
    if !text.is_ascii() || text.len() < 20 {
        return None;
    }
    let (date, rest) = text.split_at(10);
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, zone) = rest.split_at(rest.find(['Z', 'z', '+', '-'])?);
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let valid = (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    let digits = !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit());
    if !valid || !digits {
        return None;
    }
    let fraction: f64 = format!("0.{fraction}").parse().ok()?;
    let whole = day_number(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let whole = i32::try_from(whole - offset(zone)?)
        .map(f64::from)
        .or_else(|_| i64::to_string(&whole).parse())
        .ok()?;
    Some(UnixTime(whole + fraction))
}

fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.chars().next()? {
        'Z' | 'z' => return (zone.len() == 1).then_some(0),
        '+' => 1,
        _ => -1,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let [hours] = numbers(hours, ':', [2])?;
    let [minutes] = numbers(minutes, ':', [2])?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// `N` numbers of exactly so many digits with `between` between them.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[i64; N]> {
    let parts: Vec<&str> = text.split(between).collect();
    let mut found = [0; N];
    if parts.len() != N {
        return None;
    }
    for ((part, digits), found) in parts.iter().zip(digits).zip(&mut found) {
        if part.len() != digits || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *found = part.parse().ok()?;
    }
    Some(found)
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar, years counted from March so that the leap
/// day is the last one.
const fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of a day number: what [`day_number`] does, backwards.
const fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year + days.div_euclid(146_097) * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000_000.0);

    fn parsed(text: &str) -> Option<f64> {
        UnixTime::parse(text, NOW).ok().map(|time| time.0)
    }

    #[test]
    fn known_moments_are_read() {
        assert_eq!(parsed("1970-01-01T00:00:00Z"), Some(0.0));
        assert_eq!(parsed("2000-02-29T12:00:00Z"), Some(951_825_600.0));
        assert_eq!(parsed("2026-11-24T08:30:00.25Z"), Some(1_795_509_000.25));
        assert_eq!(parsed("2026-11-24 10:30:00+02:00"), Some(1_795_509_000.0));
        assert_eq!(parsed("2026-11-24T03:00:00-05:30"), Some(1_795_509_000.0));
        assert_eq!(parsed("2100-03-01T00:00:00Z"), Some(4_107_542_400.0));
    }

    #[test]
    fn so_long_ago_counts_from_now() {
        assert_eq!(parsed("5 minutes ago"), Some(999_700.0));
        assert_eq!(parsed(" 1 hour  ago "), Some(996_400.0));
        assert_eq!(parsed("0.5 seconds ago"), Some(999_999.5));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "ago",
            "5 ago",
            "x minutes ago",
            "-1 minutes ago",
            "nan days ago",
            "5 moons ago",
            "2026-11-24",
            "2026-11-24T08:30:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-24T24:00:00Z",
            "2026-11-24T08:30:00.Z",
            "2026-11-24T08:30:00+2:00",
            "2026-11-24T08:30:00Zx",
            "1969-12-31T23:59:59Z",
            "2026-11-24T08:30:00.1e3Z",
            "２026-11-24T08:30:00Z",
        ] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for seconds in [0.0, 951_782_400.5, 1_709_208_000.125, 4_102_444_799.875] {
            let text = UnixTime(seconds).to_string();
            assert_eq!(parsed(&text), Some(seconds), "{text}");
        }
        assert_eq!(
            UnixTime(1_795_509_000.25).to_string(),
            "2026-11-24T08:30:00.250Z"
        );
    }
}
