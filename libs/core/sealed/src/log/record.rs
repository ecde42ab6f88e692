//! The three records of a log: their bytes, without their keys.

use std::ops::Range;

use ids::{FileId, Lsn, NodeId, Term};

use crate::cipher::{self, TAG_BYTES};

/// The length of an EPOCH or SEAL record.
pub const CONTROL_BYTES: usize = 128;
/// What a frame adds to its payload.
pub const FRAME_OVERHEAD: usize = FRAME_HEADER_BYTES + TAG_BYTES;
/// The longest payload of a frame.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

pub(super) const FRAME_HEADER_BYTES: usize = 32;
/// The part of a frame header that its checksum covers and its tag binds.
pub(super) const FRAME_BOUND: Range<usize> = 0..28;
const CONTROL_CHECKED: Range<usize> = 0..96;
const CONTROL_BOUND: Range<usize> = 0..112;

const FRAME: [u8; 4] = *b"WFRM";
const EPOCH: [u8; 4] = *b"WEPO";
const SEAL: [u8; 4] = *b"WSEA";

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub payload_len: u32,
    pub start_lsn: Lsn,
    pub sequence: u64,
    pub epoch: u32,
}

impl FrameHeader {
    pub(super) fn encode(&self, file: FileId) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        out[..4].copy_from_slice(&FRAME);
        out[4..8].copy_from_slice(&self.payload_len.to_le_bytes());
        out[8..16].copy_from_slice(&self.start_lsn.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..28].copy_from_slice(&self.epoch.to_le_bytes());
        let crc = seeded_crc(file, &out[FRAME_BOUND]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

/// What EPOCH and SEAL say; a SEAL has the number of frames in place of the salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Control {
    pub is_seal: bool,
    pub epoch: u32,
    pub term: Term,
    pub lsn: Lsn,
    pub offset: u64,
    pub previous_tag: [u8; TAG_BYTES],
    pub salt: [u8; 32],
    pub node: NodeId,
    pub boot_nonce: u64,
}

impl Control {
    pub(super) fn encode(&self, file: FileId, key: &[u8; 32]) -> [u8; CONTROL_BYTES] {
        let mut out = [0; CONTROL_BYTES];
        out[..4].copy_from_slice(if self.is_seal { &SEAL } else { &EPOCH });
        out[4..8].copy_from_slice(&self.epoch.to_le_bytes());
        out[8..16].copy_from_slice(&self.term.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.lsn.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.offset.to_le_bytes());
        out[32..48].copy_from_slice(&self.previous_tag);
        out[48..80].copy_from_slice(&self.salt);
        out[80..88].copy_from_slice(&self.node.0.to_le_bytes());
        out[88..96].copy_from_slice(&self.boot_nonce.to_le_bytes());
        let crc = seeded_crc(file, &out[CONTROL_CHECKED]);
        out[96..100].copy_from_slice(&crc.to_le_bytes());
        let tag = cipher::mac(key, &out[CONTROL_BOUND]);
        out[CONTROL_BOUND.end..].copy_from_slice(&tag);
        out
    }
}

/// A record header with a valid checksum.
pub(super) enum Parsed {
    Frame(FrameHeader),
    /// Not yet authenticated: see [`control_tag`].
    Control(Control),
}

/// Reads the record at the beginning of `bytes`; `None` where there is none. The checksum is
/// seeded with the file, so records of other files do not count.
pub(super) fn parse(bytes: &[u8], file: FileId) -> Option<Parsed> {
    match bytes.first_chunk::<4>()? {
        &FRAME => {
            let header = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
            if seeded_crc(file, &header[FRAME_BOUND]).to_le_bytes() != header[28..] {
                return None;
            }
            Some(Parsed::Frame(FrameHeader {
                payload_len: u32::from_le_bytes(array(header, 4)),
                start_lsn: Lsn(u64::from_le_bytes(array(header, 8))),
                sequence: u64::from_le_bytes(array(header, 16)),
                epoch: u32::from_le_bytes(array(header, 24)),
            }))
        }
        marker @ (&EPOCH | &SEAL) => {
            let record = bytes.first_chunk::<CONTROL_BYTES>()?;
            if seeded_crc(file, &record[CONTROL_CHECKED]).to_le_bytes() != record[96..100] {
                return None;
            }
            Some(Parsed::Control(Control {
                is_seal: marker == &SEAL,
                epoch: u32::from_le_bytes(array(record, 4)),
                term: Term(u64::from_le_bytes(array(record, 8))),
                lsn: Lsn(u64::from_le_bytes(array(record, 16))),
                offset: u64::from_le_bytes(array(record, 24)),
                previous_tag: array(record, 32),
                salt: array(record, 48),
                node: NodeId(u64::from_le_bytes(array(record, 80))),
                boot_nonce: u64::from_le_bytes(array(record, 88)),
            }))
        }
        _ => None,
    }
}

/// The tag of the control record at the beginning of `bytes`, where it is genuine.
pub(super) fn control_tag(bytes: &[u8], key: &[u8; 32]) -> Option<[u8; TAG_BYTES]> {
    let record = bytes.first_chunk::<CONTROL_BYTES>()?;
    let tag = cipher::mac(key, &record[CONTROL_BOUND]);
    let reserved_is_zero = record[100..CONTROL_BOUND.end].iter().all(|b| *b == 0);
    (reserved_is_zero && cipher::same(&tag, &record[CONTROL_BOUND.end..])).then_some(tag)
}

fn seeded_crc(file: FileId, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(file.as_bytes()), bytes)
}

/// `N` bytes at `at`, which every caller has inside the record.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
