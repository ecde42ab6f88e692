//! Turns WAL into layers, and answers what any page was at any LSN.
//!
//! Finished so far: values, and the layers that hold them. Nothing is ingested or served yet.
#![forbid(unsafe_code)]

#[cfg_attr(not(test), expect(dead_code, reason = "nothing ingests or reads yet"))]
mod layer;
#[cfg_attr(not(test), expect(dead_code, reason = "nothing ingests or reads yet"))]
mod value;
