//! The append-only WAL segment on a local disk (FORMAT.md, part 3).
//!
//!   W1  a pair of epoch key and sequence number seals at most one plaintext: both live in one
//!       [`LogWriter`] only, and every open for writing begins an epoch with a fresh salt;
//!   W2  no sealed byte is ever written again: truncation is a later epoch;
//!   W3  every record carries the tag of the one before it: none is removed or moved unseen;
//!   W4  one frame is one sync, and the next is not begun before: so a record behind a damaged
//!       one proves that the damaged one had been durable.
//!
//! W4 and what to do after a failed sync (drop the writer, scan, begin an epoch) are the
//! caller's: nothing here touches a disk.

mod index;
mod outline;
mod record;
mod scan;
mod writer;

pub use index::{Epoch, Frame, FrameError, Log};
pub use outline::{Outline, OutlinedEpoch, Tail, outline};
pub use record::{CONTROL_BYTES, FRAME_OVERHEAD, PAYLOAD_BYTES_MAX};
pub use scan::{Anchor, ScanError, Verify, scan};
pub use writer::{AppendError, EpochStart, LogWriter, SegmentSpec};
