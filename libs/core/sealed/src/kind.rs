//! What a sealed file is.

/// The kind of a sealed file; the number stands in its header and is part of its data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// An image layer.
    ImageLayer = 1,
    /// A delta layer.
    DeltaLayer = 2,
    /// The manifest of a timeline.
    Manifest = 3,
    /// Any other document.
    Document = 4,
    /// A complete WAL segment in the bucket.
    RemoteWal = 5,
    /// The beginning of a WAL segment in the bucket.
    RemotePartialWal = 6,
    /// The archive that a timeline starts from.
    BaseBackup = 7,
    /// A WAL segment on the disk of a safekeeper.
    LocalWal = 16,
    /// A local cache.
    Cache = 32,
    /// A record of a local database.
    Record = 33,
}

impl ObjectKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::ImageLayer,
            2 => Self::DeltaLayer,
            3 => Self::Manifest,
            4 => Self::Document,
            5 => Self::RemoteWal,
            6 => Self::RemotePartialWal,
            7 => Self::BaseBackup,
            16 => Self::LocalWal,
            32 => Self::Cache,
            33 => Self::Record,
            _ => return None,
        })
    }

    /// The size of a chunk as a power of two: 8 KiB for what is read at random, 64 KiB for what
    /// is read whole, 0 for what is not made of chunks.
    #[must_use]
    pub const fn chunk_log2(self) -> u8 {
        match self {
            Self::ImageLayer | Self::DeltaLayer => 13,
            Self::Manifest
            | Self::Document
            | Self::RemoteWal
            | Self::RemotePartialWal
            | Self::BaseBackup => 16,
            Self::LocalWal | Self::Cache | Self::Record => 0,
        }
    }

    /// Whether this is an immutable object, made of chunks (FORMAT.md, part 2).
    #[must_use]
    pub const fn is_object(self) -> bool {
        self.chunk_log2() != 0
    }
}
