//! Turns WAL into layers, and answers what any page was at any LSN.
//!
//! Finished so far: values, the layers that hold them, sealed layer files, the manifest's content,
//! and the rebuilding of pages through `redo`. Nothing is ingested or served yet.
#![forbid(unsafe_code)]
#![expect(
    dead_code,
    reason = "the parts are tested, but no process ingests or reads yet"
)]

mod history;
mod layer;
mod manifest;
mod rebuild;
mod value;
