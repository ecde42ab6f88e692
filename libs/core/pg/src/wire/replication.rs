//! Messages of a WAL stream, both ways: one message is one CopyData.

use bytes::{BufMut, Bytes, BytesMut};
use ids::Lsn;

use super::field::{Fields, WireError};
use super::wal_push::PageserverFeedback;

/// From the side that has WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromSender {
    /// `w`: WAL.
    XLogData {
        /// Where it begins.
        start: Lsn,
        /// What the sender has in all.
        end: Lsn,
        /// Microseconds since 2000.
        time: i64,
        /// The WAL.
        wal: Bytes,
    },
    /// `k`: still here.
    Keepalive {
        /// What the sender has in all.
        end: Lsn,
        /// Microseconds since 2000.
        time: i64,
        /// Whether an answer is wanted at once.
        reply: bool,
    },
}

/// From the side that wants WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromReceiver {
    /// `r`: standby status.
    Status {
        /// Received up to here.
        write: Lsn,
        /// Flushed up to here.
        flush: Lsn,
        /// Applied up to here.
        apply: Lsn,
        /// Microseconds since 2000.
        time: i64,
        /// Whether an answer is wanted at once.
        reply: bool,
    },
    /// `h`: hot standby feedback.
    HotStandby {
        /// Microseconds since 2000.
        time: i64,
        /// The oldest xid needed.
        xmin: u32,
        /// Its epoch.
        xmin_epoch: u32,
        /// The oldest xid that the catalogue needs.
        catalog_xmin: u32,
        /// Its epoch.
        catalog_xmin_epoch: u32,
    },
    /// `z`: how far a pageserver is.
    Pageserver(PageserverFeedback),
}

impl FromSender {
    /// Decodes one CopyData payload.
    pub fn decode(message: Bytes) -> Result<Self, WireError> {
        let mut f = Fields(message);
        match f.u8("tag")? {
            b'w' => Ok(Self::XLogData {
                start: Lsn(f.u64("start")?),
                end: Lsn(f.u64("end")?),
                time: f.i64("time")?,
                wal: f.0,
            }),
            b'k' => {
                let (end, time) = (Lsn(f.u64("end")?), f.i64("time")?);
                let decoded = Self::Keepalive {
                    end,
                    time,
                    reply: f.flag("reply")?,
                };
                f.end()?;
                Ok(decoded)
            }
            tag => Err(WireError::UnknownTag { tag }),
        }
    }

    /// The payload of its CopyData.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::XLogData {
                start,
                end,
                time,
                wal,
            } => {
                out.put_u8(b'w');
                out.put_u64(start.0);
                out.put_u64(end.0);
                out.put_i64(*time);
                out.put_slice(wal);
            }
            Self::Keepalive { end, time, reply } => {
                out.put_u8(b'k');
                out.put_u64(end.0);
                out.put_i64(*time);
                out.put_u8(u8::from(*reply));
            }
        }
        out.freeze()
    }
}

impl FromReceiver {
    /// Decodes one CopyData payload.
    pub fn decode(message: Bytes) -> Result<Self, WireError> {
        let mut f = Fields(message);
        let decoded = match f.u8("tag")? {
            b'r' => Self::Status {
                write: Lsn(f.u64("write")?),
                flush: Lsn(f.u64("flush")?),
                apply: Lsn(f.u64("apply")?),
                time: f.i64("time")?,
                reply: f.flag("reply")?,
            },
            b'h' => Self::HotStandby {
                time: f.i64("time")?,
                xmin: f.u32("xmin")?,
                xmin_epoch: f.u32("xmin_epoch")?,
                catalog_xmin: f.u32("catalog_xmin")?,
                catalog_xmin_epoch: f.u32("catalog_xmin_epoch")?,
            },
            b'z' => {
                let len = f.u64("feedback bytes")?;
                if len != f.0.len() as u64 {
                    return Err(WireError::BadValue {
                        field: "feedback bytes",
                        value: len,
                    });
                }
                Self::Pageserver(PageserverFeedback::read(&mut f)?)
            }
            tag => return Err(WireError::UnknownTag { tag }),
        };
        f.end()?;
        Ok(decoded)
    }

    /// The payload of its CopyData.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Status {
                write,
                flush,
                apply,
                time,
                reply,
            } => {
                out.put_u8(b'r');
                out.put_u64(write.0);
                out.put_u64(flush.0);
                out.put_u64(apply.0);
                out.put_i64(*time);
                out.put_u8(u8::from(*reply));
            }
            Self::HotStandby {
                time,
                xmin,
                xmin_epoch,
                catalog_xmin,
                catalog_xmin_epoch,
            } => {
                out.put_u8(b'h');
                out.put_i64(*time);
                for word in [xmin, xmin_epoch, catalog_xmin, catalog_xmin_epoch] {
                    out.put_u32(*word);
                }
            }
            Self::Pageserver(feedback) => {
                let mut body = BytesMut::new();
                feedback.write(&mut body);
                out.put_u8(b'z');
                out.put_u64(body.len() as u64);
                out.put_slice(&body);
            }
        }
        out.freeze()
    }
}
