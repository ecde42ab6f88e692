//! A wrapped data key: ciphertext that may be stored and sent anywhere.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{KekId, KekVersion};

/// The length of a wrap slot, in bytes (FORMAT.md, part 1).
pub const WRAP_SLOT_BYTES: usize = 128;

/// A data key wrapped under a KEK, as it stands in the header of a sealed file.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WrapSlot(pub [u8; WRAP_SLOT_BYTES]);

impl WrapSlot {
    /// The KEK that wraps this key; meaningful only where the slot is not empty.
    #[must_use]
    pub fn kek_id(&self) -> KekId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0[..16]);
        KekId(id)
    }

    /// The version of that KEK.
    #[must_use]
    pub fn kek_version(&self) -> KekVersion {
        let mut version = [0; 4];
        version.copy_from_slice(&self.0[16..20]);
        KekVersion(u32::from_le_bytes(version))
    }
}

impl fmt::Debug for WrapSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "WrapSlot(kek {} version {})",
            self.kek_id(),
            self.kek_version()
        )
    }
}

impl Serialize for WrapSlot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for WrapSlot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; WRAP_SLOT_BYTES];
        hex::decode_to_slice(&text, &mut bytes).map_err(de::Error::custom)?;
        Ok(Self(bytes))
    }
}
