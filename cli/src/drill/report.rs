//! What a drill measured, held to what DESIGN promises.

use std::collections::BTreeMap;

use serde::Serialize;

use super::storage::Node;

/// From the provider's first refusal until nothing is readable.
const REVOKED_WITHIN: f64 = 60.0;
/// From the key's return until the first answer.
const BACK_WITHIN: f64 = 30.0;
/// What a client is told: the key is revoked, or cannot be had for now.
const TOLD: [&str; 2] = ["58R01", "58R02"];

/// What was seen. Times in seconds, of the first half since the key was disabled, of the second
/// since it was enabled; none where it never was so.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Measured {
    pub(crate) started: String,
    pub(crate) served_before: bool,
    pub(crate) last_read: Option<f64>,
    pub(crate) last_write: Option<f64>,
    pub(crate) compute_gone: Option<f64>,
    pub(crate) storage_closed: Option<f64>,
    pub(crate) client_error: Option<String>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) first_read: Option<f64>,
    pub(crate) first_write: Option<f64>,
    pub(crate) acknowledged: usize,
    pub(crate) missing: Option<usize>,
}

/// One promise.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) promise: &'static str,
    pub(crate) measured: String,
    pub(crate) passed: bool,
}

/// The verdict.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) passed: bool,
    pub(crate) checks: Vec<Check>,
    pub(crate) measured: Measured,
}

impl Report {
    pub(crate) fn judge(measured: Measured) -> Self {
        let checks = checks(&measured);
        Self {
            passed: checks.iter().all(|check| check.passed),
            checks,
            measured,
        }
    }

    /// The promises that failed.
    pub(crate) fn failures(&self) -> Vec<String> {
        let failed = self.checks.iter().filter(|check| !check.passed);
        failed
            .map(|check| format!("{} ({})", check.promise, check.measured))
            .collect()
    }

    /// The report for people.
    pub(crate) fn markdown(&self) -> String {
        let verdict = if self.passed { "passed" } else { "FAILED" };
        let mut text = format!(
            "# Revocation drill: {verdict}\n\nAt {}.\n\n",
            self.measured.started
        );
        text.push_str("| promise | measured | |\n|---|---|---|\n");
        for check in &self.checks {
            let mark = if check.passed { "held" } else { "**broken**" };
            let row = format!(
                "| {} | {} | {mark} |\n",
                check.promise,
                cell(&check.measured)
            );
            text.push_str(&row);
        }
        text.push_str("\n| storage node | answers a reader | data keys held |\n|---|---|---|\n");
        for (name, node) in &self.measured.nodes {
            let held = node
                .keys_held
                .map_or("not said".to_owned(), |n| n.to_string());
            text.push_str(&format!("| {name} | {} | {held} |\n", cell(&node.answer)));
        }
        text
    }
}

/// Text of others inside a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn checks(measured: &Measured) -> Vec<Check> {
    // Answers that were under way when the key was disabled come within a moment of it; none at
    // all behind it is the best case.
    let silent = |last: Option<f64>| (seconds(last, "none"), last.unwrap_or(0.0) <= REVOKED_WITHIN);
    let within =
        |when: Option<f64>, limit| (seconds(when, "never"), when.is_some_and(|w| w <= limit));
    let error = measured.client_error.clone();
    let told = |error: &String| TOLD.iter().any(|state| error.starts_with(state));
    let list = [
        (
            "before, every storage node served",
            (yes_no(measured.served_before), measured.served_before),
        ),
        (
            "the last read answered within 60 s",
            silent(measured.last_read),
        ),
        (
            "the last write was acknowledged within 60 s",
            silent(measured.last_write),
        ),
        (
            "no Postgres ran after 60 s",
            within(measured.compute_gone, REVOKED_WITHIN),
        ),
        (
            "no storage node gave content or held a key after 60 s",
            within(measured.storage_closed, REVOKED_WITHIN),
        ),
        (
            "a client is told why (58R01, 58R02)",
            (
                error.clone().unwrap_or_else(|| "nothing".to_owned()),
                error.as_ref().is_some_and(told),
            ),
        ),
        (
            "the first read answered within 30 s of the key's return",
            within(measured.first_read, BACK_WITHIN),
        ),
        (
            "the first write was acknowledged within 30 s of it",
            within(measured.first_write, BACK_WITHIN),
        ),
        ("no acknowledged row is missing", rows(measured)),
    ];
    list.into_iter()
        .map(|(promise, (measured, passed))| Check {
            promise,
            measured,
            passed,
        })
        .collect()
}

fn rows(measured: &Measured) -> (String, bool) {
    let acknowledged = measured.acknowledged;
    match measured.missing {
        Some(missing) => (
            format!("{missing} of {acknowledged}"),
            missing == 0 && acknowledged > 0,
        ),
        None => (format!("{acknowledged} acknowledged, not counted"), false),
    }
}

fn seconds(value: Option<f64>, none: &str) -> String {
    value.map_or_else(|| none.to_owned(), |value| format!("{value:.1} s"))
}

fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Measured {
        let node = Node {
            served: false,
            answer: "58R01 a|b".to_owned(),
            keys_held: Some(0.0),
        };
        Measured {
            started: "2026-11-24T08:30:00.000Z".to_owned(),
            served_before: true,
            last_read: Some(20.0),
            last_write: None,
            compute_gone: Some(26.0),
            storage_closed: Some(26.5),
            client_error: Some("58R01 the key is revoked".to_owned()),
            nodes: BTreeMap::from([("pageserver-1".to_owned(), node)]),
            first_read: Some(12.0),
            first_write: Some(12.5),
            acknowledged: 40,
            missing: Some(0),
        }
    }

    #[test]
    fn what_holds_passes_and_is_shown() {
        let report = Report::judge(good());
        assert!(report.passed, "{:?}", report.failures());
        let text = report.markdown();
        for shown in [
            "passed",
            "26.5 s",
            "58R01 the key is revoked",
            "0 of 40",
            "58R01 a\\|b",
        ] {
            assert!(text.contains(shown), "{shown}: {text}");
        }
    }

    #[test]
    fn each_promise_can_break_alone() {
        type Break = fn(&mut Measured);
        let breaks: [Break; 14] = [
            |m| m.served_before = false,
            |m| m.last_read = Some(60.1),
            |m| m.last_write = Some(99.0),
            |m| m.compute_gone = None,
            |m| m.compute_gone = Some(61.0),
            |m| m.storage_closed = None,
            |m| m.storage_closed = Some(60.5),
            |m| m.client_error = None,
            |m| m.client_error = Some("57P03 starting up".to_owned()),
            |m| m.first_read = Some(30.5),
            |m| m.first_write = None,
            |m| m.missing = Some(1),
            |m| m.missing = None,
            |m| m.acknowledged = 0,
        ];
        for (number, broken) in breaks.into_iter().enumerate() {
            let mut measured = good();
            broken(&mut measured);
            let report = Report::judge(measured);
            assert!(!report.passed, "break {number}");
            assert_eq!(report.failures().len(), 1, "break {number}");
            assert!(report.markdown().contains("broken"));
        }
    }
}
