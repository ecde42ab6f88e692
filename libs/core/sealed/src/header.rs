//! The header of every sealed file: 512 bytes (FORMAT.md, part 1).

mod rewrap;

use std::ops::Range;

use ids::{FileId, Generation, TenantId, TimelineId, WRAP_SLOT_BYTES, WrapSlot};

use crate::cipher::{self, Aead, CIPHER_GCM_SIV, KDF_SHA256, NONCE_BYTES, Prk};
use crate::{Dek, ObjectKind, wrap};

pub use rewrap::{FlipError, Staged, stage};

/// The length of a header: one sector, so that it is replaced whole.
pub const HEADER_BYTES: usize = 512;
/// The first bytes of a sealed file.
pub const MAGIC: [u8; 8] = *b"RDOUBT\r\n";
/// The version that this crate writes and reads.
pub const FORMAT_VERSION: u16 = 1;

const MAGIC_AT: Range<usize> = 0..8;
const VERSION: Range<usize> = MAGIC_AT.end..10;
const CIPHER: usize = VERSION.end;
const KDF: usize = CIPHER + 1;
const KIND: usize = KDF + 1;
const CHUNK_LOG2: usize = KIND + 1;
const INCOMPATIBLE: usize = CHUNK_LOG2 + 1;
const COMPATIBLE: usize = INCOMPATIBLE + 1;
const FILE_ID: Range<usize> = COMPATIBLE + 1..32;
const TENANT: Range<usize> = FILE_ID.end..48;
const TIMELINE: Range<usize> = TENANT.end..64;
const SHARD_NUMBER: usize = TIMELINE.end;
const SHARD_COUNT: usize = SHARD_NUMBER + 1;
const RESERVED: Range<usize> = SHARD_COUNT + 1..68;
const GENERATION: Range<usize> = RESERVED.end..72;
const NAME_DIGEST: Range<usize> = GENERATION.end..104;
const AUX: Range<usize> = NAME_DIGEST.end..112;
const PLAINTEXT_LEN: Range<usize> = AUX.end..120;
const CREATED: Range<usize> = PLAINTEXT_LEN.end..128;
/// What the commitment covers.
const IMMUTABLE: Range<usize> = 0..CREATED.end;
const SLOT_A: Range<usize> = IMMUTABLE.end..IMMUTABLE.end + WRAP_SLOT_BYTES;
const SLOT_B: Range<usize> = SLOT_A.end..SLOT_A.end + WRAP_SLOT_BYTES;
const COMMITMENT: Range<usize> = SLOT_B.end..SLOT_B.end + 32;
const RESERVED_END: Range<usize> = COMMITMENT.end..508;
const CRC: Range<usize> = RESERVED_END.end..HEADER_BYTES;
const _: () = assert!(FILE_ID.start == 16 && RESERVED.start == 66 && COMMITMENT.end == 416);

const FLAG_LENGTH_KNOWN: u8 = 1;

/// Why bytes are not the header of a sealed file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer bytes than a header has.
    #[error("the file has {have} bytes, fewer than a header")]
    Short {
        /// How many there are.
        have: usize,
    },
    /// No magic: not a sealed file. Never to be read as plaintext.
    #[error("the file is not sealed: it does not begin with the magic")]
    NotSealed,
    /// A later version of the format.
    #[error("format version {0} is not known")]
    Version(u16),
    /// The checksum does not match: damage, before any key is asked for.
    #[error("the checksum of the header does not match")]
    Checksum,
    /// A cipher that this build does not have.
    #[error("cipher {0}{reserved} is not part of this build", reserved = cipher::reserved_for(*.0))]
    Cipher(u8),
    /// A key derivation that this build does not have.
    #[error("key derivation {0} is not part of this build")]
    Kdf(u8),
    /// A kind that this version does not know, or with chunks that it does not have.
    #[error("object kind {kind} with chunks of 2^{chunk_log2} bytes is not known")]
    Kind {
        /// The number of the kind.
        kind: u8,
        /// The size of its chunks.
        chunk_log2: u8,
    },
    /// A flag or reserved byte that this version does not know.
    #[error("the header uses a flag or reserved bytes that this version does not know")]
    Unknown,
    /// No slot is active.
    #[error("the header has no active wrap slot")]
    NoActiveSlot,
}

/// The header of a sealed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the file is.
    pub kind: ObjectKind,
    /// This incarnation of the file.
    pub file_id: FileId,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// The timeline that it belongs to.
    pub timeline: TimelineId,
    /// The shard that wrote it.
    pub shard_number: u8,
    /// How many shards there were then.
    pub shard_count: u8,
    /// The generation that wrote it.
    pub generation: Generation,
    /// SHA-256 of the canonical name.
    pub name_digest: [u8; 32],
    /// A number whose meaning depends on the kind.
    pub aux: u64,
    /// The length of the plaintext; `None` where it is not known from the start.
    pub plaintext_len: Option<u64>,
    /// Seconds since 1970; for people only.
    pub created_unix: u64,
    /// Wrap slots A and B.
    pub slots: [WrapSlot; 2],
    /// Commits to the data key and to all fields above except the slots.
    pub commitment: [u8; 32],
}

impl Header {
    /// Reads the header at the beginning of `bytes`. What it says is not yet proven: see
    /// [`object::Reader::open`](crate::object::Reader::open).
    ///
    /// # Errors
    /// Anything that this version would not write is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(HeaderError::NotSealed);
        }
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::Short { have: bytes.len() });
        };
        let version = u16::from_le_bytes(array(bytes, VERSION));
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version(version));
        }
        if crc32c::crc32c(&bytes[..CRC.start]).to_le_bytes() != bytes[CRC] {
            return Err(HeaderError::Checksum);
        }
        check_registries(bytes)?;
        let kind = check_kind(bytes)?;
        let slots = [
            WrapSlot(array(bytes, SLOT_A)),
            WrapSlot(array(bytes, SLOT_B)),
        ];
        if !slots.iter().all(wrap::state_is_known) {
            return Err(HeaderError::Unknown);
        }
        if !slots.iter().any(wrap::is_active) {
            return Err(HeaderError::NoActiveSlot);
        }
        let known = bytes[COMPATIBLE] & FLAG_LENGTH_KNOWN != 0;
        let plaintext_len = u64::from_le_bytes(array(bytes, PLAINTEXT_LEN));
        if !known && plaintext_len != u64::MAX {
            return Err(HeaderError::Unknown);
        }
        Ok(Self {
            kind,
            file_id: FileId(array(bytes, FILE_ID)),
            tenant: TenantId(array(bytes, TENANT)),
            timeline: TimelineId(array(bytes, TIMELINE)),
            shard_number: bytes[SHARD_NUMBER],
            shard_count: bytes[SHARD_COUNT],
            generation: Generation(u32::from_le_bytes(array(bytes, GENERATION))),
            name_digest: array(bytes, NAME_DIGEST),
            aux: u64::from_le_bytes(array(bytes, AUX)),
            plaintext_len: known.then_some(plaintext_len),
            created_unix: u64::from_le_bytes(array(bytes, CREATED)),
            slots,
            commitment: array(bytes, COMMITMENT),
        })
    }

    /// The bytes of the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[MAGIC_AT].copy_from_slice(&MAGIC);
        bytes[VERSION].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[CIPHER] = CIPHER_GCM_SIV;
        bytes[KDF] = KDF_SHA256;
        bytes[KIND] = self.kind as u8;
        bytes[CHUNK_LOG2] = self.kind.chunk_log2();
        bytes[COMPATIBLE] = if self.plaintext_len.is_some() {
            FLAG_LENGTH_KNOWN
        } else {
            0
        };
        bytes[FILE_ID].copy_from_slice(self.file_id.as_bytes());
        bytes[TENANT].copy_from_slice(self.tenant.as_bytes());
        bytes[TIMELINE].copy_from_slice(self.timeline.as_bytes());
        bytes[SHARD_NUMBER] = self.shard_number;
        bytes[SHARD_COUNT] = self.shard_count;
        bytes[GENERATION].copy_from_slice(&self.generation.0.to_le_bytes());
        bytes[NAME_DIGEST].copy_from_slice(&self.name_digest);
        bytes[AUX].copy_from_slice(&self.aux.to_le_bytes());
        let plaintext_len = self.plaintext_len.unwrap_or(u64::MAX);
        bytes[PLAINTEXT_LEN].copy_from_slice(&plaintext_len.to_le_bytes());
        bytes[CREATED].copy_from_slice(&self.created_unix.to_le_bytes());
        bytes[SLOT_A].copy_from_slice(&self.slots[0].0);
        bytes[SLOT_B].copy_from_slice(&self.slots[1].0);
        bytes[COMMITMENT].copy_from_slice(&self.commitment);
        let crc = crc32c::crc32c(&bytes[..CRC.start]);
        bytes[CRC].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The slot that holds the data key.
    #[must_use]
    pub fn active_slot(&self) -> &WrapSlot {
        &self.slots[self.slot_in_use()]
    }

    pub(crate) fn prk(&self, dek: &Dek) -> Prk {
        Prk::extract(self.file_id.as_bytes(), dek.expose())
    }

    pub(crate) fn commit(&mut self, prk: &Prk) {
        self.commitment = self.expected_commitment(prk);
    }

    /// Whether this header was made by someone who holds the data key.
    pub(crate) fn is_committed(&self, prk: &Prk) -> bool {
        cipher::same(&self.expected_commitment(prk), &self.commitment)
    }

    fn expected_commitment(&self, prk: &Prk) -> [u8; 32] {
        *prk.expand::<32>(&[b"redoubt1/commit", &self.encode()[IMMUTABLE]])
    }
}

/// The key and the base nonce of the chunks of a file of `kind`.
pub(crate) fn data_key(kind: ObjectKind, prk: &Prk) -> (Aead, [u8; NONCE_BYTES]) {
    let okm = prk.expand::<44>(&[
        b"redoubt1/data",
        &FORMAT_VERSION.to_le_bytes(),
        &[CIPHER_GCM_SIV, KDF_SHA256, kind as u8, kind.chunk_log2()],
    ]);
    split_key(&okm)
}

/// A key and a base nonce out of 44 derived bytes.
pub(crate) fn split_key(okm: &[u8; 44]) -> (Aead, [u8; NONCE_BYTES]) {
    let (mut key, mut nonce) = (zeroize::Zeroizing::new([0; 32]), [0; NONCE_BYTES]);
    key.copy_from_slice(&okm[..32]);
    nonce.copy_from_slice(&okm[32..]);
    (Aead::new(&key), nonce)
}

/// The digest of a canonical name.
#[must_use]
pub fn name_digest(name: &str) -> [u8; 32] {
    cipher::digest(name.as_bytes())
}

fn check_registries(bytes: &[u8; HEADER_BYTES]) -> Result<(), HeaderError> {
    if bytes[CIPHER] != CIPHER_GCM_SIV {
        return Err(HeaderError::Cipher(bytes[CIPHER]));
    }
    if bytes[KDF] != KDF_SHA256 {
        return Err(HeaderError::Kdf(bytes[KDF]));
    }
    let reserved = bytes[RESERVED]
        .iter()
        .chain(&bytes[RESERVED_END])
        .any(|b| *b != 0);
    if bytes[INCOMPATIBLE] != 0 || bytes[COMPATIBLE] & !FLAG_LENGTH_KNOWN != 0 || reserved {
        return Err(HeaderError::Unknown);
    }
    Ok(())
}

fn check_kind(bytes: &[u8; HEADER_BYTES]) -> Result<ObjectKind, HeaderError> {
    let (kind, chunk_log2) = (bytes[KIND], bytes[CHUNK_LOG2]);
    ObjectKind::from_number(kind)
        .filter(|kind| kind.chunk_log2() == chunk_log2)
        .ok_or(HeaderError::Kind { kind, chunk_log2 })
}

fn array<const N: usize>(bytes: &[u8; HEADER_BYTES], at: Range<usize>) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at]);
    out
}
