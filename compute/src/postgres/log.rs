//! PostgreSQL's log, reduced to severity, SQLSTATE and time (C6): its words carry data of rows.

/// What every line begins with, by `log_line_prefix`: time with zone, then the SQLSTATE.
pub const LINE_PREFIX: &str = "%m %e ";

/// One line that may leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `2026-11-24 07:40:01.123 GMT`
    pub time: String,
    /// Five letters and digits.
    pub sqlstate: String,
    /// `LOG`, `WARNING`, `ERROR`, `FATAL`, `PANIC`.
    pub severity: &'static str,
}

const SEVERITIES: [&str; 7] = [
    "LOG", "INFO", "NOTICE", "WARNING", "ERROR", "FATAL", "PANIC",
];

/// What is left of a line. Everything that is not exactly the beginning of a message (details,
/// statements, continued lines, the words of libraries) is dropped.
#[must_use]
pub fn reduce(line: &str) -> Option<Entry> {
    let mut words = line.splitn(6, ' ');
    let (date, time, zone) = (words.next()?, words.next()?, words.next()?);
    let (sqlstate, severity) = (words.next()?, words.next()?.strip_suffix(':')?);
    let severity = SEVERITIES.into_iter().find(|known| *known == severity)?;
    let digits = |text: &str, separators: &[char]| {
        let allowed = |c: char| c.is_ascii_digit() || separators.contains(&c);
        !text.is_empty() && text.len() <= 12 && text.chars().all(allowed)
    };
    let zoned = !zone.is_empty()
        && zone.len() <= 6
        && zone
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '+' || c == '-');
    let coded = sqlstate.len() == 5
        && sqlstate
            .chars()
            .all(|c| c.is_ascii_digit() || c.is_ascii_uppercase());
    let whole = digits(date, &['-']) && digits(time, &[':', '.']) && zoned && coded;
    whole.then(|| Entry {
        time: format!("{date} {time} {zone}"),
        sqlstate: sqlstate.to_owned(),
        severity,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_severity_state_and_time_leave() {
        let entry = reduce(
            "2026-11-24 07:40:01.123 GMT 23505 ERROR:  duplicate key value violates \"card\"",
        )
        .unwrap();
        let expected = Entry {
            time: "2026-11-24 07:40:01.123 GMT".to_owned(),
            sqlstate: "23505".to_owned(),
            severity: "ERROR",
        };
        assert_eq!(entry, expected);
        assert!(!format!("{entry:?}").contains("card"));
    }

    #[test]
    fn what_is_no_first_line_of_a_message_is_dropped() {
        for line in [
            "",
            "2026-11-24 07:40:01.123 GMT 23505 DETAIL:  Key (card)=(4711) already exists.",
            "2026-11-24 07:40:01.123 GMT 23505 STATEMENT:  insert into cards values (4711)",
            "\tinsert into cards values (4711)",
            "free(): invalid pointer 4711",
            "4711 4711 4711 4711 ERROR: x",
            "2026-11-24 07:40:01.123 card-4711 23505 ERROR: x",
            "2026-11-24 07:40:01.123 GMT card4 ERROR: x",
            "2026-11-24 07:40:01.123 GMT 23505 ERROR x",
        ] {
            assert_eq!(reduce(line), None, "{line}");
        }
    }
}
