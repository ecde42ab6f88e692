//! The bucket: objects that are put once, and documents that are sequences of them.
//!
//! The rules D1 to D5 of the design live here: whoever puts a name first has won it, an answer
//! that was lost is settled by reading back, and a bucket that cannot do this is refused.
#![forbid(unsafe_code)]

mod backend;
mod bucket;
pub mod documents;
pub mod fault;
pub mod names;
mod probe;
mod sealed_store;

pub use backend::{GetError, Object};
pub use bucket::{Bucket, BucketConfig, OpenBucketError, PutError};
pub use probe::ProbeError;
pub use sealed_store::{SealedGetError, SealedObject, SealedPutError, SealedStore};
