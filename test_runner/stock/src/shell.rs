//! Scripts, run as a user that PostgreSQL consents to run as.

use std::path::Path;
use std::process::Command;

/// Runs a script in `at`, and answers what it printed; `as_server`: as `postgres` where the test
/// runs as root, which servers refuse.
pub fn sh(at: &Path, script: &str, as_server: bool) -> String {
    let mut command = if as_server && is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--", "sh", "-c", script]);
        command
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    };
    let output = command.current_dir(at).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.contains("Uid:\t0\t")
}
