//! A client that asks one statement over and over, and remembers when it was answered.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::exit::Failure;

/// An answer that takes longer counts as none.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);
/// Before another session is tried.
const AGAIN: Duration = Duration::from_millis(250);

/// Makes the psql of a new session.
pub(crate) type Connect = dyn Fn() -> Result<Command, Failure> + Send + Sync;

/// What was answered, and when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers(Vec<(u64, Instant)>);

impl Answers {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Seconds from `moment` to the last answer behind it.
    pub(crate) fn last_after(&self, moment: Instant) -> Option<f64> {
        let (_, at) = self.0.last()?;
        Some(at.checked_duration_since(moment)?.as_secs_f64())
    }

    /// Seconds from `moment` to the first answer behind it.
    pub(crate) fn first_after(&self, moment: Instant) -> Option<f64> {
        let mut after = self.0.iter().filter(|(_, at)| *at >= moment);
        Some(after.next()?.1.duration_since(moment).as_secs_f64())
    }
}

/// The client, in a thread of its own, until it is ended.
pub(crate) struct Loop {
    answers: Arc<Mutex<Answers>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Loop {
    /// Asks `statement`, in which `:n` is a number that grows.
    pub(crate) fn begin(connect: Arc<Connect>, statement: String) -> Self {
        let answers = Arc::new(Mutex::new(Answers::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (answers, stop) = (answers.clone(), stop.clone());
            std::thread::spawn(move || ask_on(&*connect, &statement, &answers, &stop))
        };
        Self {
            answers,
            stop,
            thread: Some(thread),
        }
    }

    /// What was answered until now.
    pub(crate) fn answers(&self) -> Answers {
        let answers = self.answers.lock();
        answers.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it; returns the numbers that were answered.
    pub(crate) fn end(mut self) -> Vec<u64> {
        self.join();
        self.answers().0.into_iter().map(|(n, _)| n).collect()
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.join();
    }
}

fn ask_on(connect: &Connect, statement: &str, answers: &Mutex<Answers>, stop: &AtomicBool) {
    let mut session: Option<Session> = None;
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if session.is_none() {
            session = connect()
                .ok()
                .and_then(|command| Session::begin(command).ok());
        }
        let question = statement.replace(":n", &n.to_string());
        let answered = session
            .as_mut()
            .is_some_and(|session| session.ask(&question));
        if answered {
            let now = (n, Instant::now());
            answers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .0
                .push(now);
            std::thread::sleep(PAUSE);
        } else {
            // In doubt, and never asked again: neither claimed nor denied.
            session = None;
            std::thread::sleep(AGAIN);
        }
    }
}

/// A psql that reads statements from a pipe.
struct Session {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Session {
    fn begin(mut command: Command) -> std::io::Result<Self> {
        let mut child = command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let missing = || std::io::Error::other("a pipe is missing");
        let input = child.stdin.take().ok_or_else(missing)?;
        let output = child.stdout.take().ok_or_else(missing)?;
        let (sender, lines) = sync_channel(16);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            input,
            lines,
        })
    }

    /// Whether the statement, which returns one row, was answered in time.
    fn ask(&mut self, statement: &str) -> bool {
        writeln!(self.input, "{statement};").is_ok()
            && self.input.flush().is_ok()
            && self.lines.recv_timeout(PATIENCE).is_ok()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in for psql: answers each line while `file` exists, and ends where it does not.
    fn stand_in(file: std::path::PathBuf) -> Arc<Connect> {
        Arc::new(move || {
            let mut command = Command::new("sh");
            let script = "while read line; do test -e \"$FILE\" || exit 2; echo \"$line\"; done";
            command.env("FILE", &file).args(["-c", script, "sh"]);
            Ok(command)
        })
    }

    #[test]
    fn answers_stop_with_the_other_side_and_come_back_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("there");
        std::fs::write(&file, "").unwrap();
        let client = Loop::begin(stand_in(file.clone()), "select :n".to_owned());
        let until = |wanted: &dyn Fn() -> bool| {
            let begin = Instant::now();
            while !wanted() {
                assert!(begin.elapsed() < Duration::from_secs(20));
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        until(&|| client.answers().count() > 2);
        std::fs::remove_file(&file).unwrap();
        let removed = Instant::now();
        std::thread::sleep(Duration::from_millis(700));
        assert!(client.answers().last_after(removed).is_none_or(|s| s < 0.3));
        std::fs::write(&file, "").unwrap();
        let back = Instant::now();
        until(&|| client.answers().first_after(back).is_some());
        let numbers = client.end();
        assert!(numbers.is_sorted() && numbers.len() > 3, "{numbers:?}");
    }

    #[test]
    fn answers_are_counted_from_the_moment_that_is_asked_about() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let answers = Answers(vec![(0, at(100)), (1, at(300)), (2, at(900))]);
        assert_eq!(answers.last_after(at(400)), Some(0.5));
        assert_eq!(answers.last_after(at(1000)), None);
        assert_eq!(answers.first_after(at(200)), Some(0.1));
        assert_eq!(answers.first_after(at(1000)), None);
    }
}
