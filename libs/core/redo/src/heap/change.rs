//! Which record makes which change to a table, and how it writes it.

use pg::wal::{Record, rmgr};

use crate::fault::Fault;
use crate::fields::Fields;

/// `XLOG_HEAP_OPMASK`: the bits that tell the changes of one resource manager apart.
const OP: u8 = 0x70;
/// `XLOG_HEAP_INIT_PAGE`: the page is empty before this record.
const INIT_PAGE: u8 = 0x80;

/// What a record does to tuples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Insert,
    Delete,
    Update,
    HotUpdate,
    Lock,
    MultiInsert,
    LockUpdated,
}

/// Whether command ids are in the record. Stock recovery needs none: no command outlives a crash.
/// Neon's servers may lose a page amid a transaction, and log the ids under a resource manager of
/// their own (`neon_xlog.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Stock,
    Neon,
}

impl Change {
    /// The change that a record makes, where it is one that Neon's servers write too, or that
    /// may clear bits of the visibility map.
    pub(crate) fn of(record: &Record) -> Option<(Self, Dialect)> {
        let op = record.op() & OP;
        let dialect = match record.rmid {
            rmgr::HEAP | rmgr::HEAP2 => Dialect::Stock,
            rmgr::NEON => Dialect::Neon,
            _ => return None,
        };
        let change = match (record.rmid, op) {
            (rmgr::HEAP | rmgr::NEON, 0x00) => Self::Insert,
            (rmgr::HEAP | rmgr::NEON, 0x10) => Self::Delete,
            (rmgr::HEAP | rmgr::NEON, 0x20) => Self::Update,
            (rmgr::HEAP, 0x40) | (rmgr::NEON, 0x30) => Self::HotUpdate,
            (rmgr::HEAP, 0x60) | (rmgr::NEON, 0x40) => Self::Lock,
            (rmgr::HEAP2 | rmgr::NEON, 0x50) => Self::MultiInsert,
            (rmgr::HEAP2, 0x60) => Self::LockUpdated,
            _ => return None,
        };
        Some((change, dialect))
    }

    /// Whether the payload of block 0 is the tuples that it gets.
    pub(super) const fn adds_tuples(self) -> bool {
        match self {
            Self::Insert | Self::MultiInsert | Self::Update | Self::HotUpdate => true,
            Self::Delete | Self::Lock | Self::LockUpdated => false,
        }
    }

    /// Where the flags stand in the main data.
    pub(crate) const fn flags_at(self, dialect: Dialect) -> usize {
        match (self, dialect) {
            (Self::Insert, _) => 2,
            (Self::MultiInsert, _) => 0,
            (Self::Lock, Dialect::Neon) => 11,
            (Self::Delete | Self::Update | Self::HotUpdate | Self::Lock | Self::LockUpdated, _) => {
                7
            }
        }
    }

    /// Whether the record makes its page anew. Only some may, and their block says so too.
    pub(crate) fn is_init(self, record: &Record) -> Result<bool, Fault> {
        let is_init = record.op() & INIT_PAGE != 0;
        let may = match self {
            Self::Insert | Self::MultiInsert => true,
            // The old tuple is on another page: this one had none.
            Self::Update => record.block(1).is_some(),
            Self::HotUpdate | Self::Delete | Self::Lock | Self::LockUpdated => false,
        };
        let block_says = record.block(0).is_some_and(|block| block.will_init());
        if is_init != block_says || is_init && !may {
            return Err(Fault::RecordValue("bit that makes the page anew"));
        }
        Ok(is_init)
    }
}

/// `XLHL_*`: what a record says about a tuple's `xmax`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Infobits(pub(super) u8);

impl Infobits {
    pub(super) const IS_MULTI: u8 = 0x01;
    pub(super) const LOCK_ONLY: u8 = 0x02;
    pub(super) const EXCLUSIVE_LOCK: u8 = 0x04;
    pub(super) const KEY_SHARE_LOCK: u8 = 0x08;
    pub(super) const KEYS_UPDATED: u8 = 0x10;
    /// Neon's: the command id stands for two.
    pub(super) const COMBO: u8 = 0x20;

    pub(super) const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

impl Dialect {
    /// A command id, at its place in the record; the first one where records have none.
    pub(super) fn command(self, fields: &mut Fields<'_>) -> Result<u32, Fault> {
        match self {
            Self::Stock => Ok(0),
            Self::Neon => fields.u32(),
        }
    }

    pub(super) fn infobits(self, fields: &mut Fields<'_>) -> Result<Infobits, Fault> {
        let known = match self {
            Self::Stock => 0x1f,
            Self::Neon => 0x1f | Infobits::COMBO,
        };
        fields.flags(known).map(Infobits)
    }
}
