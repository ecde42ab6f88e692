//! The Postgres of a branch: how it is reached, and whether it runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::home::{Home, make_directory, read_text, write_file};
use super::pid::{Pid, Stat};
use super::settings::POSTGRES_BIN;
use super::system::{Branch, System};
use crate::exit::Failure;

/// The superuser of a new project, and its database.
pub(crate) const USER: &str = "postgres";
const DATABASE: &str = "postgres";

/// Makes the password of a new project, once.
pub(crate) fn make_password(home: &Home) -> Result<(), Failure> {
    let path = home.password();
    if path.exists() {
        return Ok(());
    }
    make_directory(&home.root, 0o755)?;
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(Failure::bug)?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    write_file(&path, format!("{text}\n").as_bytes(), 0o600)
}

/// The connection string of a branch, password included.
pub(crate) fn url(home: &Home, system: &System, branch: &Branch) -> Result<String, Failure> {
    let port = system.ports()?.compute(branch.ordinal);
    let password = read_text(&home.password())?;
    Ok(format!(
        "postgresql://{USER}:{password}@127.0.0.1:{port}/{DATABASE}"
    ))
}

/// A program of Postgres's clients; it finds the password in its environment, not among its
/// arguments, which every user of the machine may read.
pub(crate) fn client(
    program: &str,
    home: &Home,
    system: &System,
    branch: &Branch,
) -> Result<Command, Failure> {
    let beside = PathBuf::from(POSTGRES_BIN).join(program);
    let file = if beside.is_file() {
        beside
    } else {
        PathBuf::from(program)
    };
    let mut command = Command::new(file);
    command
        .env("PGHOST", "127.0.0.1")
        .env(
            "PGPORT",
            system.ports()?.compute(branch.ordinal).to_string(),
        )
        .env("PGUSER", USER)
        .env("PGDATABASE", DATABASE)
        .env("PGPASSWORD", read_text(&home.password())?)
        .env("PGCONNECT_TIMEOUT", "5");
    Ok(command)
}

/// Runs one statement in a psql of its own; rows come back unaligned, one a line.
pub(crate) fn query(
    home: &Home,
    system: &System,
    branch: &Branch,
    statement: &str,
) -> Result<String, Failure> {
    let mut psql = client("psql", home, system, branch)?;
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c"])
        .arg(statement)
        .stdin(Stdio::null());
    let output = psql.output().map_err(Failure::doing("run psql"))?;
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(Failure::retry(text(&output.stderr)))
}

/// Output of a program, trimmed.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// What a program said when it failed.
pub(crate) fn complaint(output: &Output) -> String {
    format!("{} {}", text(&output.stdout), text(&output.stderr))
}

/// The processes of the Postgres that the compute in `directory`, with agent `agent`, runs: its
/// descendants, and those that name the directory where the agent is gone.
pub(crate) fn processes(directory: &Path, agent: Option<&Pid>) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| is_postgres(*pid))
        .filter(|pid| {
            agent.is_some_and(|agent| descends(*pid, agent.number)) || names(*pid, directory)
        })
        .collect()
}

fn is_postgres(pid: i32) -> bool {
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let zombie = Stat::of(pid).is_none_or(|stat| matches!(stat.state, 'Z' | 'X'));
    comm.trim() == "postgres" && !zombie
}

fn descends(mut pid: i32, from: i32) -> bool {
    // Deeper than any tree of processes that an agent makes.
    for _ in 0..64 {
        match Stat::of(pid) {
            Some(stat) if stat.parent == from => return true,
            Some(stat) if stat.parent > 1 => pid = stat.parent,
            _ => return false,
        }
    }
    false
}

fn names(pid: i32, directory: &Path) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments = String::from_utf8_lossy(&arguments).into_owned();
    arguments
        .split('\0')
        .any(|argument| Path::new(argument).starts_with(directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn home() -> (tempfile::TempDir, Home) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        (directory, Home { root })
    }

    #[test]
    fn the_connection_string_holds_the_password_and_arguments_do_not() {
        let (_directory, home) = home();
        let system = System::new().unwrap();
        make_password(&home).unwrap();
        let password = read_text(&home.password()).unwrap();
        make_password(&home).unwrap();
        assert_eq!(read_text(&home.password()).unwrap(), password);
        let main = system.branch("main").unwrap();
        let url = url(&home, &system, main).unwrap();
        assert_eq!(
            url,
            format!("postgresql://postgres:{password}@127.0.0.1:55432/postgres")
        );
        let psql = client("psql", &home, &system, main).unwrap();
        assert!(
            psql.get_args()
                .all(|argument| argument != password.as_str())
        );
        let port = psql.get_envs().find(|(name, _)| *name == "PGPORT").unwrap();
        assert_eq!(port.1.unwrap(), "55432");
    }

    #[test]
    fn a_postgres_is_found_by_its_parent_and_by_its_directory() {
        let (_directory, home) = home();
        let program = home.root.join("postgres");
        symlink("/bin/sleep", &program).unwrap();
        let data = home.data("compute-main");
        let mut child = Command::new(&program).arg("60").spawn().unwrap();
        let own = Pid::now(i32::try_from(std::process::id()).unwrap()).unwrap();
        let number = i32::try_from(child.id()).unwrap();
        let begin = std::time::Instant::now();
        while !processes(&data, Some(&own)).contains(&number) {
            assert!(begin.elapsed().as_secs() < 5);
        }
        assert_eq!(processes(&data, None), Vec::<i32>::new());
        assert_eq!(
            processes(&home.root, None),
            [number],
            "its program lies there"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!processes(&data, Some(&own)).contains(&number));
    }
}
