//! Why a record could not be redone.

use ids::Lsn;
use thiserror::Error;

/// What is wrong with a record, or with the page that it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// No redo is written for this record (yet), or this version does not have it.
    #[error("this record is not supported")]
    Unsupported,
    /// A resource manager of an extension has no operation with this number.
    #[error("its resource manager has no such operation")]
    UnknownOp,
    /// The record names a block that its kind does not have.
    #[error("the record has no such block")]
    NoSuchBlock,
    /// The record's bytes end before its fields do.
    #[error("the record is shorter than its fields")]
    RecordTooShort,
    /// The record's bytes go on after its fields.
    #[error("the record is longer than its fields")]
    RecordTooLong,
    /// A field of the record holds a value that no server writes.
    #[error("the record holds an impossible {0}")]
    RecordValue(&'static str),
    /// The page header is not one of an initialised page.
    #[error("the page header is damaged")]
    PageHeader,
    /// The record names an item that the page does not have.
    #[error("the page has no item {0}")]
    NoSuchItem(u16),
    /// An item exists but is not what the record needs.
    #[error("item {0} of the page is not usable: {1}")]
    Item(u16, &'static str),
    /// The page has no room for what the record adds.
    #[error("the page is full")]
    PageFull,
    /// The full-page image of the record does not restore.
    #[error("the page image is damaged")]
    Image,
}

/// A record could not be redone on a page; the page must not be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("redo of the record that ends at {lsn} (rmgr {rmgr}, info {info:#04x}): {fault}")]
pub struct RedoError {
    /// The end of the record.
    pub lsn: Lsn,
    /// The resource manager of the record.
    pub rmgr: u8,
    /// The info byte of the record.
    pub info: u8,
    /// What is wrong.
    pub fault: Fault,
}
