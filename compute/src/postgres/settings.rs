//! The settings that PostgreSQL is started with. They stand on its command line, which neither
//! `ALTER SYSTEM` nor a file overrides.

use std::collections::BTreeMap;
use std::path::Path;

use pg::control::ControlFile;

use super::log::LINE_PREFIX;

/// The role under which the agent is the one standby; only the agent's own user becomes it (C2).
pub const AGENT_ROLE: &str = "redoubt_agent";

/// Who may connect: the agent by its system user, everybody else by password. The door lets
/// nobody through under the agent's name.
pub const HBA: &str = "\
local all redoubt_agent peer map=redoubt
local replication redoubt_agent peer map=redoubt
local all all scram-sha-256
";

/// The agent runs as root.
pub const IDENT: &str = "redoubt root redoubt_agent\n";

/// Makes the agent's role, on a server that runs for nobody else.
pub const CREATE_ROLE: &str = "\
CREATE ROLE redoubt_agent LOGIN REPLICATION CONNECTION LIMIT 8;
GRANT pg_monitor, pg_checkpoint TO redoubt_agent;
";

const OURS: [&str; 42] = [
    "allow_in_place_tablespaces",
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "config_file",
    "cluster_name",
    "data_directory",
    "data_sync_retry",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "ident_file",
    "listen_addresses",
    "log_destination",
    "log_directory",
    "log_error_verbosity",
    "log_filename",
    "log_line_prefix",
    "log_min_error_statement",
    "log_min_messages",
    "log_timezone",
    "logging_collector",
    "port",
    "primary_conninfo",
    "recovery_target",
    "restart_after_crash",
    "restore_command",
    "shared_preload_libraries",
    "ssl",
    "synchronous_commit",
    "synchronous_standby_names",
    "temp_tablespaces",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "wal_consistency_checking",
    "track_commit_timestamp",
    "wal_log_hints",
    "wal_sync_method",
    "zero_damaged_pages",
];

/// Sizes of shared tables that a primary may change at a start.
const SIZES: [&str; 4] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_worker_processes",
];

/// Whether a setting is the agent's own.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    OURS.contains(&name.as_str()) || name.starts_with("redoubt")
}

/// Where things are, as PostgreSQL sees them.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// The data directory.
    pub data: &'a Path,
    /// The directory of the configuration files, which PostgreSQL cannot write.
    pub etc: &'a Path,
    /// The directory of sockets.
    pub run: &'a Path,
    /// The module (C2); without it, for a server without clients.
    pub guard: Option<&'a Path>,
    /// The name of the one standby (C2); none where there is none.
    pub standby: Option<&'a str>,
}

/// The arguments of `postgres`. What `pg_control` says about the size of shared tables is kept,
/// so that the first record is not a change of parameters, unless `ALTER SYSTEM` has changed it
/// (`kept`); `own` comes before what is ours.
#[must_use]
pub fn arguments(
    places: &Places<'_>,
    control: &ControlFile,
    own: &BTreeMap<String, String>,
    kept: &BTreeMap<String, String>,
) -> Vec<String> {
    let path = |path: &Path| path.display().to_string();
    let mut settings = chosen(recorded(control), own, kept);
    let fixed = [
        ("config_file", path(&places.etc.join("postgresql.conf"))),
        ("hba_file", path(&places.etc.join("pg_hba.conf"))),
        ("ident_file", path(&places.etc.join("pg_ident.conf"))),
        ("listen_addresses", String::new()),
        ("port", PORT.to_string()),
        ("unix_socket_directories", path(places.run)),
        ("unix_socket_permissions", "0700".to_owned()),
        ("ssl", "off".to_owned()),
        ("fsync", "off".to_owned()),
        ("full_page_writes", "off".to_owned()),
        ("restart_after_crash", "off".to_owned()),
        ("archive_mode", "off".to_owned()),
        ("synchronous_commit", "on".to_owned()),
        (
            "synchronous_standby_names",
            places.standby.unwrap_or_default().to_owned(),
        ),
        (
            "shared_preload_libraries",
            places.guard.map(path).unwrap_or_default(),
        ),
        // C6: what is left of the log is made by the watchdog out of these lines.
        ("logging_collector", "off".to_owned()),
        ("log_destination", "stderr".to_owned()),
        ("log_line_prefix", LINE_PREFIX.to_owned()),
        ("log_error_verbosity", "terse".to_owned()),
        ("log_min_error_statement", "panic".to_owned()),
        ("log_min_messages", "warning".to_owned()),
        ("log_timezone", "GMT".to_owned()),
    ];
    settings.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
    let mut arguments = vec!["-D".to_owned(), path(places.data)];
    for (name, value) in settings {
        arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
    }
    arguments
}

/// What somebody may choose, over what is recorded.
fn chosen(
    mut settings: Vec<(String, String)>,
    own: &BTreeMap<String, String>,
    kept: &BTreeMap<String, String>,
) -> Vec<(String, String)> {
    settings.retain(|(name, _)| !(SIZES.contains(&name.as_str()) && kept.contains_key(name)));
    settings.extend(own.iter().map(|(n, v)| (n.clone(), v.clone())));
    // A slot that is there needs it, whatever else is said.
    let is_logical = |all: &BTreeMap<String, String>| {
        all.get("wal_level")
            .is_some_and(|l: &String| l.eq_ignore_ascii_case("logical"))
    };
    if is_logical(own) || is_logical(kept) {
        settings.push(("wal_level".to_owned(), "logical".to_owned()));
    }
    settings
}

/// The port in the name of the socket.
pub const PORT: u16 = 5432;

/// The path of the socket below the directory of sockets.
#[must_use]
pub fn socket_name() -> String {
    format!(".s.PGSQL.{PORT}")
}

/// The settings that `pg_control` repeats (`ControlFileData`, 14 to 18).
fn recorded(control: &ControlFile) -> Vec<(String, String)> {
    let word = |at: usize| {
        let bytes = control.as_bytes().get(at..at + 4);
        bytes.and_then(|b| b.first_chunk().map(|&b| u32::from_le_bytes(b)))
    };
    let level = match word(172) {
        Some(2) => "logical",
        _ => "replica",
    };
    let flag = |at: usize| {
        let on = control.as_bytes().get(at).is_some_and(|byte| *byte != 0);
        Some(if on { "on" } else { "off" }.to_owned())
    };
    [
        ("wal_level", Some(level.to_owned())),
        ("wal_log_hints", flag(176)),
        ("max_connections", word(180).map(|n| n.to_string())),
        ("max_worker_processes", word(184).map(|n| n.to_string())),
        // The agent needs a walsender, and one more while it connects anew.
        ("max_wal_senders", word(188).map(|n| n.max(4).to_string())),
        (
            "max_prepared_transactions",
            word(192).map(|n| n.to_string()),
        ),
        (
            "max_locks_per_transaction",
            word(196).map(|n| n.to_string()),
        ),
        ("track_commit_timestamp", flag(200)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_postgresql_compares_them() {
        assert!(is_ours("FSYNC") && is_ours("redoubt_guard.anything"));
        assert!(!is_ours("max_connections") && !is_ours("fsync2"));
        assert!(is_ours("track_commit_timestamp"), "ingest does not take it");
        assert!(OURS.iter().all(|name| *name == name.to_ascii_lowercase()));
    }

    #[test]
    fn alter_system_changes_sizes_and_the_level_and_nothing_else_of_a_start() {
        let all = |text: &[(&str, &str)]| -> Vec<(String, String)> {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            text.iter().map(owned).collect()
        };
        let recorded = all(&[
            ("wal_level", "replica"),
            ("max_connections", "100"),
            ("max_wal_senders", "10"),
        ]);
        let own = all(&[("work_mem", "8MB"), ("wal_level", "replica")]);
        let kept = all(&[
            ("max_connections", "7"),
            ("max_wal_senders", "0"),
            ("wal_level", "logical"),
        ]);
        let (own, kept) = (own.into_iter().collect(), kept.into_iter().collect());
        // Of a name that stands twice the last one counts.
        let set = |own, kept| -> BTreeMap<_, _> {
            chosen(recorded.clone(), own, kept).into_iter().collect()
        };
        let none = BTreeMap::new();
        let found = set(&own, &kept);
        assert_eq!(found.get("max_connections"), None, "the file says it");
        assert_eq!(found["max_wal_senders"], "10");
        assert_eq!(found["wal_level"], "logical");
        assert_eq!(found["work_mem"], "8MB");
        assert_eq!(set(&own, &none)["wal_level"], "replica");
        assert_eq!(set(&none, &none)["max_connections"], "100");
    }
}
