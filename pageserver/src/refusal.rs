//! What callers are told: one SQLSTATE for programs that speak libpq, one grade for those that
//! speak HTTP, and a message that carries the state of the tenant (K6).

use std::fmt;

use api::Grade;
use api::keys::KeyErrorKind;
use ids::TimelineId;
use keyring::KeyError;
use service::http::ApiError;
use service::libpq::QueryError;
use state::StateError;
use store::{GetError, SealedGetError, SealedPutError};

use crate::backup::BackupError;
use crate::import::{ArchiveError, ImportError, ValuesError};
use crate::timeline::{
    AttachError, BranchError, Closed, IngestError, ManifestPutError, ManifestReadError, ReadError,
    Stale, WaitError, WriteError,
};
use crate::view::ViewError;

/// The keys of the tenant are revoked.
pub(crate) const KEY_REVOKED: &str = "58R01";
/// There is no key now, for another reason.
pub(crate) const KEY_UNAVAILABLE: &str = "58R02";
/// What was stored is not what was written.
pub(crate) const DAMAGED: &str = "58R03";
/// Another page server has the timeline.
pub(crate) const ELSEWHERE: &str = "58R04";
/// The bucket does not answer, or the timeline is not up yet.
pub(crate) const NOT_NOW: &str = "58030";
/// WAL that has not come yet.
pub(crate) const AHEAD: &str = "55000";
/// Nothing of that name.
pub(crate) const UNKNOWN: &str = "42704";
/// A request that cannot be carried out by anybody.
pub(crate) const BAD_REQUEST: &str = "22023";
/// A command that is not understood.
pub(crate) const SYNTAX: &str = "42601";
/// The token does not allow this.
pub(crate) const FORBIDDEN: &str = "28000";
/// A rule of our own does not hold.
pub(crate) const INTERNAL: &str = "XX000";

/// A request that is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    pub(crate) sqlstate: &'static str,
    grade: Grade,
    message: String,
    hint: Option<&'static str>,
}

impl Refusal {
    fn new(sqlstate: &'static str, grade: Grade, message: impl fmt::Display) -> Self {
        Self {
            sqlstate,
            grade,
            message: message.to_string(),
            hint: None,
        }
    }

    const fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    /// Nobody has attached the timeline here.
    pub(crate) fn unknown(timeline: TimelineId) -> Self {
        let message = format!("timeline {timeline} is not attached here");
        Self::new(UNKNOWN, Grade::RetryElsewhere, message)
    }

    /// The request itself is wrong.
    pub(crate) fn bad_request(message: impl fmt::Display) -> Self {
        Self::new(BAD_REQUEST, Grade::FixRequest, message)
    }

    /// The command is not understood.
    pub(crate) fn syntax(message: impl fmt::Display) -> Self {
        Self::new(SYNTAX, Grade::FixRequest, message)
    }

    /// The token does not allow it.
    pub(crate) fn forbidden(message: impl fmt::Display) -> Self {
        Self::new(FORBIDDEN, Grade::FixRequest, message)
    }

    /// The same request may succeed later.
    pub(crate) fn not_now(message: impl fmt::Display) -> Self {
        Self::new(NOT_NOW, Grade::Retry, message)
    }

    /// What was stored is not what was written.
    pub(crate) fn damaged(message: impl fmt::Display) -> Self {
        Self::new(DAMAGED, Grade::DataDamaged, message)
    }

    /// A rule of our own does not hold.
    pub(crate) fn bug(message: impl fmt::Display) -> Self {
        Self::new(INTERNAL, Grade::Bug, message)
    }

    /// An object of the bucket that was not read, as `told`.
    fn of_object(error: &SealedGetError, told: &dyn fmt::Display) -> Self {
        match error {
            SealedGetError::Key(why) => why.clone().into(),
            SealedGetError::Get(GetError::Unavailable { .. }) => Self::not_now(told),
            // What a manifest names is there (D2).
            SealedGetError::Get(GetError::NotFound(_)) | SealedGetError::Damaged { .. } => {
                Self::damaged(told)
            }
        }
    }

    /// An error whose grade is known, and nothing else.
    pub(crate) fn graded(grade: Grade, message: impl fmt::Display) -> Self {
        let sqlstate = match grade {
            Grade::Retry => NOT_NOW,
            Grade::RetryElsewhere => ELSEWHERE,
            Grade::FixRequest => BAD_REQUEST,
            Grade::KeyUnavailable => KEY_UNAVAILABLE,
            Grade::DataDamaged => DAMAGED,
            Grade::Bug => INTERNAL,
        };
        Self::new(sqlstate, grade, message)
    }

    /// One line for protocols whose errors are text alone: the SQLSTATE comes first.
    pub(crate) fn line(&self) -> String {
        let hint = self.hint.map(|hint| format!(" ({hint})"));
        format!(
            "{} {}{}",
            self.sqlstate,
            self.message,
            hint.unwrap_or_default()
        )
    }
}

impl From<KeyError> for Refusal {
    fn from(error: KeyError) -> Self {
        let sqlstate = match &error {
            KeyError::Revoked { .. } => KEY_REVOKED,
            KeyError::LeaseEnded { .. }
            | KeyError::Unreachable { .. }
            | KeyError::NoMemory { .. } => KEY_UNAVAILABLE,
            KeyError::Refused { kind, .. } => match kind {
                KeyErrorKind::Revoked => KEY_REVOKED,
                KeyErrorKind::BrokenSlot | KeyErrorKind::UnknownKek => DAMAGED,
                _ => KEY_UNAVAILABLE,
            },
        };
        let refusal = Self::new(sqlstate, error.grade(), error);
        match sqlstate {
            KEY_REVOKED => refusal.hint(
                "nothing is damaged; once the owner grants the key again, this heals by itself",
            ),
            KEY_UNAVAILABLE => {
                refusal.hint("nothing is damaged; once a key manager grants, this heals by itself")
            }
            _ => refusal,
        }
    }
}

impl From<Stale> for Refusal {
    fn from(error: Stale) -> Self {
        Self::new(ELSEWHERE, Grade::RetryElsewhere, error)
            .hint("ask the page server that attached it last, or attach it here again")
    }
}

impl From<Closed> for Refusal {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Stale(stale) => stale.into(),
            Closed::Fenced(why) => why.into(),
        }
    }
}

impl From<WaitError> for Refusal {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Stale(stale) => stale.into(),
            WaitError::Key(why) => why.into(),
            WaitError::Timeout { .. } => Self::new(AHEAD, Grade::Retry, error),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let error = Self::new(refusal.grade, &refusal.message);
        match refusal.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl From<Refusal> for QueryError {
    fn from(refusal: Refusal) -> Self {
        let line = refusal.line();
        // The SQLSTATE has a field of its own here.
        let message = line.split_once(' ').map_or("", |(_, rest)| rest);
        Self::refused(refusal.sqlstate, message)
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Stale(stale) => stale.into(),
            ReadError::Key(why) => why.into(),
            ReadError::Ahead { .. } => Self::new(AHEAD, Grade::Retry, error),
            error => Self::graded(error.grade(), error),
        }
    }
}

impl From<ViewError> for Refusal {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::Read(read) => read.into(),
            error => Self::graded(error.grade(), error),
        }
    }
}

impl From<BackupError> for Refusal {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::View(view) => view.into(),
            BackupError::Wait(wait) => wait.into(),
            error => Self::graded(error.grade(), error),
        }
    }
}

impl From<ImportError> for Refusal {
    fn from(error: ImportError) -> Self {
        match error {
            // The disk is ours to see to.
            ImportError::Archive(ArchiveError::Spool(_))
            | ImportError::Values(ValuesError::Spool(_)) => Self::not_now(error),
            ImportError::Archive(_) | ImportError::Values(_) | ImportError::Occupied { .. } => {
                Self::bad_request(error)
            }
            ImportError::Attach(attach) => attach.into(),
            ImportError::Closed(closed) => closed.into(),
            ImportError::Read(read) => read.into(),
            ImportError::Ingest(IngestError::Key(why)) => why.into(),
            ImportError::Ingest(IngestError::Stale(stale)) => stale.into(),
            ImportError::Ingest(_) => Self::bug(error),
            ImportError::Write(write) => write.into(),
        }
    }
}

impl From<StateError> for Refusal {
    fn from(error: StateError) -> Self {
        match error {
            StateError::DamagedKey(_) => Self::damaged(error),
            _ => Self::not_now(error),
        }
    }
}

impl From<AttachError> for Refusal {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Absent(_) => Self::new(UNKNOWN, Grade::FixRequest, error),
            AttachError::Exists(_) => Self::bad_request(error),
            AttachError::Key(why) => why.into(),
            AttachError::Read(read) => read.into(),
            AttachError::Put(put) => put.into(),
            AttachError::RolledBack { .. } => Self::damaged(error),
            AttachError::Contended(_) => Self::not_now(error),
            AttachError::OtherParent { .. } | AttachError::NoNumber(_) => Self::bug(error),
        }
    }
}

impl From<ManifestReadError> for Refusal {
    fn from(error: ManifestReadError) -> Self {
        match error {
            ManifestReadError::Key(why) => why.into(),
            ManifestReadError::Bucket { .. } => Self::not_now(error),
            ManifestReadError::Sealed { ref source, .. } => Self::of_object(source, &error),
            ManifestReadError::Content { .. } => Self::damaged(error),
        }
    }
}

impl From<ManifestPutError> for Refusal {
    fn from(error: ManifestPutError) -> Self {
        match error {
            ManifestPutError::Key(why) => why.into(),
            ManifestPutError::Seal {
                source: SealedPutError::Key(why),
                ..
            } => why.into(),
            ManifestPutError::Encode(_) => Self::bug(error),
            _ => Self::not_now(error),
        }
    }
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stale(stale) => stale.into(),
            WriteError::Key(why) => why.into(),
            WriteError::Manifest(put) => put.into(),
            error => Self::graded(error.grade(), error),
        }
    }
}

impl From<BranchError> for Refusal {
    fn from(error: BranchError) -> Self {
        match error {
            BranchError::Stale(stale) => stale.into(),
            BranchError::Key(why) => why.into(),
            BranchError::Pin(write) => write.into(),
            BranchError::Create(attach) => attach.into(),
            BranchError::OutOfReach { .. } | BranchError::OtherPoint { .. } => {
                Self::bad_request(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::keys::RevokeReason;
    use ids::TenantId;

    use super::*;

    const TENANT: TenantId = TenantId([1; 16]);

    #[test]
    fn the_state_of_the_key_is_told_however_deep_it_lies() {
        let revoked = KeyError::Revoked {
            tenant: TENANT,
            reason: RevokeReason::Disabled,
        };
        let flat = Refusal::from(revoked.clone());
        let deep = AttachError::Put(ManifestPutError::Seal {
            name: "manifest".to_owned(),
            source: SealedPutError::Key(revoked),
        });
        assert_eq!(Refusal::from(deep), flat);
        assert_eq!(flat.sqlstate, KEY_REVOKED);
        assert!(flat.line().starts_with("58R01 the keys of tenant"));
        let ended = Refusal::from(KeyError::LeaseEnded { tenant: TENANT });
        assert_eq!(ended.sqlstate, KEY_UNAVAILABLE);
    }
}
