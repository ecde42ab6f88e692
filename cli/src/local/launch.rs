//! Starting processes so that they outlive this command, waiting until they can work, stopping.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::home::{Home, make_directory, read_text};
use super::node::Operator;
use super::pid::{Pid, State};
use super::programs::{Kind, Program, program_file};
use crate::exit::Failure;

/// Between two looks at something that is waited for.
pub(crate) const LOOK: Duration = Duration::from_millis(100);
/// What is shown of a log when its process failed, in bytes and lines.
const LOG_BYTES: u64 = 16 << 10;
const LOG_LINES: usize = 12;

/// Whether the process lives, by its pid file.
pub(crate) fn state(home: &Home, program: &Program) -> Result<(Option<Pid>, State), Failure> {
    let pid = Pid::load(&home.pid(&program.name))?;
    let state = pid.as_ref().map_or(State::Stopped, Pid::state);
    Ok((pid, state))
}

/// Starts the process, in a session of its own, unless it lives.
pub(crate) fn start(home: &Home, program: &Program) -> Result<bool, Failure> {
    if state(home, program)?.1.lives() {
        return Ok(false);
    }
    make_directory(&home.root.join("run"), 0o755)?;
    make_directory(&home.data(&program.name), 0o755)?;
    let mut command = command(home, program)?;
    if program.kind == Kind::Compute {
        command.arg("run");
    }
    command.arg("--config").arg(home.config(&program.name));
    let child = spawn(&mut command)?;
    let number = i32::try_from(child).map_err(Failure::bug)?;
    let pid = Pid::now(number).map_err(|_| ended(home, program))?;
    pid.save(&home.pid(&program.name))?;
    Ok(true)
}

/// Runs a program's one-time work to its end, its output in the process's log.
pub(crate) fn run_once(home: &Home, program: &Program, arguments: &[&str]) -> Result<(), Failure> {
    make_directory(&home.data(&program.name), 0o755)?;
    let mut command = command(home, program)?;
    let status = command
        .args(arguments)
        .status()
        .map_err(Failure::doing(format_args!("run {}", program.name)))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::retry(format_args!(
        "{} {} failed ({status}); its log ends with:\n{}",
        program.kind.program(),
        arguments.first().unwrap_or(&""),
        end_of_log(&home.log(&program.name))
    )))
}

/// The program, in a session of its own, writing to its log.
fn command(home: &Home, program: &Program) -> Result<Command, Failure> {
    let file = program_file(program.kind)?;
    make_directory(&home.root.join("logs"), 0o755)?;
    let log = append(&home.log(&program.name))?;
    let copy = log.try_clone().map_err(Failure::doing("share a log"))?;
    // setsid(1) becomes the program: this command has no way to ask for a session without
    // unsafe code. A signal to the terminal's group then does not reach the process.
    let mut command = Command::new("setsid");
    command
        .arg(file)
        .current_dir(&home.root)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(copy);
    Ok(command)
}

fn append(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(Failure::doing(format_args!("open {}", path.display())))
}

/// Nobody waits for it here: it outlives this command.
fn spawn(command: &mut Command) -> Result<u32, Failure> {
    let child = command
        .spawn()
        .map_err(Failure::doing("start a process with setsid"))?;
    Ok(child.id())
}

/// Waits until `/ready` says so; fails as soon as the process is gone.
pub(crate) fn until_ready(
    home: &Home,
    program: &Program,
    operator: &Operator,
    limit: Duration,
) -> Result<(), Failure> {
    let begin = Instant::now();
    loop {
        let why = match operator.ready(&program.url()) {
            Ok(()) => return Ok(()),
            Err(why) => why,
        };
        if !state(home, program)?.1.lives() {
            return Err(ended(home, program));
        }
        if begin.elapsed() > limit {
            return Err(Failure::retry(format_args!(
                "{} is not ready after {} s: {why}; its log ends with:\n{}",
                program.name,
                limit.as_secs(),
                end_of_log(&home.log(&program.name))
            )));
        }
        std::thread::sleep(LOOK);
    }
}

fn ended(home: &Home, program: &Program) -> Failure {
    Failure::retry(format_args!(
        "{} ended; its log ends with:\n{}",
        program.name,
        end_of_log(&home.log(&program.name))
    ))
}

/// Asks the processes to end, all at once, and kills what has not after `limit`. Returns the
/// names of those that had to be killed.
pub(crate) fn stop(
    home: &Home,
    programs: &[Program],
    limit: Duration,
) -> Result<Vec<String>, Failure> {
    let mut living = Vec::new();
    for program in programs {
        let (pid, state) = state(home, program)?;
        if let Some(pid) = pid.filter(|_| state.lives()) {
            // One that is paused would take the request only when it is continued.
            pid.signal(Signal::SIGCONT)?;
            pid.signal(Signal::SIGTERM)?;
            living.push((program, pid));
        }
    }
    let begin = Instant::now();
    let mut killed = Vec::new();
    for (program, pid) in living {
        if !pid.gone_within(limit.saturating_sub(begin.elapsed())) {
            killed.push(program.name.clone());
            pid.signal(Signal::SIGKILL)?;
            if !pid.gone_within(Duration::from_secs(5)) {
                return Err(Failure::retry(format_args!(
                    "{} (pid {}) does not end even by SIGKILL",
                    program.name, pid.number
                )));
            }
        }
    }
    for program in programs {
        drop(std::fs::remove_file(home.pid(&program.name)));
    }
    Ok(killed)
}

/// The last lines of a log.
pub(crate) fn end_of_log(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(LOG_LINES);
    let last: Vec<String> = lines
        .iter()
        .skip(first)
        .map(|l| format!("    {l}"))
        .collect();
    last.join("\n")
}

/// Makes the system user that Postgres runs as, where it is missing.
pub(crate) fn make_user(name: &str) -> Result<(), Failure> {
    let known = nix::unistd::User::from_name(name).map_err(|error| {
        Failure::retry(format_args!(
            "cannot look up the system user {name}: {error}"
        ))
    })?;
    if known.is_some() {
        return Ok(());
    }
    let made = Command::new("useradd")
        .args(["--system", "--no-create-home", "--home-dir", "/nonexistent"])
        .args(["--shell", "/usr/sbin/nologin", "--user-group", name])
        .output()
        .map_err(Failure::doing("run useradd"))?;
    if made.status.success() {
        return Ok(());
    }
    Err(Failure::fix(format_args!(
        "useradd made no system user {name}: {}",
        String::from_utf8_lossy(&made.stderr).trim()
    )))
}

/// Takes away what is still mounted below the directory of a system whose processes are gone.
pub(crate) fn unmount_below(root: &Path) -> Result<(), Failure> {
    let mut found = mounts_below(&read_text(Path::new("/proc/self/mountinfo"))?, root);
    // What is mounted in a mount goes first.
    found.sort_by_key(|path| std::cmp::Reverse(path.len()));
    for path in found {
        let ended = Command::new("umount").args(["--lazy", &path]).status();
        let ended = ended.map_err(Failure::doing("run umount"))?;
        if !ended.success() {
            return Err(Failure::retry(format_args!("cannot unmount {path}")));
        }
    }
    Ok(())
}

/// Mount points at or below `root`, of the content of `mountinfo`.
fn mounts_below(mountinfo: &str, root: &Path) -> Vec<String> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| path.replace("\\040", " "))
        .filter(|path| Path::new(path).starts_with(root))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_system_are_taken_away() {
        let mountinfo = "36 35 98:0 / / rw - ext4 /dev/x rw\n\
                         40 36 0:1 / /home/x/compute-main/inside rw - fuse g rw\n\
                         41 36 0:2 / /home/xy rw - tmpfs t rw\n\
                         42 36 0:2 / /home/x/a\\040b rw - tmpfs t rw\n";
        let found = mounts_below(mountinfo, Path::new("/home/x"));
        assert_eq!(found, ["/home/x/compute-main/inside", "/home/x/a b"]);
    }

    #[test]
    fn the_end_of_a_log_is_its_last_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text: String = (0..5000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(file.path(), text).unwrap();
        let end = end_of_log(file.path());
        assert!(end.starts_with("    line 4988\n") && end.ends_with("    line 4999"));
        assert_eq!(end_of_log(Path::new("/nowhere")), "");
    }
}
