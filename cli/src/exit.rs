//! How a command ends: an error carries the grade that decides its exit code.

use std::fmt;
use std::io::{Error, ErrorKind};
use std::path::Path;

use api::{ClientError, Grade};

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    grade: Grade,
    text: String,
}

impl Failure {
    pub(crate) fn new(grade: Grade, text: impl fmt::Display) -> Self {
        Self {
            grade,
            text: text.to_string(),
        }
    }

    /// For `map_err`: what was being done when the operating system refused.
    pub(crate) fn doing(what: impl fmt::Display) -> impl FnOnce(Error) -> Self {
        move |error| Self::new(Grade::Retry, format_args!("cannot {what}: {error}"))
    }

    /// A rule of our own does not hold.
    pub(crate) fn bug(text: impl fmt::Display) -> Self {
        Self::new(Grade::Bug, text)
    }

    /// What was asked for cannot be had, however often it is asked.
    pub(crate) fn fix(text: impl fmt::Display) -> Self {
        Self::new(Grade::FixRequest, text)
    }

    /// What was asked for did not happen this time.
    pub(crate) fn retry(text: impl fmt::Display) -> Self {
        Self::new(Grade::Retry, text)
    }

    /// A file that could not be read: what the user named is wrong, or the disk is in trouble.
    pub(crate) fn reading(path: &Path, error: &Error) -> Self {
        let grade = match error.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::IsADirectory => {
                Grade::FixRequest
            }
            _ => Grade::Retry,
        };
        Self::new(
            grade,
            format_args!("cannot read {}: {error}", path.display()),
        )
    }

    /// Whether the same request will be refused again.
    pub(crate) fn is_final(&self) -> bool {
        self.grade == Grade::FixRequest
    }

    /// The exit code, as docs/reference/exit-codes.md lists it. 2 is also what a wrong flag gives.
    pub(crate) fn code(&self) -> u8 {
        match self.grade {
            Grade::FixRequest => 2,
            Grade::DataDamaged => 3,
            Grade::KeyUnavailable => 4,
            Grade::Retry => 5,
            Grade::RetryElsewhere => 6,
            Grade::Bug => 70,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Error> for Failure {
    /// Writing the answer failed: nobody reads it any more.
    fn from(error: Error) -> Self {
        Self::new(
            Grade::Retry,
            format_args!("cannot write the answer: {error}"),
        )
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::new(error.grade(), error)
    }
}
