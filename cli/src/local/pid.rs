//! Which process is which: a pid alone is reused, with its start and its boot it is not.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};

use super::home::{read_text, write_file};
use crate::exit::Failure;

/// One process, for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pid {
    pub(crate) number: i32,
    /// In ticks since the machine started.
    start: u64,
    boot: String,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It lives.
    Running,
    /// It lives, stopped by a signal.
    Paused,
    /// It was started and is no more.
    Died,
    /// It was not started, or was stopped on purpose.
    Stopped,
}

impl State {
    pub(crate) const fn lives(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Died => "died",
            Self::Stopped => "stopped",
        }
    }
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: char,
    pub(crate) parent: i32,
    pub(crate) start: u64,
}

impl Stat {
    /// The name in the second field may hold anything, parentheses and spaces too.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }

    /// Of a process that exists.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }
}

impl Pid {
    /// The process that has the number now.
    pub(crate) fn now(number: i32) -> Result<Self, Failure> {
        let stat = Stat::of(number)
            .ok_or_else(|| Failure::retry(format_args!("process {number} ended at once")))?;
        Ok(Self {
            number,
            start: stat.start,
            boot: boot()?,
        })
    }

    /// The one that a pid file names, if there is such a file.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, Failure> {
        if !path.exists() {
            return Ok(None);
        }
        let text = read_text(path)?;
        let parsed = text.parse();
        parsed
            .map(Some)
            .map_err(|()| Failure::fix(format_args!("{} is no pid file: {text:?}", path.display())))
    }

    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        write_file(path, format!("{self}\n").as_bytes(), 0o644)
    }

    pub(crate) fn state(&self) -> State {
        let same_boot = boot().is_ok_and(|boot| boot == self.boot);
        match Stat::of(self.number) {
            Some(stat) if same_boot && stat.start == self.start => match stat.state {
                'T' | 't' => State::Paused,
                // A zombie holds nothing but its number.
                'Z' | 'X' => State::Died,
                _ => State::Running,
            },
            _ => State::Died,
        }
    }

    /// Sends a signal, unless the process is gone.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Failure> {
        if !self.state().lives() {
            return Ok(());
        }
        match kill(nix::unistd::Pid::from_raw(self.number), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(Failure::fix(format_args!(
                "cannot send {signal} to process {}: {error}",
                self.number
            ))),
        }
    }

    /// Waits until it is gone; false when it lives on after `limit`.
    pub(crate) fn gone_within(&self, limit: Duration) -> bool {
        let begin = Instant::now();
        while self.state().lives() {
            if begin.elapsed() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.number, self.start, self.boot)
    }
}

impl FromStr for Pid {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [number, start, boot] = words.as_slice() else {
            return Err(());
        };
        let number = number.parse().map_err(|_| ())?;
        // 0 and below are groups of processes, for kill(2).
        if number <= 1 {
            return Err(());
        }
        Ok(Self {
            number,
            start: start.parse().map_err(|_| ())?,
            boot: (*boot).to_owned(),
        })
    }
}

fn boot() -> Result<String, Failure> {
    read_text(Path::new("/proc/sys/kernel/random/boot_id"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_name_full_of_parentheses_does_not_confuse() {
        let rest = "S 41 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 1";
        let stat = Stat::parse(&format!("42 (a) Z 1 (b)) {rest}")).unwrap();
        assert_eq!(
            stat,
            Stat {
                state: 'S',
                parent: 41,
                start: 98765
            }
        );
        for bad in ["", "42", "42 (x)", "42 (x) S", "42 (x) S 1 1"] {
            assert_eq!(Stat::parse(bad), None);
        }
    }

    #[test]
    fn a_pid_file_names_one_process_and_no_later_one() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::now(i32::try_from(child.id()).unwrap()).unwrap();
        assert_eq!(pid.state(), State::Running);
        assert_eq!(pid.to_string().parse(), Ok(pid.clone()));

        let mut later = pid.clone();
        later.start += 1;
        assert_eq!(later.state(), State::Died);
        later.signal(Signal::SIGKILL).unwrap();
        let mut other_boot = pid.clone();
        other_boot.boot.push('x');
        assert_eq!(other_boot.state(), State::Died);
        other_boot.signal(Signal::SIGKILL).unwrap();
        assert_eq!(pid.state(), State::Running, "neither was this one");

        pid.signal(Signal::SIGSTOP).unwrap();
        let stopped = Instant::now();
        while pid.state() != State::Paused {
            assert!(stopped.elapsed() < Duration::from_secs(5));
            std::thread::yield_now();
        }
        assert!(!pid.gone_within(Duration::ZERO));
        pid.signal(Signal::SIGKILL).unwrap();
        // A zombie until it is waited for: gone all the same.
        assert!(pid.gone_within(Duration::from_secs(5)));
        child.wait().unwrap();
        pid.signal(Signal::SIGKILL).unwrap();
    }

    #[test]
    fn no_pid_file_names_a_group_or_nonsense() {
        for bad in [
            "", "12", "12 13", "0 1 b", "-5 1 b", "1 1 b", "x 1 b", "12 x b", "12 1 b c",
        ] {
            assert!(bad.parse::<Pid>().is_err(), "{bad:?}");
        }
    }
}
