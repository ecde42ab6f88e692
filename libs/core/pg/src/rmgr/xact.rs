//! Transactions (`xact.h`, `twophase.c`).

use bytes::{BufMut, Bytes, BytesMut};
use ids::{Fork, Lsn, RelTag};

use super::INVALIDATION_BYTES;
use super::fields::Fields;
use crate::PgMajor;
use crate::wal::{Malformed, Record};

/// Bits of [`Finish::xinfo`].
pub mod xinfo_bits {
    /// Database and tablespace are named.
    pub const DATABASE: u32 = 1 << 0;
    /// Subtransactions are listed.
    pub const SUBXACTS: u32 = 1 << 1;
    /// Relation files are dropped.
    pub const REL_FILES: u32 = 1 << 2;
    /// Cache invalidations are listed.
    pub const INVALIDATIONS: u32 = 1 << 3;
    /// The end of a prepared transaction.
    pub const TWOPHASE: u32 = 1 << 4;
    /// It came from a replication origin.
    pub const ORIGIN: u32 = 1 << 5;
    /// It held access-exclusive locks.
    pub const EXCLUSIVE_LOCKS: u32 = 1 << 6;
    /// The name of the prepared transaction is there.
    pub const GID: u32 = 1 << 7;
    /// Statistics are dropped. 15 on.
    pub const DROPPED_STATS: u32 = 1 << 8;
    /// `synchronous_commit = remote_apply`.
    pub const APPLY_FEEDBACK: u32 = 1 << 29;
    /// Relation cache init files become invalid.
    pub const RELCACHE_INIT_FILE: u32 = 1 << 30;
    /// Must be flushed.
    pub const FORCE_SYNC: u32 = 1 << 31;

    pub(super) const KNOWN: u32 = 0x1FF | APPLY_FEEDBACK | RELCACHE_INIT_FILE | FORCE_SYNC;
}

const HAS_INFO: u8 = 0x80;
const GID_BYTES: usize = 200;
const TWOPHASE_MAGIC: u32 = 0x57F9_4534;
const TWOPHASE_LAST_RM: u8 = 4;
const CRC_BYTES: usize = 4;
const REL_FILE_BYTES: usize = 12;

/// A relation, whose forks are all meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelFile {
    /// The tablespace.
    pub spc: u32,
    /// The database; 0 for shared relations.
    pub db: u32,
    /// The file number.
    pub rel: u32,
}

impl RelFile {
    /// One of its forks.
    #[must_use]
    pub const fn fork(self, fork: Fork) -> RelTag {
        RelTag {
            spc: self.spc,
            db: self.db,
            rel: self.rel,
            fork,
        }
    }
}

/// A statistics entry that goes with the transaction. 15 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedStats {
    /// What kind of object it counts.
    pub kind: u32,
    /// The database.
    pub db: u32,
    /// The object; above 32 bits from 18 on.
    pub object: u64,
}

/// Where a replicated transaction came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XactOrigin {
    /// Its LSN there.
    pub lsn: Lsn,
    /// When, in microseconds since 2000.
    pub time: i64,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Committed.
    Commit,
    /// Aborted.
    Abort,
}

/// The end of a transaction, prepared or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// How.
    pub outcome: Outcome,
    /// The transaction: the prepared one where it was prepared, else the record's own; an abort
    /// of a subtransaction names that.
    pub xid: u32,
    /// Whether it had been prepared: its state file goes.
    pub was_prepared: bool,
    /// When, in microseconds since 2000.
    pub time: i64,
    /// See [`xinfo_bits`].
    pub xinfo: u32,
    /// Database and tablespace, where named.
    pub database: Option<(u32, u32)>,
    /// Its subtransactions, which end the same way.
    pub subxacts: Vec<u32>,
    /// The relations whose files go.
    pub dropped: Vec<RelFile>,
    /// The statistics that go.
    pub dropped_stats: Vec<DroppedStats>,
    /// The name of the prepared transaction, where it is there.
    pub gid: Option<Bytes>,
    /// Where it came from.
    pub origin: Option<XactOrigin>,
}

/// A transaction was prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// The transaction.
    pub xid: u32,
    /// Its database.
    pub db: u32,
    /// When, in microseconds since 2000.
    pub time: i64,
    /// Its owner.
    pub owner: u32,
    /// Its name.
    pub gid: Bytes,
    /// Its subtransactions.
    pub subxacts: Vec<u32>,
    /// The relations whose files go on commit.
    pub commit_drops: Vec<RelFile>,
    /// The relations whose files go on abort.
    pub abort_drops: Vec<RelFile>,
    /// The statistics that go on commit.
    pub commit_stats: Vec<DroppedStats>,
    /// The statistics that go on abort.
    pub abort_stats: Vec<DroppedStats>,
    /// Where it came from; zeros where from here.
    pub origin: XactOrigin,
    /// All of the payload.
    pub state: Bytes,
}

impl Prepare {
    /// The file in `pg_twophase` that stands for the transaction.
    #[must_use]
    pub fn state_file(&self) -> Bytes {
        let mut file = BytesMut::with_capacity(self.state.len() + CRC_BYTES);
        file.extend_from_slice(&self.state);
        file.put_u32_le(crc32c::crc32c(&self.state));
        file.freeze()
    }
}

/// What happened to a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XactRecord {
    /// It ended.
    Finish(Finish),
    /// It was prepared.
    Prepare(Prepare),
    /// It has these subtransactions. A hint for hot standby.
    Assignment {
        /// The top-level transaction.
        top: u32,
        /// Subtransactions.
        subxacts: Vec<u32>,
    },
    /// Cache invalidations, for logical decoding.
    Invalidations,
}

pub(super) fn read(
    version: PgMajor,
    record: &Record,
    mut fields: Fields<'_>,
) -> Result<XactRecord, Malformed> {
    let op = record.op() & !HAS_INFO;
    if !matches!(op, 0x00 | 0x20 | 0x30 | 0x40) && record.info & HAS_INFO != 0 {
        return Err(Malformed::UnknownOp);
    }
    match op {
        0x00 => read_finish(version, record, fields, Outcome::Commit, false),
        0x30 => read_finish(version, record, fields, Outcome::Commit, true),
        0x20 => read_finish(version, record, fields, Outcome::Abort, false),
        0x40 => read_finish(version, record, fields, Outcome::Abort, true),
        0x10 => read_prepare(version, record, fields),
        0x50 => {
            let top = fields.u32("top-level xid")?;
            let count = fields.count("number of subxacts")?;
            let subxacts = fields.xids(count, "subxacts")?;
            fields.finish("subxacts")?;
            Ok(XactRecord::Assignment { top, subxacts })
        }
        0x60 => {
            skip_invalidations(&mut fields)?;
            fields.finish("invalidations")?;
            Ok(XactRecord::Invalidations)
        }
        _ => Err(Malformed::UnknownOp),
    }
}

fn read_finish(
    version: PgMajor,
    record: &Record,
    mut fields: Fields<'_>,
    outcome: Outcome,
    was_prepared: bool,
) -> Result<XactRecord, Malformed> {
    let time = fields.i64("time")?;
    let xinfo = if record.info & HAS_INFO != 0 {
        fields.u32("xinfo")?
    } else {
        0
    };
    check_xinfo(version, xinfo, outcome, was_prepared)?;
    let has = |bit| xinfo & bit != 0;
    let mut finish = Finish {
        outcome,
        xid: record.xid,
        was_prepared,
        time,
        xinfo,
        database: None,
        subxacts: Vec::new(),
        dropped: Vec::new(),
        dropped_stats: Vec::new(),
        gid: None,
        origin: None,
    };
    if has(xinfo_bits::DATABASE) {
        finish.database = Some((fields.u32("database")?, fields.u32("tablespace")?));
    }
    if has(xinfo_bits::SUBXACTS) {
        let count = fields.count("number of subxacts")?;
        finish.subxacts = fields.xids(count, "subxacts")?;
    }
    if has(xinfo_bits::REL_FILES) {
        let count = fields.count("number of dropped relations")?;
        finish.dropped = read_rel_files(&mut fields, count)?;
    }
    if has(xinfo_bits::DROPPED_STATS) {
        let count = fields.count("number of dropped stats")?;
        finish.dropped_stats = read_stats(version, &mut fields, count)?;
    }
    if has(xinfo_bits::INVALIDATIONS) {
        skip_invalidations(&mut fields)?;
    }
    if has(xinfo_bits::TWOPHASE) {
        finish.xid = fields.u32("prepared xid")?;
    }
    if has(xinfo_bits::GID) {
        finish.gid = Some(fields.c_string("gid")?);
    }
    if has(xinfo_bits::ORIGIN) {
        finish.origin = Some(XactOrigin {
            lsn: fields.lsn("origin LSN")?,
            time: fields.i64("origin time")?,
        });
    }
    fields.finish("end of transaction")?;
    Ok(XactRecord::Finish(finish))
}

/// Bits that nobody knows, or that do not go with the opcode.
fn check_xinfo(
    version: PgMajor,
    xinfo: u32,
    outcome: Outcome,
    was_prepared: bool,
) -> Result<(), Malformed> {
    let known = if version < PgMajor::V15 {
        xinfo_bits::KNOWN & !xinfo_bits::DROPPED_STATS
    } else {
        xinfo_bits::KNOWN
    };
    let aborted_invalidations = outcome == Outcome::Abort && xinfo & xinfo_bits::INVALIDATIONS != 0;
    let twophase = xinfo & xinfo_bits::TWOPHASE != 0;
    let nameless = xinfo & xinfo_bits::GID != 0 && !twophase;
    if xinfo & !known != 0 || aborted_invalidations || twophase != was_prepared || nameless {
        return Err(Malformed::Field {
            what: "xinfo",
            value: u64::from(xinfo),
        });
    }
    Ok(())
}

fn read_rel_files(fields: &mut Fields<'_>, count: u32) -> Result<Vec<RelFile>, Malformed> {
    fields.array(count, REL_FILE_BYTES, "dropped relations", |fields| {
        fields.rel_file("dropped relation")
    })
}

fn read_stats(
    version: PgMajor,
    fields: &mut Fields<'_>,
    count: u32,
) -> Result<Vec<DroppedStats>, Malformed> {
    let wide = version >= PgMajor::V18;
    let bytes = if wide { 16 } else { 12 };
    fields.array(count, bytes, "dropped stats", |fields| {
        let (kind, db) = (
            fields.u32("kind of stats")?,
            fields.u32("database of stats")?,
        );
        let low = fields.u32("object of stats")?;
        let high = if wide {
            fields.u32("object of stats")?
        } else {
            0
        };
        let object = u64::from(high) << 32 | u64::from(low);
        Ok(DroppedStats { kind, db, object })
    })
}

fn skip_invalidations(fields: &mut Fields<'_>) -> Result<(), Malformed> {
    let count = fields.count("number of invalidations")?;
    fields
        .array(count, INVALIDATION_BYTES, "invalidations", |fields| {
            fields.skip(INVALIDATION_BYTES, "invalidation")
        })
        .map(|_| ())
}

fn read_prepare(
    version: PgMajor,
    record: &Record,
    mut fields: Fields<'_>,
) -> Result<XactRecord, Malformed> {
    let wrong = |what, value: u32| {
        Err(Malformed::Field {
            what,
            value: u64::from(value),
        })
    };
    let magic = fields.u32("magic")?;
    if magic != TWOPHASE_MAGIC {
        return wrong("magic", magic);
    }
    let total = fields.u32("length")?;
    if total as usize != record.main_data.len() + CRC_BYTES {
        return wrong("length", total);
    }
    let (xid, db) = (fields.u32("xid")?, fields.u32("database")?);
    let time = fields.i64("time")?;
    let owner = fields.u32("owner")?;
    let subxact_count = fields.count("number of subxacts")?;
    let commit_drop_count = fields.count("number of relations dropped on commit")?;
    let abort_drop_count = fields.count("number of relations dropped on abort")?;
    let (mut commit_stats_count, mut abort_stats_count) = (0, 0);
    if version >= PgMajor::V15 {
        commit_stats_count = fields.count("number of stats dropped on commit")?;
        abort_stats_count = fields.count("number of stats dropped on abort")?;
    }
    let invalidation_count = fields.count("number of invalidations")?;
    let _init_file = fields.bool("init file invalidation")?;
    fields.skip(1, "padding")?;
    let gid_bytes = usize::from(fields.u16("length of gid")?);
    let origin = XactOrigin {
        lsn: fields.lsn("origin LSN")?,
        time: fields.i64("origin time")?,
    };
    let gid = read_gid(&mut fields, gid_bytes)?;
    let subxacts = fields.xids(subxact_count, "subxacts")?;
    fields.align8("subxacts")?;
    let commit_drops = read_rel_files(&mut fields, commit_drop_count)?;
    fields.align8("relations dropped on commit")?;
    let abort_drops = read_rel_files(&mut fields, abort_drop_count)?;
    fields.align8("relations dropped on abort")?;
    let commit_stats = read_stats(version, &mut fields, commit_stats_count)?;
    fields.align8("stats dropped on commit")?;
    let abort_stats = read_stats(version, &mut fields, abort_stats_count)?;
    fields.align8("stats dropped on abort")?;
    for _ in 0..invalidation_count {
        fields.skip(INVALIDATION_BYTES, "invalidations")?;
    }
    skip_state_records(&mut fields)?;
    fields.finish("state of prepared transaction")?;
    Ok(XactRecord::Prepare(Prepare {
        xid,
        db,
        time,
        owner,
        gid,
        subxacts,
        commit_drops,
        abort_drops,
        commit_stats,
        abort_stats,
        origin,
        state: Bytes::copy_from_slice(record.main_data),
    }))
}

/// The name: its length counts the NUL.
fn read_gid(fields: &mut Fields<'_>, bytes: usize) -> Result<Bytes, Malformed> {
    let mut gid = fields.bytes(bytes, "gid")?;
    let ends_well = gid.iter().position(|byte| *byte == 0) == bytes.checked_sub(1);
    if bytes == 0 || bytes > GID_BYTES || !ends_well {
        return Err(Malformed::Field {
            what: "length of gid",
            value: bytes as u64,
        });
    }
    gid.truncate(bytes - 1);
    fields.align8("gid")?;
    Ok(gid)
}

/// What lock manager, multixacts and so on keep for the transaction, up to the end mark.
fn skip_state_records(fields: &mut Fields<'_>) -> Result<(), Malformed> {
    loop {
        let bytes = fields.u32("state record")?;
        let manager = fields.u8("state record")?;
        fields.skip(1, "state record")?;
        let _info = fields.u16("state record")?;
        if manager > TWOPHASE_LAST_RM {
            return Err(Malformed::Field {
                what: "manager of state record",
                value: u64::from(manager),
            });
        }
        fields.skip(bytes as usize, "state record")?;
        fields.align8("state record")?;
        if manager == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
