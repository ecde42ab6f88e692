//! How a caller should take an error: one word that decides, and a hint for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the receiver of an error should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// The same request to the same place may succeed later.
    Retry,
    /// The same request belongs to another place (another node, another keymanager).
    RetryElsewhere,
    /// The request itself is wrong and will never succeed.
    FixRequest,
    /// A key is revoked, fenced or cannot be asked for; nothing is damaged.
    KeyUnavailable,
    /// What was stored is not what was written.
    DataDamaged,
    /// A rule of our own does not hold.
    Bug,
}

impl Grade {
    /// The HTTP status that stands for this grade.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Retry => 503,
            Self::RetryElsewhere => 421,
            Self::FixRequest => 400,
            Self::KeyUnavailable => 423,
            Self::DataDamaged | Self::Bug => 500,
        }
    }

    /// Whether the same request may be sent again unchanged, here or elsewhere.
    #[must_use]
    pub const fn may_retry(self) -> bool {
        matches!(
            self,
            Self::Retry | Self::RetryElsewhere | Self::KeyUnavailable
        )
    }
}

/// The body of every refused HTTP request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: String,
    /// What to do about it, for a program.
    pub grade: Grade,
    /// What to do about it, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}
