//! The same file at another place: another timeline, or another tenant inside one key domain
//! (FORMAT.md, part 2.2).

use ids::{Generation, TenantId, TimelineId, WRAP_SLOT_BYTES, WrapSlot};

use super::{Expected, OpenError, open_header};
use crate::header::{HEADER_BYTES, Header, name_digest};
use crate::{Dek, ObjectKind, wrap};

/// Where an object goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHome {
    /// Whose it becomes.
    pub tenant: TenantId,
    /// The timeline that it becomes a part of.
    pub timeline: TimelineId,
    /// The generation that takes it there.
    pub generation: Generation,
    /// The canonical name that it gets.
    pub name: String,
    /// Seconds since 1970; for people only.
    pub created_unix: u64,
    /// The data key, wrapped for `tenant`; nobody here can tell whether it is.
    pub slot: WrapSlot,
}

/// The header with which the chunks of an object are the same object at `to`. Everything behind
/// it is copied as it is: file id, kind, length and data key stay, so each chunk still opens, and
/// no nonce seals anything that it has not sealed before.
///
/// What has no proven header at its old place gets none at the new one.
///
/// # Errors
/// As [`Reader::open`](super::Reader::open), but for the length of the file, which only whoever
/// copies it knows. Logs stay where they are: two writers would go on with one file id.
pub fn rehome(
    header: &[u8],
    dek: &Dek,
    expected: &Expected,
    to: &NewHome,
) -> Result<[u8; HEADER_BYTES], OpenError> {
    let header = open_header(header, dek, expected)?;
    if !header.kind.is_object() || header.plaintext_len.is_none() {
        return Err(OpenError::NotAnObject);
    }
    if matches!(header.kind, ObjectKind::Manifest | ObjectKind::Document) {
        return Err(OpenError::NotMovable);
    }
    let mut moved = Header {
        tenant: to.tenant,
        timeline: to.timeline,
        generation: to.generation,
        name_digest: name_digest(&to.name),
        created_unix: to.created_unix,
        slots: [
            wrap::with_active(&to.slot, true),
            WrapSlot([0; WRAP_SLOT_BYTES]),
        ],
        ..header
    };
    moved.commit(&moved.prk(dek));
    Ok(moved.encode())
}
