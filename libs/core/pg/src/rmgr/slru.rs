//! Transaction status, multixacts, commit timestamps (`clog.h`, `multixact.h`, `commit_ts.h`).

use super::fields::Fields;
use crate::PgMajor;
use crate::wal::{Malformed, Record};

/// What happened to transaction status, beside what transactions do to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClogRecord {
    /// A page begins, all zero.
    ZeroPage(u32),
    /// Segments before this page go.
    Truncate {
        /// The first page that stays.
        page: u32,
        /// The oldest transaction that stays.
        oldest_xid: u32,
        /// The database that holds it back.
        oldest_xid_db: u32,
    },
}

/// What happened to commit timestamps, beside what transactions do to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitTsRecord {
    /// A page begins, all zero.
    ZeroPage(u32),
    /// Segments before this page go.
    Truncate {
        /// The first page that stays.
        page: u32,
        /// The oldest transaction that stays.
        oldest_xid: u32,
    },
}

/// What a member holds; the numbers are PostgreSQL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MemberStatus {
    /// `FOR KEY SHARE`.
    ForKeyShare = 0,
    /// `FOR SHARE`.
    ForShare = 1,
    /// `FOR NO KEY UPDATE`.
    ForNoKeyUpdate = 2,
    /// `FOR UPDATE`.
    ForUpdate = 3,
    /// An update that leaves the key.
    NoKeyUpdate = 4,
    /// Any other update, or a deletion.
    Update = 5,
}

impl MemberStatus {
    const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::ForKeyShare,
            1 => Self::ForShare,
            2 => Self::ForNoKeyUpdate,
            3 => Self::ForUpdate,
            4 => Self::NoKeyUpdate,
            5 => Self::Update,
            _ => return None,
        })
    }
}

/// A member of a multixact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiXactMember {
    /// The transaction.
    pub xid: u32,
    /// What it holds.
    pub status: MemberStatus,
}

/// What happened to multixacts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultiXactRecord {
    /// A page of offsets begins, all zero.
    ZeroOffsetsPage(u32),
    /// A page of members begins, all zero.
    ZeroMembersPage(u32),
    /// A multixact was made.
    Create {
        /// The multixact.
        multi: u32,
        /// Where its members begin.
        offset: u32,
        /// Its members.
        members: Vec<MultiXactMember>,
    },
    /// Segments go.
    Truncate {
        /// The database that holds back the oldest multixact.
        oldest_multi_db: u32,
        /// The first multixact that goes.
        start_multi: u32,
        /// The first that stays.
        end_multi: u32,
        /// The first member that goes.
        start_member: u32,
        /// The first member that stays.
        end_member: u32,
    },
}

pub(super) fn read_clog(
    version: PgMajor,
    record: &Record,
    mut fields: Fields<'_>,
) -> Result<ClogRecord, Malformed> {
    let read = match record.op() {
        0x00 => ClogRecord::ZeroPage(fields.slru_page(version, "page")?),
        0x10 => ClogRecord::Truncate {
            page: fields.slru_page(version, "page")?,
            oldest_xid: fields.u32("oldest xid")?,
            oldest_xid_db: fields.u32("database of oldest xid")?,
        },
        _ => return Err(Malformed::UnknownOp),
    };
    fields.finish("payload").map(|()| read)
}

pub(super) fn read_commit_ts(
    version: PgMajor,
    record: &Record,
    mut fields: Fields<'_>,
) -> Result<CommitTsRecord, Malformed> {
    let read = match record.op() {
        0x00 => CommitTsRecord::ZeroPage(fields.slru_page(version, "page")?),
        0x10 => CommitTsRecord::Truncate {
            page: fields.slru_page(version, "page")?,
            oldest_xid: fields.u32("oldest xid")?,
        },
        _ => return Err(Malformed::UnknownOp),
    };
    fields.finish("payload").map(|()| read)
}

pub(super) fn read_multixact(
    version: PgMajor,
    record: &Record,
    mut fields: Fields<'_>,
) -> Result<MultiXactRecord, Malformed> {
    let read = match record.op() {
        0x00 => MultiXactRecord::ZeroOffsetsPage(fields.slru_page(version, "page")?),
        0x10 => MultiXactRecord::ZeroMembersPage(fields.slru_page(version, "page")?),
        0x20 => read_create(&mut fields)?,
        0x30 => MultiXactRecord::Truncate {
            oldest_multi_db: fields.u32("database of oldest multixact")?,
            start_multi: fields.u32("first multixact")?,
            end_multi: fields.u32("end of multixacts")?,
            start_member: fields.u32("first member")?,
            end_member: fields.u32("end of members")?,
        },
        _ => return Err(Malformed::UnknownOp),
    };
    fields.finish("payload").map(|()| read)
}

fn read_create(fields: &mut Fields<'_>) -> Result<MultiXactRecord, Malformed> {
    let (multi, offset) = (fields.u32("multixact")?, fields.u32("offset")?);
    let count = fields.count("number of members")?;
    // Both zero values mean "none": redo would write over what stands for that.
    for (what, value) in [("multixact", multi), ("number of members", count)] {
        if value == 0 {
            return Err(Malformed::Field { what, value: 0 });
        }
    }
    let members = fields.array(count, 8, "members", |fields| {
        let xid = fields.u32("member")?;
        let value = fields.u32("status of member")?;
        let status = MemberStatus::from_number(value).ok_or(Malformed::Field {
            what: "status of member",
            value: u64::from(value),
        })?;
        Ok(MultiXactMember { xid, status })
    })?;
    Ok(MultiXactRecord::Create {
        multi,
        offset,
        members,
    })
}
