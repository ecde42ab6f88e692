//! Numbers that mean one thing each.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// A node of the storage: one safekeeper, pageserver or keymanager.
    NodeId(u64)
}
number! {
    /// The term of a proposer: each election has a higher one.
    Term(u64)
}
number! {
    /// The number of an attachment (pageserver) or of a membership (safekeepers).
    Generation(u32)
}
number! {
    /// The version of a KEK.
    KekVersion(u32)
}
